"""Signals that ask a process to end: it does so by an exception, and so in good order."""

import ctypes
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import psutil

CHILDREN_SECONDS = 15.0  # for the processes that this one has started to close their runs
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that the death of the parent process shall send
_received: list[int] = []
_are_done: Callable[[], bool] | None = None


def on_signals() -> None:
    """Let SIGTERM and Ctrl-C raise SystemExit from now on, which closes a run as KILLED."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job
        signal.signal(signal.SIGINT, _terminate)


def pass_on_signals(are_done: Callable[[], bool]) -> None:
    """Have the processes that this one starts end what they do first, each in good order.

    Args:
        are_done: whether they have; asked again and again.
    """
    global _are_done
    _are_done = are_done


def end_with_parent() -> None:
    """Have Linux end this process when the one that started it dies, however that does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the shutdown
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # but for a user who will not wait
    _received.append(signal_number)
    children = psutil.Process().children() if _are_done else []
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGTERM)
    if _are_done and children:  # the jobs of a cluster are none, and go on
        latest = time.monotonic() + CHILDREN_SECONDS
        while not _are_done() and time.monotonic() < latest:
            time.sleep(0.1)
    sys.exit(128 + signal_number)


def end_if_interrupted() -> None:
    """Exit as the signal asked, where a library has swallowed what it raised."""
    if _received:
        sys.exit(128 + _received[0])


def is_interrupted() -> bool:
    """Whether a signal has asked this process to end; what it raises, libraries may replace."""
    return bool(_received)
