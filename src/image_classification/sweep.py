"""The run in MLflow that the runs of one sweep (`hydra -m …`) stand under."""

import atexit
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from image_classification.command import one_line_errors
from image_classification.config import SWEEP_RUN

if TYPE_CHECKING:
    from image_classification.runs import LiveRun


class SweepParent(Callback):
    """Hydra calls this around a sweep; conf/config.yaml names it."""

    def __init__(self) -> None:
        self._complete = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the parent; the jobs, also those in other processes, find it by its id."""
        data = config.hydra.runtime.choices.data
        if config.hydra.job.name != "train" or data is None:  # several data sets: no experiment
            return
        from image_classification import runs

        folder = Path(config.hydra.sweep.dir)
        with one_line_errors():  # Hydra would turn an error into a warning and go on
            folder.mkdir(parents=True, exist_ok=True)
            fields = runs.opening(data, f"sweep {folder.name}", {"sweep": "true"})
            run = runs.LiveRun(folder, folder, fields)
        os.environ[SWEEP_RUN] = json.dumps(run.records[0])
        # Hydra does not call on_multirun_end after a failure or an interruption.
        atexit.register(lambda: self._end(run, folder))

    def _end(self, run: "LiveRun", folder: Path) -> None:
        from image_classification import delivery

        if not run.end("FINISHED" if self._complete else "KILLED"):
            delivery.publish(folder)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All jobs are done."""
        self._complete = True
