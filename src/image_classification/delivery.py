"""How records reach MLflow: at once or later, in order, once; and never at the expense of a run."""

import fcntl
import os
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
        self._digest: str | None = None
        self._waiting: list[Record] = []
        self._changed = threading.Condition()
        self._finishing = False
        self._hindrance = ""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def send(self, record: Record, model: Any = None) -> None:
        """Have a record told after those sent before; with its model, if it is in memory."""
        with self._changed:
            self._model = model or self._model
            self._waiting.append(record)
            self._changed.notify()

    def finish(self, digest: str, seconds: float | None = None) -> bool:
        """Wait until all is told, which is True, or MLflow has not taken it once more.

        Args:
            digest: of the file that holds all the records sent, to be marked as told.
            seconds: to wait at the most.
        """
        with self._changed:
            self._digest, self._finishing = digest, True
            self._changed.notify()
        self._thread.join(seconds)
        return not (self._hindrance or self._thread.is_alive())

    def _work(self) -> None:
        delivery = None
        while batch := self._batch():
            try:
                from image_classification import tracking  # MLflow takes seconds to import

                delivery = delivery or tracking.Delivery(self._folder)
                delivery.model = self._model
                delivery.tell(batch)
                self._said_of(delivery, batch)
            except Exception as error:  # whatever it is, the training goes on
                if not self._failed(_cause(error)):
                    return
        try:
            if delivery and self._digest:
                delivery.mark_told(self._digest)
        except Exception as error:
            self._hindrance = _cause(error)

    def _batch(self) -> list[Record]:
        """What is next: many records of metrics, or one of another type; nothing when it is all."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finishing)
            others = (i for i, one in enumerate(self._waiting) if one["type"] != "metrics")
            return self._waiting[: next(others, len(self._waiting)) or 1]

    def _said_of(self, delivery: Any, batch: list[Record]) -> None:
        with self._changed:
            del self._waiting[: len(batch)]
        if batch[0]["type"] == "run" and delivery.is_deleted:
            said = "has been deleted in MLflow, which is not told of it; its records stay on disk"
            print(f"run {batch[0]['key']} {said}", file=sys.stderr)
        if self._hindrance:
            print("MLflow answers again", file=sys.stderr)
            self._hindrance = ""

    def _failed(self, hindrance: str) -> bool:
        """Wait until it is time to try again; False when it is not to be tried again."""
        if not self._hindrance:
            said = "the training goes on, and its records wait on disk"
            print(f"MLflow: {hindrance}: {said}", file=sys.stderr)
        self._hindrance = hindrance
        with self._changed:
            if self._finishing:
                return False
            self._changed.wait_for(lambda: self._finishing, RETRY_SECONDS)
        return True


def publish(*folders: Path, keep: bool = True) -> int:
    """Tell MLflow the records of folders, after those that wait in the outbox.

    It is asked, and not told again, what it has been told.

    Args:
        folders: with records.
        keep: whether what it refuses is copied into the outbox, since it may be made anew.

    Returns:
        The exit code: UNDELIVERED while there is something left, else 0; 0 under DVC, which would
        throw away what a stage that fails has made.
    """
    from image_classification import store, tracking

    hindrance, reachable, left = "", True, 0
    with _no_other_process():
        for folder in [*_waiting(), *folders]:
            try:
                if reachable:
                    tracking.Delivery(folder).tell_all()
                    _take_out(folder)
                    continue
            except store.UnreachableError as error:
                hindrance, reachable = _cause(error), False
            except Exception as error:  # whatever it is, it may not be so later
                hindrance = hindrance or f"{folder}: {_cause(error)}"
            left += 1
            if keep:
                _keep(folder)
        if left and keep:  # a folder and its copy are one
            left = max(1, len(_waiting()))
    if left:
        place = f" in {paths.OUTBOX}/" if keep else ""
        print(
            f"MLflow: {hindrance}: the records of {left} folder(s) wait{place}, to be told by the "
            "next stage or by `image-classification sync`",
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
    return sorted(path for path in _outbox().glob("[0-9]*-*") if path.is_dir())


def _keep(folder: Path) -> None:
    """Copy a folder into the outbox, once: what it is a copy of may be made anew, or removed.

    A training's checkpoint stays where it is, and may go on.
    """
    if folder.parent in (_outbox(), paths.home() / paths.CHECKPOINTS):
        return
    try:
        digest = records.digest(folder)[:16]
        if any(path.name.endswith(digest) for path in _waiting()):
            return
        part = _outbox() / "part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part)
        part.rename(_outbox() / f"{time.time_ns()}-{digest}")
    except OSError as error:
        print(f"{_outbox()} can't keep {folder}: {error.strerror or error}", file=sys.stderr)


def _take_out(folder: Path) -> None:
    """Remove a folder that has been told, if it waited in the outbox."""
    if folder.parent == _outbox():
        shutil.rmtree(folder.rename(_outbox() / "told"), ignore_errors=True)


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
