"""The folder that a run works in until its results are there: its event log and its checkpoints.

It lies outside of DVC's outputs, which DVC removes before a stage runs again.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.core.locks import locked

FINISHED = "finished"  # the file that marks a run whose results are there


def run_folder(training_key: str) -> Path:
    """The folder of the run whose training has this key; see `provenance.training_key`."""
    return paths.home() / paths.CHECKPOINTS / training_key


def run_folders() -> Iterator[Path]:
    """The folders that hold an event log."""
    for path in sorted((paths.home() / paths.CHECKPOINTS).glob(f"*/{paths.EVENTS_FILE}")):
        yield path.parent


@contextmanager
def locked_folder(folder: Path, wait: bool = False) -> Iterator[None]:
    """Lock a run's folder, made when it is missing, against all other processes.

    Raises:
        UserError: another process holds it, and `wait` is false.
    """
    with locked(_lock_file(folder), "is working on this run", wait):
        folder.mkdir(exist_ok=True)
        yield


def finish(folder: Path) -> None:
    """Mark the folder, which is locked and whose results are there, for `discard_finished`."""
    (folder / FINISHED).touch()


def is_finished(folder: Path) -> bool:
    """Whether the run has its results."""
    return (folder / FINISHED).exists()


def discard_finished(training_key: str | None = None) -> None:
    """Remove the folders of finished runs, or only that of this training key.

    For stages that depend on these runs: by the time they start, DVC has stored the results. It
    may not have stored those of other runs, which can be in training at the same time.
    """
    root = paths.home() / paths.CHECKPOINTS
    for marker in root.glob(f"*/{FINISHED}"):
        if training_key in (None, marker.parent.name):
            with suppress(UserError, OSError), locked_folder(marker.parent):
                discard(marker.parent)
    for left in root.glob("*.discarded-*"):
        shutil.rmtree(left, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a run's folder, which is locked and no longer needed."""
    # Out of the way first: a kill must not leave half a folder under this name.
    away = folder.with_name(f"{folder.name}.discarded-{os.getpid()}-{time.time_ns()}")
    folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)
    _lock_file(folder).unlink(missing_ok=True)


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
