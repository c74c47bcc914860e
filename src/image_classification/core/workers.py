"""Jobs of a sweep in other processes than its command, as Hydra's launchers start them."""

import itertools
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import TextIOBase
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, read_write

from image_classification.core.errors import UserError
from image_classification.core.job_states import STATES, noted
from image_classification.core.signals import (
    end_if_interrupted,
    end_with_parent,
    is_interrupted,
    on_signals,
)

# What joblib, submitit and Ray raise where a worker ended before its job did.
LOST = (
    *("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError", "FailedJobError"),
    *("WorkerCrashedError", "OutOfMemoryError", "NodeDiedError", "LocalRayletDiedError"),
)
# Ray's: it tells also lines that look alike, in no colour, and reports its use to nobody; and its
# workers have the priority of the command, where they would come after all else on the machine.
RAY = {
    **{"RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0", "RAY_USAGE_STATS_ENABLED": "0"},
    "RAY_worker_niceness": "0",
}
INSTALL_RAY = "uv pip install -c requirements.lock -r pyproject.toml --extra ray"
PASSED_ON = ("MLFLOW_", "KERAS_")  # beginnings of the variables that a job on Ray needs as well
DEVICES = Path("/dev")
_place: FileLock | None = None  # held until this process ends


@dataclass(frozen=True)
class Origin:
    """The process of the command; it travels with the jobs."""

    root: Path
    program: str
    process: tuple[str, int]  # host and number

    @classmethod
    def here(cls) -> "Origin":
        """This process, whose working folder is the project's root."""
        return cls(Path.cwd(), sys.argv[0], _process())


@contextmanager
def job(origin: Origin, folder: Path) -> Iterator[None]:
    """What a job of a sweep needs where it runs in another process than the command.

    Its lines come behind the name of its folder. After a signal no other job begins.
    """
    if _process() == origin.process:
        yield
        return
    end_if_interrupted()
    on_signals()
    end_with_parent()
    os.chdir(origin.root)
    if HydraConfig.get().runtime.choices["hydra/launcher"] == "joblib":
        take_gpu(folder.parent / STATES)
    sys.argv[:1] = [origin.program]  # MLflow's pages show it
    out, err = Named(folder.name, sys.stdout), Named(folder.name, sys.stderr)
    number, parent = HydraConfig.get().job.num, os.getppid()
    try:
        with noted(folder, number), redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        if is_interrupted() and os.getppid() != parent:  # joblib would wait for more jobs
            os._exit(1)


def prepare_ray(config: DictConfig) -> dict[str, str]:
    """Get ready for Ray, whose workers have neither the working folder nor the variables from here.

    Args:
        config: of the sweep; its folder becomes an absolute one for all jobs.

    Returns:
        The variables that a job has to set.

    Raises:
        UserError: the plugin is not installed.
    """
    try:
        version("hydra-ray-launcher")
    except PackageNotFoundError:
        raise UserError(f"hydra/launcher=ray: needs the extra ray: {INSTALL_RAY}") from None
    for name, value in RAY.items():
        os.environ.setdefault(name, value)
    folder = str(Path(config.hydra.sweep.dir).resolve()).replace("'", r"\'")
    with read_write(config.hydra.overrides):
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{folder}'")
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def take_gpu(folder: Path) -> None:
    """Where this process sees several GPUs, see one alone from now on, until it ends.

    Processes of one sweep share a GPU only where there are more of them than GPUs.

    Args:
        folder: of the sweep, for the locks by which its processes keep apart.
    """
    global _place
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(number) for number, _ in enumerate(DEVICES.glob("nvidia[0-9]*"))]
    gpus = gpus if named is None else named.split(",")
    if len(gpus) < 2:  # as after the first job of this process
        return
    for number in itertools.count():
        with suppress(Timeout):  # another process has this place
            _place = FileLock(folder / f"place-{number}")
            _place.acquire(blocking=False)
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
            return


class Named(TextIOBase):
    """A stream each of whose lines begins with a name, and is written at once."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name, self._stream, self._begun = name, stream, ""

    def write(self, text: str) -> int:
        """Write the lines that are complete."""
        *lines, self._begun = (self._begun + text).split("\n")
        self._stream.write("".join(f"{self._name}: {line}\n" for line in lines))
        self._stream.flush()
        return len(text)


def is_lost(error: BaseException) -> bool:
    """Whether a launcher says by this error that a process ended before its job did."""
    return any(kind.__name__ in LOST for kind in type(error).__mro__)


def _process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()
