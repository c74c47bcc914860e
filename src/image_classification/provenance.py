"""Where a result comes from: the commit, the machine, and all that defines a training."""

import hashlib
import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from image_classification.config import Config, defining

SOURCES = ["src", "conf", "params.yaml", "dvc.yaml", "requirements.lock"]
TRAINING_CODE = ("train.py", "models.py", "recipes.py", "dataset.py")  # as in dvc.yaml
PACKAGES = ("tensorflow", "keras", "numpy")
TRAINING_KEY = "training.key"  # the tag that equal trainings share


def commit(apart_from: str | None = None) -> dict[str, str]:
    """`git.commit`, and `git.dirty`: whether what defines a training differs from it.

    What stages write does not count. Either is "unknown" outside a Git repository.

    Args:
        apart_from: one of `SOURCES` whose changes do not count either.
    """
    sources = [source for source in SOURCES if source != apart_from]
    changes = _git("status", "--porcelain", "--", *sources)
    dirty = changes if changes == "unknown" else str(bool(changes)).lower()
    return {"git.commit": _git("rev-parse", "HEAD"), "git.dirty": dirty}


def machine() -> str:
    """The processor, cores, memory, system and versions that a result may depend on, in a line."""
    information = Path("/proc/cpuinfo")
    found = re.search(
        r"model name\s*: (.*)", information.read_text() if information.exists() else ""
    )
    processor = found[1] if found else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{processor}, {cores} cores, {memory:.0f} GiB, {system}, {packages}"


def training_key(config: Config, data_hash: str) -> str:
    """A hash of all that defines a training: configuration, data, packages, code that trains."""
    versions = [version(name) for name in PACKAGES]
    digest = hashlib.sha256()
    digest.update(json.dumps([defining(config), data_hash, versions], sort_keys=True).encode())
    for name in TRAINING_CODE:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
