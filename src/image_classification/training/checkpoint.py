"""Checkpoints: the state after the last epoch, on disk, from which a killed run resumes.

The stage `train` saves one after each epoch (`save_and_log`).
"""

import hashlib
import json
import shutil
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from image_classification.core.errors import UserError
from image_classification.core.files import sha256, sync_to_disk


@dataclass(frozen=True)
class State:
    """A run after some epochs.

    rows: of fit.EpochReporter, one an epoch.
    variables: weights, moving averages and seeds of the model, then those of the optimizer, then
        the seeds of the augmentation.
    """

    rows: list[dict[str, float]]
    variables: list[NDArray[Any]]


def save(folder: Path, state: State, stamp: Mapping[str, str]) -> None:
    """Save a state in place of the one before; a kill at any moment leaves one of the two.

    Args:
        folder: of the run, locked.
        state: what to save, as `epoch-N/`.
        stamp: what must be the same when it is loaded.

    Raises:
        UserError: the disk is full, or can't be written; the state before is still there.
    """
    part = folder / "part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        np.savez(part / "variables.npz", *state.variables)
        described = {
            "stamp": dict(stamp),
            "variables": sha256(part / "variables.npz"),
            "rows": state.rows,
            "types": [value.dtype.name for value in state.variables],
        }
        content = {**described, "sha256": _hash_of(described)}
        (part / "state.json").write_text(json.dumps(content))
        for path in (part / "variables.npz", part / "state.json", part):
            sync_to_disk(path)
        before = list(folder.glob("epoch-*"))
        part.rename(folder / f"epoch-{len(state.rows)}")
        sync_to_disk(folder)
    except OSError as error:
        raise UserError(
            f"{folder} can't be written: {error.strerror or error}: fix that, and the same "
            "command resumes after the epochs that are done"
        ) from error
    for path in before:
        shutil.rmtree(path)


def has_state(folder: Path) -> bool:
    """Whether there is a state to resume from."""
    return any(folder.glob("epoch-*"))


def load(folder: Path, stamp: Mapping[str, str]) -> State | None:
    """The last state that was saved; one that is damaged or another run's is quarantined.

    Args:
        folder: of the run, locked.
        stamp: what `save` was given.
    """
    saved = [path for path in folder.glob("epoch-*") if path.name[6:].isdigit()]
    for path in sorted(saved, key=lambda path: -int(path.name[6:])):
        try:
            return _read(path, stamp)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            moved = path.rename(folder / f"quarantined-{path.name}-{time.time_ns()}")
            print(f"{path} is not used: {error}; it is now {moved}", file=sys.stderr)
    return None


def _read(path: Path, stamp: Mapping[str, str]) -> State:
    described = json.loads((path / "state.json").read_text())
    expected = described.pop("sha256")
    if described["stamp"] != stamp:
        raise ValueError(f"it was made by {described['stamp']}, not {dict(stamp)}")
    if _hash_of(described) != expected or sha256(path / "variables.npz") != described["variables"]:
        raise ValueError("its SHA-256 is not the one that was written")
    with np.load(path / "variables.npz", allow_pickle=False) as arrays:
        variables = [
            _typed(arrays[f"arr_{index}"], name) for index, name in enumerate(described["types"])
        ]
    return State(described["rows"], variables)


def _hash_of(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _typed(value: NDArray[Any], name: str) -> NDArray[Any]:
    """NumPy saves the bytes of foreign types, such as bfloat16, but not their names."""
    if value.dtype.kind == "V":
        return value.view(getattr(ml_dtypes, name))
    return value
