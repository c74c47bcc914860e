"""The progress of a sweep whose jobs run in other processes, perhaps on other machines.

Each job notes its state in a file of its own, in a folder that all of them see.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
        part.write_text(f"{state} {name}")
        part.rename(states / str(number))

    note(RUNNING)
    try:
        yield
    finally:
        note(ENDED)


def running(folder: Path) -> list[str]:
    """The names of the jobs of the sweep in a folder that run now."""
    return sorted(name for state, name in _states(folder) if state == RUNNING)


def progress(folder: Path, jobs: int) -> str:
    """A progress line: how many jobs have ended, which are running; empty before the first."""
    states = _states(folder)
    if not states:
        return ""
    ended = sum(state == ENDED for state, _ in states)
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


def _states(folder: Path) -> list[tuple[str, str]]:
    noted_in = [path for path in (folder / STATES).glob("*") if path.name.isdigit()]
    found = [path.read_text().partition(" ") for path in noted_in]
    return [(state, name) for state, _, name in found]
