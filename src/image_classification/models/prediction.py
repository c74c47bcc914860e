"""What a model predicts."""

import keras
import numpy as np
from numpy.typing import NDArray

PREDICTION_BATCH = 1000  # images at once; any number gives the same results


def predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The model's probabilities for each image.

    Args:
        model: from `build`.
        images: (n, height, width, channels).

    Returns:
        (n, classes), rows that sum to 1.
    """
    probabilities = model.predict(np.asarray(images), batch_size=PREDICTION_BATCH, verbose=0)
    return np.asarray(probabilities, np.float32)
