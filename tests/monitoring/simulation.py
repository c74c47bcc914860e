"""Streams of images, clean and shifted, and how often they raise an alarm."""

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from image_classification.monitoring import shifts
from image_classification.monitoring.statistics import Statistics, describe

Images = NDArray[np.uint8]
Model = Callable[[Images], NDArray[np.floating]]  # probabilities of images

WINDOW = 100  # images


def noisy(images: Images, deviation: float) -> Images:
    drawn = np.random.default_rng(0).normal(0, deviation, images.shape)
    return np.clip(images + drawn, 0, 255).astype(np.uint8)


def blurred(images: Images, deviation: float) -> Images:
    width = (0, deviation, deviation, 0)
    soft = scipy.ndimage.gaussian_filter(images.astype(np.float32), width)
    return np.asarray(soft, np.uint8)


def rotated(images: Images, degrees: float) -> Images:
    turned = scipy.ndimage.rotate(images, degrees, axes=(2, 1), reshape=False, order=1)
    return np.asarray(turned, np.uint8)


def zoomed(images: Images, factor: float) -> Images:
    """Larger or smaller about the middle."""
    size = images.shape[1]
    middle = (size - 1) / 2
    offset = middle - middle / factor
    scale, start = (1, 1 / factor, 1 / factor, 1), (0, offset, offset, 0)
    return np.asarray(scipy.ndimage.affine_transform(images, scale, start, order=1), np.uint8)


STREAMS: dict[str, Callable[[Images], Images]] = {
    "inverted": lambda images: 255 - images,
    "noisy": partial(noisy, deviation=50),
    "blurred": partial(blurred, deviation=1),
    "shifted by 3": partial(np.roll, shift=3, axis=2),
    "shifted by 3 up": partial(np.roll, shift=-3, axis=1),
    "rotated by 30": partial(rotated, degrees=30),
    "rotated by -30": partial(rotated, degrees=-30),
    "darker": lambda images: (images * 0.6).astype(np.uint8),
    "larger": partial(zoomed, factor=1.3),
    "smaller": partial(zoomed, factor=0.75),
    "thicker": partial(scipy.ndimage.grey_dilation, size=(1, 3, 3, 1)),
    "thinner": partial(scipy.ndimage.grey_erosion, size=(1, 2, 2, 1)),
}
MIXES = {"two digits": (3, 8), "five digits": (0, 2, 4, 6, 8)}


def drawn_digits(count: int, seed: int) -> tuple[Images, NDArray[np.intp]]:
    """Digits in a font, 28 x 28, of varying size, slant, place and ink; and which they are."""
    random = np.random.default_rng(seed)
    fonts = [ImageFont.load_default(size) for size in range(17, 24)]
    labels = random.integers(0, 10, count)
    images = np.empty((count, 28, 28, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        page = Image.new("L", (28, 28))
        place = 14 + random.normal(0, 0.7), 14 + random.normal(0, 0.7)
        ink, font = int(random.integers(200, 256)), fonts[random.integers(len(fonts))]
        ImageDraw.Draw(page).text(place, str(label), fill=ink, font=font, anchor="mm")
        turned = page.rotate(random.normal(0, 7), resample=Image.Resampling.BILINEAR)
        image[:] = np.asarray(turned)[..., np.newaxis]
    return images, labels


def nearest_mean(images: Images, labels: NDArray[np.integer]) -> Model:
    """A model that goes by the distance from the mean image of each class."""
    means = np.stack([_soft(images[labels == number]).mean(0) for number in range(10)])

    def probabilities(asked: Images) -> NDArray[np.floating]:
        soft = _soft(asked)
        squares = (soft**2).sum(1)[:, np.newaxis] - 2 * soft @ means.T + (means**2).sum(1)
        weights = np.exp(-(squares - squares.min(1, keepdims=True)) / 3)
        return np.asarray(weights / weights.sum(1, keepdims=True))

    return probabilities


def _soft(images: Images) -> NDArray[np.floating]:
    return blurred(images, 1).reshape(len(images), -1).astype(np.float32) / 255


def windows(pool: Statistics, count: int, seed: int, size: int = WINDOW) -> list[Statistics]:
    random = np.random.default_rng(seed)
    rows = [random.choice(len(pool.classes), size, replace=False) for _ in range(count)]
    return [Statistics(pool.values[chosen], pool.classes[chosen]) for chosen in rows]


def alarms(
    reference: Statistics, pool: Statistics, count: int, seed: int, size: int = WINDOW
) -> int:
    """In how many windows, drawn from a pool, something has moved."""
    judged = (shifts.compare(reference, window) for window in windows(pool, count, seed, size))
    return sum(any(shift.moved for shift in found) for found in judged)


def found(
    reference: Statistics, images: Images, labels: NDArray[np.integer], model: Model, count: int
) -> dict[str, int]:
    """In how many windows of each shifted stream something has moved."""
    streams = {name: change(images) for name, change in STREAMS.items()}
    streams |= {name: images[np.isin(labels, digits)] for name, digits in MIXES.items()}
    return {
        name: alarms(reference, describe(stream, model(stream)), count, seed=0)
        for name, stream in streams.items()
    }
