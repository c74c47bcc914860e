"""Latency: how long a trained model takes for an image."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from image_classification.core.backend import backend

BATCHES = (1, 256)  # sizes that are timed
SECONDS = 0.5  # minimum total time of the calls
FEWEST_CALLS = 5


def latencies(model: keras.Model, images: NDArray[np.uint8]) -> dict[str, float]:
    """The time per image in batches of each size: `microseconds_batch_1` and so on.

    Args:
        model: as for `inference_microseconds`.
        images: uint8 (n, height, width, channels); repeated where a batch is larger.
    """
    return {
        f"microseconds_batch_{size}": inference_microseconds(
            model, np.resize(np.asarray(images[:size]), (size, *images.shape[1:]))
        )
        for size in BATCHES
    }


def inference_microseconds(model: keras.Model, images: NDArray[np.uint8]) -> float:
    """The time per image of a model that gets these images in one batch, compiled as for serving.

    Args:
        model: from `models.build` or `models.saved`.
        images: uint8 (n, height, width, channels), one batch.

    Returns:
        The median over the calls, divided by n.
    """
    call = _compiled(lambda batch: model(batch, training=False))
    batch = keras.ops.convert_to_tensor(images)
    np.asarray(call(batch))  # compiles
    seconds: list[float] = []
    while len(seconds) < FEWEST_CALLS or sum(seconds) < SECONDS:
        start = time.perf_counter()
        np.asarray(call(batch))  # waits for the result
        seconds.append(time.perf_counter() - start)
    return 1e6 * statistics.median(seconds) / len(images)


def _compiled(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    compiled: Callable[[Any], Any] = tf.function(function)
    if backend() == "jax":
        import jax

        compiled = jax.jit(function)
    return compiled
