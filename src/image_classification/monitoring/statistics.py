"""A few numbers for each image and prediction, from which no image can be reconstructed."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NAMES = ("confidence", "brightness", "lit", "off_centre", "spread", "slant", "sharpness")
LIT = 127  # a pixel above is lit
DECIMALS = 4  # so that equal images have equal numbers, whatever else they were computed with
TINY = 1e-6
SIDE = 64  # larger images are subsampled to at most this many pixels per side


class Statistics(NamedTuple):
    """Numbers of images.

    values: float32 (n, 7), by NAMES:
        confidence: the largest probability, 0 to 1.
        brightness: the mean pixel, 0 to 1.
        lit: the share of pixels above 127.
        off_centre: the distance of the centre of brightness from the middle, 1 for a side.
        spread: the standard deviation of brightness about that centre, 1 for a side.
        slant: 2 cov(x, y) / (var(x) + var(y)) of brightness, -1 to 1; below 0 leans to the right.
        sharpness: the mean difference of neighbouring pixels, down plus across, 0 to 2.
    classes: int32 (n,), the predicted classes.
    """

    values: NDArray[np.float32]
    classes: NDArray[np.int32]


def describe(images: NDArray[np.uint8], probabilities: NDArray[np.floating]) -> Statistics:
    """The statistics of images and of a model's predictions.

    Args:
        images: (n, height, width, channels), 0 to 255.
        probabilities: (n, classes).
    """
    down, right = (-(-side // SIDE) for side in images.shape[1:3])
    images = images[:, ::down, ::right]
    flat = images.reshape(len(images), -1)
    total, x, y, xy, xx, yy = (flat.astype(np.float32) @ _moments(*images.shape[1:])).T
    weight = np.maximum(total, TINY)
    x, y = x / weight, y / weight
    variance = np.maximum((xx + yy) / weight - x**2 - y**2, 0)
    values = (
        probabilities.max(1),
        total / (255 * flat.shape[1]),
        (flat > LIT).mean(1),
        np.hypot(x, y),
        np.sqrt(variance),
        2 * (xy / weight - x * y) / np.maximum(variance, TINY),
        _difference(images[:, 1:], images[:, :-1])
        + _difference(images[:, :, 1:], images[:, :, :-1]),
    )
    rounded = np.round(np.stack(values, 1), DECIMALS).astype(np.float32)
    return Statistics(rounded, probabilities.argmax(1).astype(np.int32))


def join(parts: list[Statistics]) -> Statistics:
    """Those of several batches, one after the other."""
    values, classes = zip(*parts, strict=True)
    return Statistics(np.concatenate(values), np.concatenate(classes))


@lru_cache(maxsize=4)
def _moments(height: int, width: int, channels: int) -> NDArray[np.float32]:
    """(pixels, 6): the weight of a pixel in the sums of 1, x, y, xy, xx and yy."""
    y, x = np.meshgrid(
        (np.arange(height) - (height - 1) / 2) / height,
        (np.arange(width) - (width - 1) / 2) / width,
        indexing="ij",
    )
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1).reshape(-1, 6)
    return np.repeat(terms, channels, axis=0).astype(np.float32)


def _difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.floating]:
    """(n,): the mean difference of two images' pixels, 0 to 1."""
    steps = np.maximum(first, second) - np.minimum(first, second)  # no overflow in uint8
    pixels = max(1, steps[:1].size)
    total: NDArray[np.floating] = steps.reshape(len(steps), -1).sum(1) / (255 * pixels)
    return total
