"""The same recipe as bare_keras.py, by the project's own `fit`, without tracking.

Prints one line of JSON: seconds of each epoch, and its training loss.
"""

import argparse
import json

import keras

from image_classification import config, dataset, models, paths, recipes
from image_classification.dataset import Examples


def main() -> None:
    """Train one model on the first examples of the split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--examples", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    knobs = config.compose(
        *(f"model={options.model}", "recipe=notebook", f"recipe.epochs={options.epochs}"),
        f"seed={options.seed}",
    )
    split = dataset.load_split(paths.SPLIT)
    examples = Examples(*(array[: options.examples] for array in split.train))

    keras.utils.set_random_seed(options.seed)
    model = models.build(knobs.model, knobs.data.image_shape, len(knobs.data.classes))
    hardly_any = Examples(*(array[:1] for array in split.validation))  # the bare loop has none
    rows = recipes.fit(
        *(model, knobs.recipe, options.seed, knobs.model.jit_compile, examples, hardly_any),
        report=lambda epoch, values: None,
    )
    print(
        json.dumps(
            {
                "seconds": [row["epoch_seconds"] for row in rows],
                "loss": [row["loss"] for row in rows],
            }
        )
    )


if __name__ == "__main__":
    main()
