"""Jobs of a sweep in other processes than its command, as Hydra's launchers start them."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import TextIOBase
from pathlib import Path
from typing import TextIO

from hydra.core.hydra_config import HydraConfig

from image_classification.core import gpus
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


@dataclass(frozen=True)
class CommandProcess:
    """The process of the command; it is sent along with the jobs."""

    root: Path
    program: str
    process: tuple[str, int]  # host and process id

    @classmethod
    def here(cls) -> "CommandProcess":
        """This process, whose working folder is the project's root."""
        return cls(Path.cwd(), sys.argv[0], _process())


@contextmanager
def job(command_process: CommandProcess) -> Iterator[None]:
    """What a job of a sweep needs where it runs in a process other than the command's.

    Its lines are prefixed with the name of its folder. After a signal no other job begins.
    """
    if _process() == command_process.process:
        yield
        return
    end_if_interrupted()
    on_signals()
    end_with_parent()
    os.chdir(command_process.root)
    hydra, parent = HydraConfig.get(), os.getppid()
    folder, name = Path(hydra.sweep.dir), str(hydra.sweep.subdir)
    if hydra.runtime.choices["hydra/launcher"] == "joblib":
        gpus.take_gpu(folder / STATES)
    sys.argv[:1] = [command_process.program]  # MLflow's pages show it
    out, err = PrefixedStream(name, sys.stdout), PrefixedStream(name, sys.stderr)
    try:
        with noted(folder, name, hydra.job.num), redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        if is_interrupted() and os.getppid() != parent:  # joblib would wait for more jobs
            os._exit(1)


class PrefixedStream(TextIOBase):
    """A stream that prefixes each line with a name and flushes it."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name, self._stream, self._begun = name, stream, ""

    def write(self, text: str) -> int:
        """Write the lines that are complete."""
        *lines, self._begun = (self._begun + text).split("\n")
        self._stream.write("".join(f"{self._name}: {line}\n" for line in lines))
        self._stream.flush()
        return len(text)


def is_lost(error: BaseException) -> bool:
    """Whether this is a launcher's error for a worker that ended before its job did."""
    return any(kind.__name__ in LOST for kind in type(error).__mro__)


def _process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()
