"""From an event log to MLflow: which type of event is logged by which function."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from image_classification.core import paths
from image_classification.tracking import event_log, mlflow_run
from image_classification.tracking.event_log import Event
from image_classification.tracking.mlflow_model import has_model, log_model
from image_classification.tracking.mlflow_registry import register_versions, set_aliases
from image_classification.tracking.mlflow_run import MlflowRun
from image_classification.tracking.mlflow_tags import UPLOADED

# Of every type but `run`, which opens the run, and `model`, which may be in memory.
HANDLERS: dict[str, Callable[[MlflowRun, Event], None]] = {
    "resume": mlflow_run.resume,
    "params": mlflow_run.params,
    "data": mlflow_run.data,
    "metrics": mlflow_run.metrics,
    "artifacts": mlflow_run.artifacts,
    "tables": mlflow_run.tables,
    "inputs": mlflow_run.inputs,
    "versions": register_versions,
    "aliases": set_aliases,
    "note": mlflow_run.note,
    "end": mlflow_run.end,
}
# For the types whose files can be compared with those on disk.
CHECKS: dict[str, Callable[[MlflowRun, Event], bool]] = {
    "artifacts": mlflow_run.has_artifacts,
    "model": has_model,
}


class Uploader:
    """Logs the events of one folder to MLflow, in order; logging one again changes nothing."""

    _run: MlflowRun  # from the event of the run on

    def __init__(self, folder: Path) -> None:
        """The files that events name are in `folder`."""
        self.model: Any = None  # the run's keras.Model, if it is in memory
        self._folder = folder

    @property
    def is_deleted(self) -> bool:
        """Whether somebody has deleted the run in MLflow."""
        return self._run.is_deleted

    def log(self, events: Sequence[Event]) -> None:
        """Log events; the very first must be that of the run.

        Raises:
            mlflow_store.OUTAGES: MLflow did not take them; it may later.
        """
        for many, group in groupby(events, key=_is_plain_metrics):
            if many and not self.is_deleted:
                mlflow_run.log_metrics(self._run, list(group))
                continue
            for event in group:
                self._log_one(event)

    def _log_one(self, event: Event) -> None:
        if event["type"] == "run":
            self._run = mlflow_run.open_run(event, self._folder)
        elif self.is_deleted:
            return
        elif event["type"] == "model":
            log_model(self._run, event, self.model)
        else:
            HANDLERS[event["type"]](self._run, event)

    def log_all(self) -> None:
        """Log all events of the folder, unless MLflow has them and the files that they name.

        Raises:
            mlflow_store.OUTAGES: as `log`; or the event log is damaged.
        """
        digest = event_log.digest(self._folder)
        events = event_log.read(self._folder / paths.EVENTS_FILE)
        if not events:  # it was killed as it began
            return
        first, *others = events
        self.log([first])
        if self.is_deleted:
            return
        if digest in self._uploaded():
            self.log([event for event in others if self._lacks_files(event)])
        else:
            self.log(others)
            self.mark_uploaded(digest)

    def _lacks_files(self, event: Event) -> bool:
        has_files = CHECKS.get(event["type"])
        return has_files is not None and not has_files(self._run, event)

    def mark_uploaded(self, digest: str) -> None:
        """Remember in MLflow that all events of the log with this digest have arrived."""
        if not self.is_deleted:
            self._run.client.set_tag(self._run.run_id, f"{UPLOADED}{digest[:16]}", digest)

    def _uploaded(self) -> set[str]:
        tags = self._run.client.get_run(self._run.run_id).data.tags
        return {value for key, value in tags.items() if key.startswith(UPLOADED)}


def _is_plain_metrics(event: Event) -> bool:
    return event["type"] == "metrics" and not event["of_model"]
