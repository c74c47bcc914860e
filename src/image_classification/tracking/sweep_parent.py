"""The parent run in MLflow of the runs of one sweep (`hydra -m …`)."""

import atexit
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from image_classification.core import paths
from image_classification.core.command import one_line_errors
from image_classification.core.files import remove_empty
from image_classification.tracking import sweep


class SweepParent(Callback):
    """Hydra calls this around a sweep; conf/config.yaml names it."""

    def __init__(self) -> None:
        self._status = "KILLED"  # until all jobs are done

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the parent run, and close it when the process ends."""
        folder = Path(config.hydra.sweep.dir)
        atexit.register(remove_empty, folder.resolve())  # the last to be called
        data = config.hydra.runtime.choices.data
        if config.hydra.job.name != "train" or data is None:  # several data sets: no experiment
            return
        # MLflow takes seconds to import, and Hydra imports this module for every command.
        from image_classification.tracking import live_run, outbox

        with one_line_errors():  # Hydra would turn an error into a warning and continue
            folder.mkdir(parents=True, exist_ok=True)
            fields = live_run.opening(data, f"sweep {folder.name}", {"sweep": "true"})
            run = live_run.LiveRun(folder, folder, fields)
        sweep.announce(run.events[0], sweep.count_jobs(config.hydra.overrides.task))

        def end() -> None:
            if not run.end(self._status):
                outbox.upload(folder)

        atexit.register(end)  # Hydra does not call on_multirun_end after a failure

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All jobs are done: list those that failed, also in other processes, with their errors."""
        failed = sorted(Path(config.hydra.sweep.dir).glob(f"*/{paths.ERROR_FILE}"))
        self._status = "FAILED" if failed else "FINISHED"
        if not failed:
            return
        for path in failed:
            print(f"failed: {path.parent.name}: {path.read_text().rstrip()}", file=sys.stderr)
        print(f"{len(failed)} failed: fix that and repeat the command", file=sys.stderr)
        sys.exit(1)
