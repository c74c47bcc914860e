"""A train stage of one epoch, with a clock on each of its parts.

Prints one line of JSON: the seconds of each part, by name. What several libraries import counts
towards the first of them.
"""

import contextlib
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any
from unittest import mock

seconds: dict[str, float] = {}


@contextlib.contextmanager
def clock(part: str) -> Iterator[None]:
    """Add what the block takes to a part."""
    start = time.perf_counter()
    yield
    seconds[part] = seconds.get(part, 0) + time.perf_counter() - start


def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its seconds added to a part."""

    def timed(*arguments: Any, **options: Any) -> Any:
        with clock(part):
            return function(*arguments, **options)

    return timed


def main() -> None:
    """Train the model named on the command line, for an epoch, in a folder named there too."""
    gc.set_threshold(100_000)  # as core.command.run_command does
    # In the order in which the command imports them.
    with clock("import Hydra"):
        compose = import_module("image_classification.core.compose").compose
    with clock("configuration"):
        config = compose(f"model={sys.argv[1]}", "recipe.epochs=1", f"output_dir={sys.argv[2]}")
    with clock("import TensorFlow"):
        import_module("keras")
    with clock("import MLflow"):
        live_run = import_module("image_classification.tracking.live_run")
    with clock("import the rest of the stage"):
        train = import_module("image_classification.train")

    parts: list[tuple[Any, str, str]] = [
        (train, "split_for_run", "data"),
        (train, "dvc_hash", "data"),
        (train.build, "build", "build the model"),
        (train, "fit", "fit"),
        (train, "_write", "write the files"),
        (live_run.LiveRun, "__init__", "open the run"),
        (live_run.LiveRun, "complete", "log the rest to MLflow: files and model"),
    ]
    with contextlib.ExitStack() as patches:
        for module, name, part in parts:
            timed = clocked(part, getattr(module, name))
            patches.enter_context(mock.patch.object(module, name, timed))
        train.train(config)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
