"""A training by the project's own `fit`, with or without MLflow, on the project's split.

Prints one line of JSON: seconds of each epoch, of the whole fit, and of keeping and telling the
epochs within it; training losses, test accuracy, precision.
"""

import argparse
import contextlib
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import keras

from image_classification import checkpoint, config, dataset, models, paths, recipes, runs
from image_classification.checkpoint import State
from image_classification.dataset import Examples


def main() -> None:
    """Train one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--examples", type=int, help="as many, not validated: as the bare loop")
    parser.add_argument("--epochs", type=int, help="not as many as the recipe says")
    parser.add_argument("--recipe", default="notebook")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracked", action="store_true", help="log it to MLflow")
    options = parser.parse_args()
    epochs = [f"recipe.epochs={options.epochs}"] if options.epochs else []
    knobs = config.compose(
        f"model={options.model}", f"recipe={options.recipe}", f"seed={options.seed}", *epochs
    )
    split = dataset.load_split(paths.SPLIT)
    train, validation = split.train, split.validation
    if options.examples:
        train = Examples(*(array[: options.examples] for array in train))
        validation = Examples(*(array[:1] for array in validation))

    keras.utils.set_random_seed(options.seed)
    model = models.build(knobs.model, knobs.data.image_shape, len(knobs.data.classes))
    precision = recipes.usable_precision(knobs.recipe.precision)
    scratch = Path(tempfile.mkdtemp())
    run = None
    if options.tracked:
        run = runs.LiveRun(scratch, scratch, runs.opening(knobs.data.name, options.model, {}))
    reporting = 0.0

    def keep(state: State) -> None:
        nonlocal reporting
        if run:
            before = time.perf_counter()
            checkpoint.save(scratch, state, {})
            run.tell_epochs(state.rows)
            reporting += time.perf_counter() - before

    with run.sampled() if run else contextlib.nullcontext():
        start = time.perf_counter()
        rows = recipes.fit(
            model,
            replace(knobs.recipe, precision=precision),
            options.seed,
            jit_compile=knobs.model.jit_compile,
            train=train,
            validation=validation,
            state=None,
            keep=keep,
        )
        seconds = time.perf_counter() - start
    if run:
        run.end("FINISHED")
    shutil.rmtree(scratch)
    hits = models.predict(model, split.test.images).argmax(axis=1) == split.test.labels
    print(
        json.dumps(
            {
                "seconds": [row["epoch_seconds"] for row in rows],
                "loss": [row["loss"] for row in rows],
                "fit": seconds,
                "report": reporting,
                "test_accuracy": float(hits.mean()),
                "precision": precision,
            }
        )
    )


if __name__ == "__main__":
    main()
