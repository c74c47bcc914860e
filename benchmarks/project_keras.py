"""A training by the project's own `fit`, with or without MLflow, on the project's split.

Prints one line of JSON: seconds of each epoch, of the whole fit and of MLflow within it, training
losses, test accuracy, precision.
"""

import argparse
import contextlib
import json
import time
from dataclasses import replace

import keras

from image_classification import config, dataset, models, paths, recipes, tracking
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
    run = tracking.training_run(knobs, "") if options.tracked else contextlib.nullcontext()
    reporting = 0.0

    def report(epoch: int, values: dict[str, float]) -> None:
        nonlocal reporting
        if options.tracked:
            before = time.perf_counter()
            tracking.log_epoch(epoch, values)
            reporting += time.perf_counter() - before

    with run:
        start = time.perf_counter()
        rows = recipes.fit(
            model,
            replace(knobs.recipe, precision=precision),
            options.seed,
            jit_compile=knobs.model.jit_compile,
            train=train,
            validation=validation,
            report=report,
        )
        seconds = time.perf_counter() - start
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
