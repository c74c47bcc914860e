"""What a model predicts."""

import math

import keras
import numpy as np
from numpy.typing import NDArray

PREDICTION_BATCH = 1000  # images at once; any number gives the same results but for rounding
LARGEST_OUTPUT = 2**26  # numbers that a layer gives for these images: 256 MiB


def predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The model's output for each image.

    Args:
        model: from `build`, or the part of it up to a backbone's features.
        images: (n, height, width, channels), read a part at a time.

    Returns:
        (n, classes), probabilities, rows that sum to 1; or (n, features).
    """
    size = prediction_batch(model)
    # Keras' `predict` gives the same, but its setup at each call takes longer than nn computes.
    predicted = [
        model.predict_on_batch(np.asarray(images[start : start + size]))
        for start in range(0, len(images), size)
    ]
    return np.concatenate(predicted, dtype=np.float32)


def prediction_batch(model: keras.Model) -> int:
    """How many images the model is given at once, so that its layers' outputs fit into memory."""
    largest: int = max(math.prod(layer.output.shape[1:]) for layer in model.layers)
    return max(1, min(PREDICTION_BATCH, LARGEST_OUTPUT // largest))
