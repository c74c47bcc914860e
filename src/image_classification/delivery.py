"""How records reach MLflow: at once or later, in order, once; and never at the expense of a run."""

import fcntl
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from image_classification import paths, records
from image_classification.errors import UserError
from image_classification.records import Record

UNDELIVERED = 75  # exit code; a temporary failure, says sysexits.h
RETRY_SECONDS = 3.0


class Courier:
    """Tells MLflow records from a thread of its own, so that a training never waits for it."""

    def __init__(self, folder: Path) -> None:
        """The files that records name are, or will be, in `folder`."""
        self._folder = folder
        self._model: Any = None
        self._queue: queue.SimpleQueue[Record | str | None] = queue.SimpleQueue()
        self._finishing = threading.Event()
        self._hindrance = ""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def send(self, record: Record, model: Any = None) -> None:
        """Have a record told after those sent before; with its model, if it is in memory."""
        self._model = model or self._model
        self._queue.put(record)

    def finish(self, digest: str | None = None) -> bool:
        """Wait until all is told, which is True, or MLflow has not taken it once more.

        Args:
            digest: of the file that holds all the records sent, to be marked as told.
        """
        self._queue.put(digest)
        self._queue.put(None)
        self._finishing.set()
        self._thread.join()
        return not self._hindrance

    def _work(self) -> None:
        from image_classification import tracking  # MLflow takes seconds to import

        delivery = tracking.Delivery(self._folder)
        while item := self._queue.get():
            delivery.model = self._model
            while not self._tell(delivery, item):
                if self._finishing.is_set():
                    return
                self._finishing.wait(RETRY_SECONDS)

    def _tell(self, delivery: Any, item: Record | str) -> bool:
        try:
            if isinstance(item, str):
                delivery.mark_told(item)
            else:
                delivery.tell(item)
        except Exception as error:  # whatever it is, the training goes on
            if not self._hindrance:
                said = "the training goes on, and its records wait on disk"
                print(f"MLflow: {_cause(error)}: {said}", file=sys.stderr)
            self._hindrance = _cause(error)
            return False
        if self._hindrance:
            print("MLflow answers again", file=sys.stderr)
            self._hindrance = ""
        return True


def publish(*folders: Path) -> int:
    """Tell MLflow the records of folders, after those that wait; what it refuses waits as well.

    It is asked, and not told again, what it has been told. What waits lies in the outbox, a copy.

    Returns:
        The exit code: UNDELIVERED while there is something left, else 0; 0 under DVC, which would
        throw away what a stage that fails has made.
    """
    from image_classification import store, tracking

    hindrance, reachable = "", True
    with _no_other_process():
        for folder in [*_waiting(), *folders]:
            try:
                if reachable:
                    tracking.Delivery(folder).tell_all()
                    if folder.is_relative_to(_outbox()):
                        shutil.rmtree(folder)
                    continue
            except Exception as error:  # whatever it is, it may not be so later
                hindrance = hindrance or _cause(error)
                reachable = not isinstance(error, store.UnreachableError)
            _keep(folder)
        left = len(_waiting())
    if left:
        print(
            f"MLflow: {hindrance}: the records of {left} folder(s) wait in {paths.OUTBOX}/, to be "
            "delivered by the next stage or by `image-classification sync`",
            file=sys.stderr,
        )
    return UNDELIVERED if left and "DVC_STAGE" not in os.environ else 0


def _cause(error: Exception) -> str:
    """An error in a line."""
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


def _outbox() -> Path:
    return paths.home() / paths.OUTBOX


def _waiting() -> list[Path]:
    """What waits, in the order in which it came."""
    return sorted(path for path in _outbox().glob("*-*") if path.is_dir())


def _keep(folder: Path) -> None:
    """Copy a folder into the outbox, once: what it is a copy of may be made anew, or removed."""
    digest = records.digest(folder)[:16]
    if any(path.name.endswith(digest) for path in _waiting()):
        return
    part = _outbox() / "part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(folder, part)
    part.rename(_outbox() / f"{time.time_ns()}-{digest}")


@contextmanager
def _no_other_process() -> Iterator[None]:
    """Keep other processes from telling, or keeping, the same at the same time."""
    try:
        _outbox().mkdir(exist_ok=True)
        lock = (_outbox() / "lock").open("w")
    except OSError as error:
        raise UserError(f"{_outbox()} can't be written: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
