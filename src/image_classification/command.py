"""What every command does: compose the configuration, run, and end well however it ends.

Each stage's `main` is an `entry_point`: it composes conf/, params.yaml and the command line with
Hydra, checks the result, and turns what a user can get wrong into one line on stderr.
"""

import atexit
import ctypes
import functools
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import hydra
from omegaconf import DictConfig

from image_classification import paths, readers
from image_classification.config import MEND, Config, typed, with_params
from image_classification.errors import explain, refused

PR_SET_PDEATHSIG = 1  # prctl(2): the signal that the death of the parent process shall send
_signals: list[int] = []  # that have asked this process to end


def entry_point(task: Callable[[Config], int | None]) -> Callable[[], None]:
    """Make a stage's `main` a command: compose, check, run; or one line and exit code 1.

    What `main` returns is the exit code; of the jobs of a sweep, the highest.
    """
    codes, started = [0], False

    def job(composed: DictConfig) -> None:
        nonlocal started
        started = True
        with one_line_errors():  # within Hydra, which would add a line of its own
            codes.append(task(typed(composed)) or 0)

    @functools.wraps(task)
    def main() -> None:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands exceptions on instead of printing them
        signal.signal(signal.SIGTERM, _terminate)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a job in the background
            signal.signal(signal.SIGINT, _terminate)
        _end_with_dvc()
        gc.set_threshold(100_000)  # at 700 the collector takes a fifth of TensorFlow's import
        atexit.register(gc.freeze)  # and goes through everything once more when Python ends
        with one_line_errors():
            os.chdir(paths.project_root())
            params = readers.read_mapping(paths.PARAMS, MEND)
            stage = Path(task.__code__.co_filename).stem
            sys.argv[1:] = with_params(sys.argv[1:], {"hydra": {"job": {"name": stage}}, **params})
            conf = str(paths.CONF.resolve())
            try:
                hydra.main(version_base="1.3", config_path=conf, config_name="config")(job)()
            except Exception as error:
                if started or explain(error) is not None:
                    raise
                raise refused(sys.argv[1:], error) from error
        sys.exit(max(codes))

    return main


def _end_with_dvc() -> None:
    """Have Linux end this process when DVC dies, which could not take up what it would make."""
    if "DVC_STAGE" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    """Unwind, so that the run is closed as KILLED."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut short what follows
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # but for somebody who will not wait
    _signals.append(signal_number)
    sys.exit(128 + signal_number)


def end_if_interrupted() -> None:
    """End as the signal asked, where a library has swallowed what it raised."""
    if _signals:
        sys.exit(128 + _signals[0])


def is_interrupted() -> bool:
    """Whether a signal has asked this process to end; what it raises, libraries may replace."""
    return bool(_signals)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a user can mend into one line on stderr and exit code 1."""
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
