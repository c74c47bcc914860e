"""An epoch on images drawn from all of a split, read from files or from memory.

Prints one line of JSON: its seconds. Called with a project's folder, `stored` or `in_memory`, a
model, and the number of images.
"""

import json
import os
import sys
from typing import Any

from image_classification.core import paths  # first: it sets what TensorFlow reads

# isort: split
import keras
import numpy as np

from image_classification.core.compose import compose
from image_classification.data.arrays import Examples, StoredImages, load_split, take
from image_classification.models.build import build
from image_classification.training.fit import fit


def main() -> None:
    """Time the second of two epochs."""
    project, kind, model, count = sys.argv[1:]
    os.chdir(project)
    config = compose(f"model={model}", "recipe.epochs=2")
    split = load_split(paths.SPLIT)
    order = np.random.default_rng(0).permutation(len(split.train.labels))[: int(count)]
    images: Any = split.train.images
    if kind == "stored" and not isinstance(images, StoredImages):
        images = StoredImages([images])  # fewer than are kept in files
    train = take(Examples(images, split.train.labels), order)
    if kind == "in_memory":
        train = Examples(np.asarray(train.images), train.labels)
    few = Examples(np.asarray(split.validation.images[:1]), split.validation.labels[:1])
    keras.utils.set_random_seed(0)
    rows = fit(
        build(config.model, split.image_shape, len(split.classes)),
        config.recipe,
        seed=0,
        jit_compile=config.model.jit_compile,
        train=train,
        validation=few,
        state=None,
        save=lambda _: None,
    )
    print(json.dumps({"seconds": rows[-1]["epoch_seconds"]}))


if __name__ == "__main__":
    main()
