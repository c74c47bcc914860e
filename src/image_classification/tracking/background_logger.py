"""Logging to MLflow in the background: a run never waits for it, and never fails because of it."""

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from image_classification.tracking.event_log import Event
from image_classification.tracking.mlflow_store import OUTAGES, cause_of
from image_classification.tracking.uploader import Uploader

RETRY_SECONDS = 3.0
GATHERING_SECONDS = 5.0  # between two uploads of metrics; each takes time from the training


class BackgroundLogger:
    """Logs events to MLflow from a thread of its own, and tries again while MLflow is down."""

    def __init__(self, folder: Path) -> None:
        """The files that events name are, or will be, in `folder`."""
        self._folder = folder
        self._model: Any = None
        self._digest: str | None = None
        self._waiting: list[Event] = []
        self._last_upload = -GATHERING_SECONDS
        self._changed = threading.Condition()
        self._finishing = False
        self._last_error = ""  # of MLflow, while it is down
        self._fault: BaseException | None = None  # of this project
        self._stopped = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def log(self, event: Event, model: Any = None) -> None:
        """Log an event after those before it; with its model, if that is in memory."""
        with self._changed:
            self._model = model or self._model
            self._waiting.append(event)
            self._changed.notify()

    def finish(self, digest: str, seconds: float | None = None) -> bool:
        """Wait until all is logged (True), or MLflow has failed once more (False).

        Args:
            digest: of the event log that holds all these events, which MLflow is to remember.
            seconds: to wait at most.

        Raises:
            BaseException: what a bug of this project raised in the thread.
        """
        with self._changed:
            self._digest, self._finishing = digest, True
            self._changed.notify()
        # When a signal interrupts Python 3.11's Thread.join, it takes a running thread for ended.
        stopped = self._stopped.wait(seconds)
        if self._fault:
            raise self._fault
        return stopped and not self._last_error

    def _work(self) -> None:
        uploader = Uploader(self._folder)
        try:
            while batch := self._next_batch():
                try:
                    uploader.model = self._model
                    uploader.log(batch)
                except OUTAGES as error:
                    if not self._wait_to_retry(cause_of(error)):
                        return
                else:
                    self._logged(batch, uploader.is_deleted)
            if self._digest:
                uploader.mark_uploaded(self._digest)
        except OUTAGES as error:
            self._last_error = cause_of(error)
        except BaseException as error:  # a thread has nobody to raise to
            self._fault = error
        finally:
            self._stopped.set()

    def _next_batch(self) -> list[Event]:
        """The next events: many of metrics, or one of another type; none when all is logged."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finishing)
            pause = self._last_upload + GATHERING_SECONDS - time.monotonic()
            self._changed.wait_for(self._is_urgent, max(0.0, pause))
            others = (i for i, event in enumerate(self._waiting) if event["type"] != "metrics")
            return self._waiting[: next(others, len(self._waiting)) or 1]

    def _is_urgent(self) -> bool:
        return self._finishing or any(event["type"] != "metrics" for event in self._waiting)

    def _logged(self, batch: Sequence[Event], is_deleted: bool) -> None:
        with self._changed:
            del self._waiting[: len(batch)]
            self._last_upload = time.monotonic()
        if batch[0]["type"] == "run" and is_deleted:
            message = "was deleted in MLflow: nothing more is logged there; its event log is kept"
            print(f"run {batch[0]['key']} {message}", file=sys.stderr)
        if self._last_error:
            print("MLflow is back", file=sys.stderr)
            self._last_error = ""

    def _wait_to_retry(self, error: str) -> bool:
        """Wait until it is time to try again; False when there is no more time for that."""
        if not self._last_error:
            message = "the run continues, and its events wait on disk"
            print(f"MLflow: {error}: {message}", file=sys.stderr)
        self._last_error = error
        with self._changed:
            if self._finishing:
                return False
            self._changed.wait_for(lambda: self._finishing, RETRY_SECONDS)
        return True
