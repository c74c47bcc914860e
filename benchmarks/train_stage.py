"""A train stage of one epoch, with a clock on each of its parts.

Prints one line of JSON: the seconds of each part, by name.
"""

import contextlib
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
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
    gc.set_threshold(100_000)  # as command.entry_point does
    with clock("import Hydra"):
        from image_classification import config, dataset, train
    with clock("configuration"):
        knobs = config.compose(
            f"model={sys.argv[1]}", "recipe.epochs=1", f"output_dir={sys.argv[2]}"
        )
    with clock("import MLflow"):
        from image_classification import runs, tracking  # noqa: F401  # measured, not used
    with clock("import TensorFlow"):
        from image_classification import models  # which imports Keras, and that TensorFlow

    parts: list[tuple[Any, str, str]] = [
        (dataset, "split_of_training", "data"),
        (dataset, "dvc_hash", "data"),
        (models, "build", "build the model"),
        (train, "fit", "fit"),
        (train, "_write", "write the files"),
        (runs.LiveRun, "__init__", "open the run"),
        (runs.LiveRun, "complete", "tell MLflow the rest: files and model"),
    ]
    with contextlib.ExitStack() as patches:
        for module, name, part in parts:
            timed = clocked(part, getattr(module, name))
            patches.enter_context(mock.patch.object(module, name, timed))
        train.train(knobs)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
