"""What every command does: compose the configuration, run, and exit cleanly, also on a signal."""

import atexit
import gc
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from image_classification.core import paths, readers, settings_help, workers
from image_classification.core.compose import (
    SETTINGS_HINT,
    compose,
    require_small_files,
    typed,
    with_params,
)
from image_classification.core.config import Config
from image_classification.core.errors import UserError, explain, rejected
from image_classification.core.files import remove_empty
from image_classification.core.signals import end_if_interrupted, end_with_parent, on_signals
from image_classification.core.tensorflow_memory import forget_graphs


def run_command(stage: str, task: Callable[[Config], int | None]) -> NoReturn:
    """Compose and check the configuration, run the task with it, and exit.

    The exit code is what the task returns; of the jobs of a sweep, the highest. An error that the
    user can fix is one line on stderr and exit code 1. In a sweep it ends only its own job, and
    is kept in the job's folder.

    Args:
        stage: the name that Hydra gives the job.
        task: what to run.
    """
    codes, started = [0], False

    def job(composed: DictConfig) -> None:
        nonlocal started
        started = True
        folder = Path(HydraConfig.get().runtime.output_dir)
        is_swept = HydraConfig.get().mode is RunMode.MULTIRUN
        with workers.job(command_process):
            try:
                # Within Hydra, which would add a line of its own.
                with kept_errors(folder) if is_swept else one_line_errors():
                    codes.append(task(typed(composed)) or 0)
            finally:  # Hydra has made a folder for every job, whatever comes of it
                remove_empty(folder)
                if is_swept:
                    forget_graphs()

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes exceptions on instead of printing them
    # conf/hydra/launcher/ray.yaml adds to the plugin's; Hydra 1.4 will have it replace that.
    warnings.filterwarnings("ignore", "\n'hydra/launcher/ray' is validated against")
    on_signals()
    if paths.is_dvc_stage():  # nobody would take its outputs
        end_with_parent()
    flags, _ = get_args_parser().parse_known_intermixed_args()
    if any((flags.help, flags.hydra_help, flags.cfg, flags.info, flags.shell_completion)):
        # A command that only prints ends with its reader (`| head`). A run must survive a closed
        # connection, which sends the same signal.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    gc.set_threshold(100_000)  # at 700 the collector takes a fifth of TensorFlow's import
    atexit.register(gc.freeze)  # and would traverse everything once more when Python exits
    with one_line_errors():
        os.chdir(paths.project_root())
        command_process = workers.CommandProcess.here()
        require_small_files(Path.cwd())
        if flags.help:
            print(settings_help.page(stage, compose(*flags.overrides)))
            sys.exit()
        params = readers.read_mapping(paths.PARAMS, SETTINGS_HINT)
        sys.argv[1:] = command_line(sys.argv[1:], {"hydra": {"job": {"name": stage}}, **params})
        conf = str(paths.CONF.resolve())
        try:
            hydra.main(version_base="1.3", config_path=conf, config_name="config")(job)()
        except Exception as error:
            if started or explain(error) is not None:
                raise
            if workers.is_lost(error):
                raise UserError(
                    "a process of the sweep was killed, perhaps for lack of memory: repeat the "
                    "command, which resumes the sweep"
                ) from error
            raise rejected(sys.argv[1:], error) from error
        except SystemExit:
            end_if_interrupted()  # Ray would exit with 1
            raise
    sys.exit(max(codes))


def is_setting(word: str) -> bool:
    """Whether an argument is SETTING=VALUE, and not an option such as --hours=6."""
    return "=" in word and not word.startswith("-")


def command_line(arguments: list[str], params: Mapping[str, Any]) -> list[str]:
    """Hydra's arguments: all settings together, params.yaml's first, then Hydra's flags.

    Args:
        arguments: Hydra's flags and overrides, in any order.
        params: see `with_params`.
    """
    parsed, _ = get_args_parser().parse_known_intermixed_args(arguments)
    if parsed.hydra_help or parsed.shell_completion:  # these know no settings
        return arguments
    flags = list(arguments)
    for override in parsed.overrides:
        flags.remove(override)
    # Only a job that runs has an output folder of its own.
    shown = ["output_dir=${hydra:run.dir}"] if parsed.resolve else []
    return [*with_params([*shown, *parsed.overrides], params), *flags]


@contextmanager
def kept_errors(folder: Path) -> Iterator[None]:
    """Print an error and keep it in the folder of a job of a sweep; other jobs continue."""
    (folder / paths.ERROR_FILE).unlink(missing_ok=True)  # of an earlier attempt
    try:
        yield
    except Exception as error:
        end_if_interrupted()
        line = explain(error)
        if line is None:  # a bug of this project
            traceback.print_exc()
            line = f"{type(error).__name__}: {error}"
        print(f"error: {line}", file=sys.stderr)
        (folder / paths.ERROR_FILE).write_text(f"{line}\n")


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
