"""What a trained model costs those who use it."""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

SECONDS = 0.5  # of calls, of which the median counts
FEWEST_CALLS = 5


def inference_microseconds(model: keras.Model, images: NDArray[np.uint8]) -> float:
    """How long a model takes for an image when it gets so many at once, compiled as when served.

    Args:
        model: from models.build.
        images: (n, height, width, channels), one batch.

    Returns:
        The median over calls, by the number of images.
    """
    call = tf.function(lambda batch: model(batch, training=False))
    batch = tf.constant(images)
    call(batch).numpy()  # compiles
    seconds: list[float] = []
    while len(seconds) < FEWEST_CALLS or sum(seconds) < SECONDS:
        start = time.perf_counter()
        call(batch).numpy()
        seconds.append(time.perf_counter() - start)
    return 1e6 * statistics.median(seconds) / len(images)
