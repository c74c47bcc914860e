"""Converts a drawn or photographed digit to MNIST's format.

That is (LeCun, Cortes and Burges, "The MNIST database of handwritten digits"): light on black, the
longer side of the digit's box 20 pixels, its centre of mass in the middle of 28 x 28, at index 14.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_classification.formats.decode import DecodeError

SIZE = 28  # height and width of an image
BOX = 20  # the longer side of a digit
BOXES = (19, 20)  # of MNIST's own digits
MIDDLE = 14  # index of the row and column of the centre of mass
FAINTEST = 24  # of 255: with less contrast, nothing is drawn
EDGE = 0.5  # of the threshold between ink and paper: what is fainter is paper
LEVELS = np.arange(256)
EVEN = 8  # levels that paper in even light may differ by
FITS = 3  # of the paper's brightness
LARGEST = 512  # pixels: a larger picture is made smaller first

Grey = NDArray[np.uint8]


def normalise(image: Grey) -> Grey:
    """Convert a picture of one digit to MNIST's format; one that has it stays as it is.

    Args:
        image: uint8 (height, width), dark on light or light on dark.

    Returns:
        uint8 (28, 28), light on black.

    Raises:
        DecodeError: the picture is blank.
    """
    if has_form(image):
        return image
    return _centred(_resized(_ink(image)))


def has_form(image: Grey) -> bool:
    """Whether an image has MNIST's format, as all images of its test set have.

    Sums of integers decide: the centre of mass of some digits lies exactly half way between pixels.
    """
    if image.shape != (SIZE, SIZE) or not image.any():
        return False
    if max(image[_box(image)].shape) not in BOXES:
        return False
    return all(abs(2 * moment - 2 * MIDDLE * mass) <= mass for moment, mass in _moments(image))


def _moments(image: Grey) -> list[tuple[int, int]]:
    """Of rows and of columns: the sum of index times pixel, and the sum of pixels."""
    pixels = image.astype(np.int64)
    return [
        (int(sums @ np.arange(len(sums))), int(sums.sum()))
        for sums in (pixels.sum(axis=1), pixels.sum(axis=0))
    ]


def _ink(image: Grey) -> Grey:
    """How much ink each pixel has, from 0 (paper) to 255, cut to the box of what is surely ink."""
    ink = _on_paper(image)
    if ink.max() < FAINTEST:
        raise DecodeError("blank: nothing is drawn on it")
    counts = _counts(ink)
    threshold = _otsu(counts)
    inked = np.cumsum(counts[threshold:])
    full = threshold + int(np.searchsorted(inked, inked[-1] / 2))  # the median
    faint = EDGE * threshold
    table = np.clip((LEVELS - faint) * (255 / (full - faint)), 0, 255).round().astype(np.uint8)
    return _mapped(ink[_box(ink >= threshold)], table)


def _on_paper(image: Grey) -> Grey:
    """How far each pixel is from the brightness of the paper, in the direction of the ink."""
    levels = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    if levels.max() - levels.min() <= EVEN:  # as in a drawing; a lookup table is fast
        table = LEVELS - float(np.median(levels))
        return _mapped(image, _one_way(table, _counts(image)))
    difference = image - _uneven_paper(image)
    return _one_way(difference, np.ones(image.shape))


def _one_way(difference: NDArray[Any], counts: NDArray[Any]) -> Grey:
    """The differences above 0, or below, whichever there are more of."""
    light, dark = np.maximum(difference, 0), np.maximum(-difference, 0)
    is_light = (np.square(light) * counts).sum() >= (np.square(dark) * counts).sum()
    ink: Grey = np.clip(light if is_light else dark, 0, 255).round().astype(np.uint8)
    return ink


def _uneven_paper(image: Grey) -> NDArray[np.float32]:
    """The brightness of the paper, as a plane through the border: light falls from one side."""
    rows, columns = np.indices(image.shape, np.float32)
    places = np.stack([np.ones_like(rows), rows / image.shape[0], columns / image.shape[1]], -1)
    border = np.ones(image.shape, bool)
    border[1:-1, 1:-1] = False
    at, levels = places[border], image[border].astype(np.float32)
    plane = np.array([np.median(levels), 0, 0], np.float32)
    for _ in range(FITS):  # without what is drawn up to the border
        off = np.abs(levels - at @ plane)
        kept = off <= max(1.0, 3 * float(np.median(off)))
        plane = np.linalg.lstsq(at[kept], levels[kept], rcond=None)[0]
    paper: NDArray[np.float32] = places @ plane
    return paper


def _mapped(image: Grey, table: Grey) -> Grey:
    """Apply a lookup table of 256 levels: ten times as fast as NumPy's indexing."""
    mapped = image.tobytes().translate(table.tobytes())
    return np.frombuffer(mapped, np.uint8).reshape(image.shape)


def _counts(image: Grey) -> NDArray[np.int64]:
    return np.array(Image.fromarray(image).histogram(), np.int64)


def _otsu(counts: NDArray[np.int64]) -> int:
    """The least level of ink, by the largest variance between ink and paper (Otsu, 1979)."""
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * LEVELS)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return 1 + int(np.nan_to_num(below * above * apart).argmax())


def _box(ink: NDArray[Any]) -> tuple[slice, slice]:
    """The rows and columns that hold all ink."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _resized(ink: Grey) -> Grey:
    """The digit with a longer side of 20 pixels, its proportions kept."""
    height, width = ink.shape
    scale = BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(ink).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(picture, np.uint8)


def _centred(digit: Grey) -> Grey:
    """The digit on black, moved by whole pixels so that its centre of mass is in the middle."""
    image = np.zeros((SIZE, SIZE), np.uint8)
    places = []
    for (moment, mass), side in zip(_moments(digit), digit.shape, strict=True):
        place = (2 * MIDDLE * mass - 2 * moment + mass) // (2 * mass)  # rounded
        places.append(min(max(place, 0), SIZE - side))
    top, left = places
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image
