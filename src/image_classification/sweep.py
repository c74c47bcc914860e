"""The run in MLflow that the runs of one sweep (`hydra -m …`) stand under."""

import atexit
import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepParent(Callback):
    """Hydra calls this around a sweep; conf/config.yaml names it."""

    def __init__(self) -> None:
        self._complete = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the parent; the jobs, also those in other processes, find it by its id."""
        if config.hydra.job.name != "train":
            return
        from image_classification import tracking  # MLflow takes seconds to import

        name = f"sweep {Path(config.hydra.sweep.dir).name}"
        run_id = tracking.start_sweep(config.hydra.runtime.choices.data, name)
        os.environ[tracking.SWEEP_RUN] = run_id
        # Hydra does not call on_multirun_end after a failure or an interruption.
        atexit.register(lambda: tracking.end_sweep(run_id, self._complete))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All jobs are done."""
        self._complete = True
