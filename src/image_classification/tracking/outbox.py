"""Uploading finished event logs to MLflow; what MLflow does not take waits in the outbox."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.core.locks import locked
from image_classification.tracking import event_log
from image_classification.tracking.mlflow_run import MissingRunError
from image_classification.tracking.mlflow_store import (
    OUTAGES,
    DeletedError,
    UnreachableError,
    cause_of,
)
from image_classification.tracking.uploader import Uploader

NOT_UPLOADED = 75  # exit code: EX_TEMPFAIL of sysexits.h


def upload(*folders: Path, keep: bool = True) -> int:
    """Upload the event logs of folders, after those that wait in the outbox.

    What MLflow has already is not uploaded again. A log about a run that neither MLflow nor the
    folders have, such as an evaluation after a change of the store, is named and left out.

    Args:
        folders: with event logs.
        keep: whether to copy what MLflow does not take into the outbox; stages may overwrite it.

    Returns:
        The exit code: NOT_UPLOADED while something is left, else 0; always 0 under DVC, which
        would throw away the outputs of a stage that fails.
    """
    last_error, reachable, left = "", True, 0
    without_run: list[Path] = []  # tried again at the end: the run may be in a folder after them
    with _lock():
        for folder in chain([*_waiting(), *folders], without_run):
            try:
                if reachable:
                    Uploader(folder).log_all()
                    _remove(folder)
                    continue
            except UnreachableError as error:
                last_error, reachable = cause_of(error), isinstance(error, DeletedError)
            except MissingRunError as error:
                if folder not in without_run:
                    without_run.append(folder)
                    continue
                if not left:  # else its run may be among what is left
                    print(f"{folder} is not uploaded: {error}{_hint(keep)}", file=sys.stderr)
                    continue
            except OUTAGES as error:  # it may be another store, or a better moment, next time
                last_error = last_error or f"{folder}: {cause_of(error)}"
            left += 1
            if keep:
                _keep(folder)
        if left and keep:  # a folder and its copy are one
            left = max(1, len(_waiting()))
    if left:
        place = f" in {paths.OUTBOX}/" if keep else ""
        print(
            f"MLflow: {last_error}: the event logs of {left} folder(s) wait{place} for the next "
            "stage or `image-classification sync` to upload them",
            file=sys.stderr,
        )
    return NOT_UPLOADED if left and not paths.is_dvc_stage() else 0


def _hint(keep: bool) -> str:
    if keep:
        return ": `image-classification sync` uploads both, if the run's folder is here"
    return ", nor does any folder here: make it anew or remove it"


def _outbox() -> Path:
    return paths.home() / paths.OUTBOX


def _waiting() -> list[Path]:
    """The folders in the outbox, in the order in which they came."""
    return sorted(path for path in _outbox().glob("[0-9]*-*") if path.is_dir())


def _keep(folder: Path) -> None:
    """Copy a folder into the outbox, once: the original may be overwritten or removed.

    A run's checkpoint stays where it is, and may be resumed.
    """
    if folder.parent in (_outbox(), paths.home() / paths.CHECKPOINTS):
        return
    try:
        digest = event_log.digest(folder)[:16]
        if any(path.name.endswith(digest) for path in _waiting()):
            return
        part = _outbox() / "part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part)
        part.rename(_outbox() / f"{time.time_ns()}-{digest}")
    except OSError as error:
        print(f"{_outbox()} can't keep {folder}: {error.strerror or error}", file=sys.stderr)


def _remove(folder: Path) -> None:
    """Remove a folder that has been uploaded, if it waited in the outbox."""
    if folder.parent == _outbox():
        uploaded = _outbox() / "uploaded"
        shutil.rmtree(uploaded, ignore_errors=True)  # what a kill left
        shutil.rmtree(folder.rename(uploaded), ignore_errors=True)


@contextmanager
def _lock() -> Iterator[None]:
    """Keep other processes from uploading, or keeping, the same at the same time.

    Raises:
        UserError: the outbox can't be written.
    """
    try:
        _outbox().mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{_outbox()} can't be written: {error.strerror}") from error
    with locked(_outbox() / "lock"):
        yield
