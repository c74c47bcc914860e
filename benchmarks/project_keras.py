"""A run of the project's own `fit`, with or without MLflow, on the project's split.

Prints one line of JSON: seconds of each epoch, of the whole fit, and of saving and logging the
epochs within it; processor seconds of the fit, all threads together; training losses, test
accuracy, precision.
"""

import argparse
import contextlib
import json
import resource
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from image_classification.core import paths  # first: it sets what TensorFlow reads

# isort: split
import keras

from image_classification.core.compose import compose
from image_classification.data.arrays import Examples, load_split
from image_classification.models.build import build
from image_classification.models.prediction import predict
from image_classification.tracking import live_run
from image_classification.training import checkpoint
from image_classification.training.fit import fit
from image_classification.training.precision import usable_precision


def processor_seconds() -> float:
    """What this process has taken of the processor so far, all threads together."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Train one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument(
        "--examples", type=int, help="train on so many and do not validate, as in the plain loop"
    )
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--precision", help="instead of the recipe's")
    parser.add_argument("--recipe", default="notebook")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracked", action="store_true", help="log it to MLflow")
    options = parser.parse_args()
    overrides = [f"model={options.model}", f"recipe={options.recipe}", f"seed={options.seed}"]
    if options.epochs:
        overrides.append(f"recipe.epochs={options.epochs}")
    if options.precision:
        overrides.append(f"recipe.precision={options.precision}")
    config = compose(*overrides)
    split = load_split(paths.SPLIT)
    train, validation = split.train, split.validation
    if options.examples:
        train = Examples(*(array[: options.examples] for array in train))
        validation = Examples(*(array[:1] for array in validation))

    keras.utils.set_random_seed(options.seed)
    model = build(config.model, config.data.image_shape or (), len(config.data.classes or ()))
    precision = usable_precision(config.recipe.precision)
    scratch = Path(tempfile.mkdtemp())
    run = None
    if options.tracked:
        fields = live_run.opening(config.data.name, options.model, {})
        run = live_run.LiveRun(scratch, scratch, fields)
    reporting = 0.0

    def save(state: checkpoint.State) -> None:
        nonlocal reporting
        if run:
            before = time.perf_counter()
            checkpoint.save(scratch, state, {})
            run.log_epochs(state.rows)
            reporting += time.perf_counter() - before

    with run.system_metrics() if run else contextlib.nullcontext():
        start, start_of_processor = time.perf_counter(), processor_seconds()
        rows = fit(
            model,
            replace(config.recipe, precision=precision),
            options.seed,
            jit_compile=config.model.jit_compile,
            train=train,
            validation=validation,
            state=None,
            save=save,
        )
        seconds = time.perf_counter() - start
        processor = processor_seconds() - start_of_processor
    if run:
        run.end("FINISHED")
    shutil.rmtree(scratch)
    hits = predict(model, split.test.images).argmax(axis=1) == split.test.labels
    print(
        json.dumps(
            {
                "seconds": [row["epoch_seconds"] for row in rows],
                "loss": [row["loss"] for row in rows],
                "fit": seconds,
                "processor": processor,
                "report": reporting,
                "test_accuracy": float(hits.mean()),
                "precision": precision,
            }
        )
    )


if __name__ == "__main__":
    main()
