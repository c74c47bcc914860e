"""The run in MLflow that the runs of one sweep (`hydra -m …`) stand under."""

import atexit
import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from image_classification.config import SWEEP_RUN, one_line_errors


class SweepParent(Callback):
    """Hydra calls this around a sweep; conf/config.yaml names it."""

    def __init__(self) -> None:
        self._complete = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the parent; the jobs, also those in other processes, find it by its id."""
        data = config.hydra.runtime.choices.data
        if config.hydra.job.name != "train" or data is None:  # several data sets: no experiment
            return
        from image_classification import tracking  # MLflow takes seconds to import

        name = f"sweep {Path(config.hydra.sweep.dir).name}"
        with one_line_errors():  # Hydra would turn an error into a warning and go on
            run_id = tracking.start_sweep(data, name)
        os.environ[SWEEP_RUN] = run_id
        # Hydra does not call on_multirun_end after a failure or an interruption.
        atexit.register(lambda: tracking.end_sweep(run_id, self._complete))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All jobs are done."""
        self._complete = True
