"""What every command does: compose the configuration, run, and exit cleanly, also on a signal."""

import atexit
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import hydra
from omegaconf import DictConfig

from image_classification.core import paths, readers
from image_classification.core.compose import SETTINGS_HINT, require_small_files, typed, with_params
from image_classification.core.config import Config
from image_classification.core.errors import explain, rejected

PR_SET_PDEATHSIG = 1  # prctl(2): the signal that the death of the parent process shall send
_signals: list[int] = []  # that asked this process to end


def run_command(stage: str, task: Callable[[Config], int | None]) -> NoReturn:
    """Compose and check the configuration, run the task with it, and exit.

    The exit code is what the task returns; of the jobs of a sweep, the highest. An error that the
    user can fix is one line on stderr and exit code 1.

    Args:
        stage: the name that Hydra gives the job.
        task: what to run.
    """
    codes, started = [0], False

    def job(composed: DictConfig) -> None:
        nonlocal started
        started = True
        with one_line_errors():  # within Hydra, which would add a line of its own
            codes.append(task(typed(composed)) or 0)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes exceptions on instead of printing them
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job
        signal.signal(signal.SIGINT, _terminate)
    _end_with_dvc()
    gc.set_threshold(100_000)  # at 700 the collector takes a fifth of TensorFlow's import
    atexit.register(gc.freeze)  # and goes through everything once more when Python ends
    with one_line_errors():
        os.chdir(paths.project_root())
        require_small_files()
        params = readers.read_mapping(paths.PARAMS, SETTINGS_HINT)
        sys.argv[1:] = with_params(sys.argv[1:], {"hydra": {"job": {"name": stage}}, **params})
        conf = str(paths.CONF.resolve())
        try:
            hydra.main(version_base="1.3", config_path=conf, config_name="config")(job)()
        except Exception as error:
            if started or explain(error) is not None:
                raise
            raise rejected(sys.argv[1:], error) from error
    sys.exit(max(codes))


def _end_with_dvc() -> None:
    """Have Linux end this process when DVC dies, since nobody would take its outputs."""
    if paths.is_dvc_stage() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    """Exit by an exception, which closes the run as KILLED."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the shutdown
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # but for a user who will not wait
    _signals.append(signal_number)
    sys.exit(128 + signal_number)


def end_if_interrupted() -> None:
    """Exit as the signal asked, where a library has swallowed what it raised."""
    if _signals:
        sys.exit(128 + _signals[0])


def is_interrupted() -> bool:
    """Whether a signal has asked this process to end; what it raises, libraries may replace."""
    return bool(_signals)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error that the user can fix into one line on stderr and exit code 1."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        end_if_interrupted()
        line = explain(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
