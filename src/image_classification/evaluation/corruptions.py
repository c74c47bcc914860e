"""Corrupted images, the same in every evaluation: arrays in, arrays out.

The kinds and their graded strengths follow the idea of Hendrycks and Dietterich, "Benchmarking
neural network robustness to common corruptions and perturbations" (2019). Lengths are shares of the
image's width, so that one scale fits images of any size.

To add a corruption, add it to `CORRUPTIONS`; metrics, figures and the report follow.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Images = NDArray[np.uint8]

IMAGES = 1000  # that are corrupted; more would take as long as the rest of an evaluation
DIRECTIONS = np.pi / 4 * np.arange(8)  # of shifts, which the images take in turn


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption.

    unit: of the strengths.
    strengths: from weak to strong.
    apply: returns corrupted images, given images uint8 (n, height, width, channels) and a strength;
        the same images each time, and unchanged images at strength 0.
    """

    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[Images, float], Images]


def shift(images: Images, share: float) -> Images:
    """Move each image by a share of its width, in eight directions in turn."""
    angles = DIRECTIONS[np.arange(len(images)) % len(DIRECTIONS)]
    length = share * images.shape[2]
    moved = [
        scipy.ndimage.shift(
            image, (length * np.sin(angle), length * np.cos(angle), 0), order=1, mode="nearest"
        )
        for image, angle in zip(images, angles, strict=True)
    ]
    return np.stack(moved)


def rotation(images: Images, degrees: float) -> Images:
    """Rotate each image about its centre, every second one in the opposite direction."""
    turned = np.empty_like(images)
    for start, angle in ((0, degrees), (1, -degrees)):
        turned[start::2] = scipy.ndimage.rotate(
            images[start::2], angle, axes=(2, 1), reshape=False, order=1, mode="nearest"
        )
    return turned


def noise(images: Images, deviation: float) -> Images:
    """Add normal noise whose deviation is a share of the range from black to white."""
    generator = np.random.default_rng(0)
    return _each(images, lambda image: image + generator.normal(0, 255 * deviation, image.shape))


def blur(images: Images, share: float) -> Images:
    """Blur each image by a Gaussian whose deviation is a share of the image's width."""
    width = share * images.shape[2]
    return _each(
        images,
        lambda image: scipy.ndimage.gaussian_filter(
            image.astype(np.float32), (width, width, 0), mode="nearest"
        ),
    )


def contrast(images: Images, lost: float) -> Images:
    """Move each pixel towards the mean of its image, by a share of the way."""
    return _each(images, lambda image: image + lost * (image.mean() - image))


CORRUPTIONS = {
    "shift": Corruption("share of the width", (0.04, 0.08, 0.12, 0.16, 0.2), shift),
    "rotation": Corruption("degrees", (10, 20, 30, 40, 50), rotation),
    "noise": Corruption("deviation, share of the range", (0.1, 0.2, 0.3, 0.4, 0.5), noise),
    "blur": Corruption("deviation, share of the width", (0.02, 0.04, 0.06, 0.08, 0.1), blur),
    "contrast": Corruption("share lost", (0.3, 0.5, 0.7, 0.8, 0.9), contrast),
}


def sample(examples: int) -> NDArray[np.intp]:
    """The indices of the examples that are corrupted: at most `IMAGES`, evenly spaced."""
    return np.linspace(0, examples - 1, min(examples, IMAGES)).astype(np.intp)


def graded(images: Images) -> Iterator[tuple[str, float, Images]]:
    """Yield (kind, strength, corrupted images) for every kind, from weak to strong."""
    for kind, corruption in CORRUPTIONS.items():
        for strength in corruption.strengths:
            yield kind, strength, corruption.apply(images, strength)


def _each(images: Images, change: Callable[[Images], NDArray[np.floating]]) -> Images:
    """Change one image at a time, since all of them as floats would fill the memory."""
    changed = np.empty_like(images)
    for number, image in enumerate(images):
        changed[number] = np.clip(np.rint(change(image)), 0, 255)
    return changed
