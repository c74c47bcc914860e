"""The progress of a sweep whose jobs run in other processes, perhaps on other machines.

Each job notes its state in a file of its own, in a folder that all of them see.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

STATES = ".states"  # within the folder of the sweep
LOOK_SECONDS = 1.0
RUNNING, ENDED = "running", "ended"


@contextmanager
def noted(folder: Path, name: str, number: int) -> Iterator[None]:
    """Note that a job runs, and then that it has ended, however it ends.

    Args:
        folder: of the sweep.
        name: of the job: its folder in that of the sweep.
        number: of the job.
    """
    states = folder / STATES
    states.mkdir(parents=True, exist_ok=True)

    def note(state: str) -> None:
        part = states / f"{number}.part"
        part.write_text(f"{state} {os.getpid()} {name}")
        part.rename(states / str(number))

    note(RUNNING)
    try:
        yield
    finally:
        note(ENDED)


def running(folder: Path) -> list[str]:
    """The names of the jobs of the sweep in a folder that run now."""
    return sorted(name for state, _, name in _states(folder) if state == RUNNING)


def processes(folder: Path) -> list[psutil.Process]:
    """The processes below this one that run jobs of the sweep in a folder."""
    numbers = {number for state, number, _ in _states(folder) if state == RUNNING}
    below = psutil.Process().children(recursive=True)
    return [process for process in below if process.pid in numbers]


def progress(folder: Path, jobs: int) -> str:
    """A progress line: how many jobs have ended, which are running; empty before the first."""
    states = _states(folder)
    if not states:
        return ""
    ended = sum(state == ENDED for state, _, _ in states)
    names = ", ".join(running(folder))
    return f"sweep: {ended} of {jobs} ended" + (f", running: {names}" if names else "")


def show_progress(folder: Path, jobs: int) -> Callable[[], None]:
    """Print the progress line whenever it changes; return a function that stops this.

    Args:
        folder: of the sweep; earlier states in it are removed.
        jobs: how many there are.
    """
    shutil.rmtree(folder / STATES, ignore_errors=True)
    stopped = threading.Event()

    def watch() -> None:
        shown, is_last = "", False
        while not is_last:
            is_last = stopped.wait(LOOK_SECONDS)
            line = progress(folder, jobs)
            if line != shown:
                shown = line
                print(line, flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()

    def stop() -> None:
        stopped.set()
        thread.join()
        shutil.rmtree(folder / STATES, ignore_errors=True)

    return stop


def _states(folder: Path) -> list[tuple[str, int, str]]:
    """The state, the number of the process, and the name of each job that has begun."""
    noted_in = [path for path in (folder / STATES).glob("*") if path.name.isdigit()]
    found = [path.read_text().split(" ", 2) for path in noted_in]
    return [(state, int(number), name) for state, number, name in found]
