"""A training's state after its last epoch, on disk, so that a killed training goes on from there.

A training's folder holds `epoch-N/`, renamed into place as a whole, and the records of its run.
It lies outside of DVC's outputs, which DVC removes before a stage runs again.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification.errors import UserError
from image_classification.files import to_disk


@dataclass(frozen=True)
class State:
    """A training after some epochs.

    rows: of recipes.EpochRecord, one for each of them.
    variables: weights, moving averages and seeds of the model, then those of the optimizer.
    """

    rows: list[dict[str, float]]
    variables: list[NDArray[Any]]


@contextmanager
def claimed(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a training's folder, made when it is not there, against all other processes.

    Raises:
        UserError: a process that lives holds it, and is not to be waited for.
    """
    lock = _locked(folder)
    if lock is None:
        said = f"process {_holder(folder)} does this very training"
        if not wait:
            raise UserError(f"{said}: wait until it ends")
        print(f"{said}: waiting for it to end", flush=True)
    while lock is None:
        time.sleep(1)
        lock = _locked(folder)
    try:
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        yield
    finally:
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """The folder's lock, None while another holds it; the system frees it when a process dies."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:  # `discard` by another process came between
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), (folder / "lock").stat()):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass
        os.close(lock)


def _holder(folder: Path) -> str:
    with suppress(OSError):
        return (folder / "lock").read_text()
    return "unknown"


def save(folder: Path, state: State, stamp: Mapping[str, str]) -> None:
    """Keep a state in place of the one before it; a kill at any moment leaves one of the two.

    Args:
        folder: of the training, claimed.
        state: what to keep.
        stamp: what must be the same when it is loaded.

    Raises:
        UserError: the disk is full, or can't be written; the state before is still there.
    """
    part = folder / "part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        np.savez(part / "variables.npz", *state.variables)
        sha256 = hashlib.sha256((part / "variables.npz").read_bytes()).hexdigest()
        types = [value.dtype.name for value in state.variables]
        described = {"stamp": dict(stamp), "sha256": sha256, "rows": state.rows, "types": types}
        (part / "state.json").write_text(json.dumps(described))
        for path in (part / "variables.npz", part / "state.json", part):
            to_disk(path)
        before = list(folder.glob("epoch-*"))
        part.rename(folder / f"epoch-{len(state.rows)}")
        to_disk(folder)
    except OSError as error:
        raise UserError(
            f"{folder} can't be written: {error.strerror or error}: when it can be, the same "
            "command goes on after the epochs that are done"
        ) from error
    for path in before:
        shutil.rmtree(path)


def has_state(folder: Path) -> bool:
    """Whether there is anything to go on from."""
    return any(folder.glob("epoch-*"))


def load(folder: Path, stamp: Mapping[str, str]) -> State | None:
    """The last state that was kept; one that is torn or another training's is set aside.

    Args:
        folder: of the training, claimed.
        stamp: what `save` was given.
    """
    kept = [path for path in folder.glob("epoch-*") if path.name[6:].isdigit()]
    for path in sorted(kept, key=lambda path: -int(path.name[6:])):
        try:
            return _read(path, stamp)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            aside = path.rename(folder / f"set-aside-{path.name}-{time.time_ns()}")
            print(f"{path} is not used: {error}; it is now {aside}", file=sys.stderr)
    return None


def _read(path: Path, stamp: Mapping[str, str]) -> State:
    described = json.loads((path / "state.json").read_text())
    if described["stamp"] != stamp:
        raise ValueError(f"it was made by {described['stamp']}, not {dict(stamp)}")
    contents = (path / "variables.npz").read_bytes()
    if hashlib.sha256(contents).hexdigest() != described["sha256"]:
        raise ValueError("its SHA-256 is not the one that was written")
    with np.load(path / "variables.npz", allow_pickle=False) as arrays:
        variables = [
            _typed(arrays[f"arr_{index}"], name) for index, name in enumerate(described["types"])
        ]
    return State(described["rows"], variables)


def _typed(value: NDArray[Any], name: str) -> NDArray[Any]:
    """NumPy keeps the bytes of a type that is not its own, such as bfloat16, and forgets which."""
    if value.dtype.kind == "V":
        import ml_dtypes

        return value.view(getattr(ml_dtypes, name))
    return value


def finish(folder: Path) -> None:
    """Leave the folder, which is claimed and has its results, to `discard_finished`."""
    (folder / "finished").touch()


def is_finished(folder: Path) -> bool:
    """Whether the training has its results."""
    return (folder / "finished").exists()


def discard_finished(root: Path, apart_from: str = "") -> None:
    """Remove the folders of trainings that are finished, apart from the one of this name.

    When DVC starts another stage it has taken up what the trainings before have made.
    """
    for marker in root.glob("*/finished"):
        if marker.parent.name != apart_from and not _is_discarded(marker.parent):
            with suppress(UserError, OSError), claimed(marker.parent):
                discard(marker.parent)
    for left in filter(_is_discarded, root.glob("*")):
        shutil.rmtree(left, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a training's folder, which is claimed and no longer needed."""
    # Out of the way first: another process may claim a new one of this name at once.
    away = folder.rename(folder.with_name(f"{folder.name}.done-{os.getpid()}-{time.time_ns()}"))
    shutil.rmtree(away, ignore_errors=True)


def _is_discarded(folder: Path) -> bool:
    return ".done-" in folder.name
