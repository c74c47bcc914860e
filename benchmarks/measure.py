"""The time and the memory that commands take."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STORE = "MLFLOW_TRACKING_URI"  # the environment variable; empty, it means the project's own
# As this process was given it, for what it starts: importing the project has since added settings
# of TensorFlow to `os.environ`, which the other sides of a comparison must not have.
GIVEN = os.fsdecode(Path("/proc/self/environ").read_bytes())
ENVIRONMENT = dict(line.split("=", 1) for line in GIVEN.split("\0") if "=" in line)


@dataclass(frozen=True)
class Measured:
    """One quantity, measured several times."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """The median and the spread, for a table."""
        return f"{self.median:.2f} ({min(self.values):.2f}-{max(self.values):.2f})"


def over(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The ratio of two medians."""
    return Measured(numerator).median / Measured(denominator).median


def run(
    *command: str | Path, cwd: Path | None = None, code: int = 0, store: str | None = None
) -> str:
    """Run a command that must end with this exit code, logging to this store; what it printed."""
    environment = ENVIRONMENT if store is None else {**ENVIRONMENT, STORE: store}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
        close_fds=False,  # when this process is killed, make's lock waits for the command to end
    )
    if done.returncode != code:
        raise SystemExit(f"error: {command} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def timed(
    *command: str | Path, cwd: Path | None = None, code: int = 0, store: str | None = None
) -> float:
    """Seconds that a whole command takes."""
    start = time.perf_counter()
    run(*command, cwd=cwd, code=code, store=store)
    return time.perf_counter() - start


def script(name: str, *options: str | Path, store: str | None = None) -> dict[str, Any]:
    """What a script beside this file measured."""
    printed = run(sys.executable, HERE / name, *options, store=store)
    measured: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return measured


def stage(name: str, *overrides: str) -> tuple[str, ...]:
    """The command of a stage."""
    return (sys.executable, "-m", "image_classification", name, *overrides)


@dataclass(frozen=True)
class Cost:
    """What a command took, with the processes that it waited for.

    seconds: wall time, which other work on the machine affects.
    processor: seconds of processor time.
    memory: MiB that the largest of its processes held at once.
    """

    seconds: float
    processor: float
    memory: float


# Linux counts the memory of the process that starts a command as the command's: this one is small.
STARTER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
command = ["setpriv", "--pdeathsig", "TERM", *sys.argv[2:]]  # ends with this process
process = subprocess.Popen(command, close_fds=False, stderr=subprocess.STDOUT)
_, status, usage = os.wait4(process.pid, 0)
measured = time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
with open(sys.argv[1], "w") as file:
    json.dump(measured, file)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def cost(*command: str, cwd: Path) -> Cost:
    """Run a command in a project that has its own sources and store, and measure it."""
    with tempfile.NamedTemporaryFile() as measured:
        starter = (sys.executable, "-S", "-c", STARTER, measured.name)
        environment = {**ENVIRONMENT, "PYTHONPATH": "src", STORE: ""}
        done = subprocess.run(
            [*starter, *command],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            close_fds=False,
        )
        if done.returncode:
            raise SystemExit(f"error: {command} failed\n{done.stdout}{done.stderr}")
        return Cost(*json.load(measured))


def peak_memory(*command: str, cwd: Path) -> float:
    """The most memory, in MiB, that a command held at once."""
    return cost(*command, cwd=cwd).memory
