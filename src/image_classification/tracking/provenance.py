"""Where a result comes from: commit, machine, data, and the key that equal runs share."""

import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from image_classification.core import paths, readers
from image_classification.core.backend import backend
from image_classification.core.config import Config, defining
from image_classification.core.errors import UserError
from image_classification.core.hardware import hardware

SOURCES = ["src", "conf", "params.yaml", "dvc.yaml", "requirements.lock"]
PACKAGES = ("tensorflow", "keras", "numpy")
TRAINING_KEY = "training.key"  # the tag that equal runs share
DATA_HASH = "dvc.data"  # the tag that holds DVC's hash of the split


def commit(ignore: str | None = None) -> dict[str, str]:
    """`git.commit`, and `git.dirty`: whether what defines a run differs from it.

    The outputs of stages do not count. Either is "unknown" outside a Git repository.

    Args:
        ignore: one of `SOURCES` whose changes do not count either.
    """
    sources = [source for source in SOURCES if source != ignore]
    changes = _git("status", "--porcelain", "--", *sources)
    dirty = changes if changes == "unknown" else str(bool(changes)).lower()
    return {"git.commit": _git("rev-parse", "HEAD"), "git.dirty": dirty}


def machine() -> str:
    """The processor, cores, memory, system and versions that a result may depend on, in a line."""
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in _packages())
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{hardware()}, {memory:.0f} GiB, {system}, {packages}"


def of_training(config: Config, data_hash: str) -> dict[str, str]:
    """Where a run comes from, as tags: commit, machine, backend, data, training key."""
    return {
        DATA_HASH: data_hash,
        **commit(),
        "machine": machine(),
        "backend": backend(),
        TRAINING_KEY: training_key(config, data_hash),
    }


def training_key(config: Config, data_hash: str) -> str:
    """A hash of all that defines a run: configuration, data, packages, and training code."""
    versions = [version(name) for name in _packages()]
    digest = hashlib.sha256()
    digest.update(json.dumps([defining(config), data_hash, versions]).encode())
    for path in training_code():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def training_code() -> list[Path]:
    """The training code: the files that dvc.yaml lists as dependencies of the stage `train`.

    Raises:
        UserError: dvc.yaml is missing or damaged.
    """
    hint = f"restore it: `git checkout {paths.PIPELINE}`"
    pipeline = readers.read_mapping(paths.PIPELINE, hint)
    try:
        listed = pipeline["stages"]["train"]["deps"]
        code = [Path(path) for path in listed if path.startswith(f"{paths.SOURCE}/")]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{paths.PIPELINE}: stages.train.deps must be paths: {hint}") from error
    return sorted(
        file for path in code for file in ([path] if path.is_file() else path.rglob("*.py"))
    )


def _packages() -> tuple[str, ...]:
    return (*PACKAGES, "jax") if backend() == "jax" else PACKAGES


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
