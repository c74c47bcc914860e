"""Latency: how long a trained model takes for an image."""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

SECONDS = 0.5  # the least total time of the calls
FEWEST_CALLS = 5


def inference_microseconds(model: keras.Model, images: NDArray[np.uint8]) -> float:
    """The time per image of a model that gets these images in one batch, compiled as for serving.

    Args:
        model: from `models.build` or `models.saved`.
        images: uint8 (n, height, width, channels), one batch.

    Returns:
        The median over the calls, divided by n.
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
