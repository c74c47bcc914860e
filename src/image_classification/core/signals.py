"""Termination signals: they raise an exception, so that a process shuts down cleanly."""

import ctypes
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import psutil

JOBS_SECONDS = 15.0  # for jobs to close their runs
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that the death of the parent process shall send
_received: list[int] = []
_jobs: Callable[[], list[psutil.Process]] = list
_are_done: Callable[[], bool] = bool


def on_signals() -> None:
    """Let SIGTERM and Ctrl-C raise SystemExit from now on, which closes a run as KILLED."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job
        signal.signal(signal.SIGINT, _terminate)


def pass_on_signals(jobs: Callable[[], list[psutil.Process]], are_done: Callable[[], bool]) -> None:
    """Pass signals on to the processes of jobs, and let them shut down cleanly first.

    Args:
        jobs: returns the processes.
        are_done: whether they have shut down; polled.
    """
    global _jobs, _are_done
    _jobs, _are_done = jobs, are_done


def end_with_parent() -> None:
    """End this process when its parent dies, however that happens (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the shutdown
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # so that Ctrl-C still ends it at once
    _received.append(signal_number)
    told = _jobs()
    for process in told:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    if told:  # else they run on a cluster, and continue
        latest = time.monotonic() + JOBS_SECONDS
        while not _are_done() and time.monotonic() < latest:
            time.sleep(0.1)
    sys.exit(128 + signal_number)


def end_if_interrupted() -> None:
    """Exit as the signal asked, where a library has swallowed the exception."""
    if _received:
        sys.exit(128 + _received[0])


def is_interrupted() -> bool:
    """Whether a signal has asked this process to end; libraries may replace the exception."""
    return bool(_received)
