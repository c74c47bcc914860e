"""A run in progress: every event goes to its event log on disk first, then to MLflow."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.tracking import (
    event_log,
    mlflow_run,
    mlflow_store,
    sweep,
    system_metrics,
)
from image_classification.tracking.background_logger import BackgroundLogger
from image_classification.tracking.event_log import Event, EventLog
from image_classification.tracking.mlflow_tags import SWEEP_KEY

FIRST = "val_accuracy"  # MLflow's page of a comparison opens on the metric that was logged first
SAMPLE_SECONDS = 2.0  # between two samples of the system metrics
LAST_SECONDS = 10.0  # for logging an interruption to MLflow; what is left is uploaded later


def opening(experiment: str, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the event with which a run begins, in this process."""
    return {
        "key": event_log.new_key(),
        "experiment": experiment,
        "name": name,
        "start": event_log.now(),
        "tags": {**mlflow_store.context_tags(), **tags, **mlflow_store.process_tags()},
        "parent": sweep.parent(),
        "mlflow_run": os.environ.get("MLFLOW_RUN_ID"),
    }


class LiveRun:
    """A run in progress; a new one, or one that another process left and this one resumes."""

    def __init__(self, folder: Path, output: Path, fields: Mapping[str, Any]) -> None:
        """Keep the event log in `folder`; the files that it names will be in `output`.

        Args:
            folder: that exists.
            output: of the stage.
            fields: from `opening`; of a run that is resumed, only the tags count.
        """
        self._folder = folder
        self._ended = False
        self._log = EventLog(folder / paths.EVENTS_FILE)
        self._logger = BackgroundLogger(output)
        known = list(self._log.all)
        for event in known:
            self._logger.log(event)
        if known:
            self.log("resume", tags=fields["tags"])
        else:
            self.log("run", **fields)

    @property
    def events(self) -> list[Event]:
        """All that has been logged."""
        return list(self._log.all)

    @property
    def key(self) -> str:
        """The run's key; see `event_log.new_key`."""
        return str(self._log.all[0]["key"])

    def log(self, event_type: str, **fields: Any) -> None:
        """Write an event to disk, and log it to MLflow in the background."""
        self._logger.log(self._log.append(event_type, **fields))

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log the parameters, unless an earlier process has."""
        if not any(event["type"] == "params" for event in self._log.all):
            self.log("params", values=dict(values))

    def log_epochs(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Log those rows of fit.EpochReporter that have not been logged."""
        logged = {event["step"] for event in epochs(self._log.all)}
        for row in rows:
            if row["epoch"] not in logged:
                values = {FIRST: row[FIRST], **row}
                del values["epoch"]
                fields = event_log.metrics(values, int(row["epoch"]), event_log.now())
                self.log("metrics", **fields)

    @contextmanager
    def system_metrics(self) -> Iterator[None]:
        """Log the system metrics while the block runs."""
        stop = threading.Event()
        thread = threading.Thread(target=self._sample, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _sample(self, stop: threading.Event) -> None:
        step = max((event["step"] for event in _samples(self._log.all)), default=-1)
        monitors = system_metrics.system_monitors()
        # The run itself reports a full disk; a sample is not worth a run.
        with suppress(UserError, psutil.Error, OSError):
            ended, samples = False, []
            while not ended:  # a last sample at the end: a run may be shorter than the pause
                ended = stop.wait(SAMPLE_SECONDS)
                step += 1
                values = system_metrics.sample(monitors)
                samples.append(event_log.metrics(values, step, event_log.now()))
                # Not before the first epoch, whose FIRST is to be the first metric of all.
                if ended or epochs(self._log.all):
                    for fields in samples:
                        self.log("metrics", **fields)
                    samples = []

    def end(self, status: str) -> bool:
        """Close the run, which may be resumed; return whether MLflow has all of it."""
        if not self._ended:  # else interrupted in its last moment
            with suppress(UserError):  # a full disk, which is why it ends
                self.log("end", status=status, time=event_log.now())
            self._log.close()
        return self._logger.finish(event_log.digest(self._folder), LAST_SECONDS)

    def complete(self, last: Sequence[Event], output: Path, model: Any) -> None:
        """Log the last events, which the event log in `output` holds after all the others."""
        self._ended = True
        self._log.close()
        for event in last:
            self._logger.log(event, model)
        self._logger.finish(event_log.digest(output))


def open_sweep(folder: Path, experiment: str, words: Sequence[str]) -> LiveRun:
    """The run that is the parent of a sweep's runs: that of an earlier attempt, or else a new one.

    Args:
        folder: of the sweep, which exists and gives a new run its name.
        experiment: of the runs.
        words: what is swept over, in a fixed order.
    """
    sweep_key = hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()
    tags = {"sweep": "true", SWEEP_KEY: sweep_key}
    fields = opening(experiment, f"sweep {folder.name}", tags)
    known = None
    with suppress(mlflow_store.UnreachableError):
        known = mlflow_run.key_of_sweep(experiment, sweep_key)
    run = LiveRun(folder, folder, {**fields, "key": known or fields["key"]})
    if known:
        run.log("resume", tags=fields["tags"])
    return run


def epochs(events: Sequence[Event]) -> list[Event]:
    """The events of a log that hold the metrics of an epoch."""
    return [e for e in events if e["type"] == "metrics" and "epoch_seconds" in e["values"]]


def _samples(events: Sequence[Event]) -> list[Event]:
    prefix = system_metrics.PREFIX
    metrics = [event for event in events if event["type"] == "metrics"]
    return [event for event in metrics if str(next(iter(event["values"]))).startswith(prefix)]
