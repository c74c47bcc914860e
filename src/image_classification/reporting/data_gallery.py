"""The pictures of the data in the report: a split in; figures with their texts and names out.

Of the images only a bounded sample is read, slice by slice, so that memory and time are bounded
whatever the size of the data.
"""

import numpy as np
from numpy.typing import NDArray

from image_classification.data.arrays import Examples, Split
from image_classification.reporting import data_figures
from image_classification.reporting.data_sheet import DataSheet
from image_classification.reporting.gallery import Picture, Pictures

EXAMPLES = 8  # images of a class
AVERAGED = 500  # images of a class, at most, in its mean image
ROWS = 100  # images that are read at once
PAIRS = 8  # near-duplicates


def draw(known: DataSheet, split: Split) -> Pictures:
    """Yield every picture of the section on the data with its figure."""
    yield (
        Picture(
            "data",
            "class_sizes",
            f"Number of images of each class in training, validation and test. {known.imbalance()}",
        ),
        data_figures.class_sizes(known.counts, known.classes),
    )
    shown = [number for number in known.shown() if known.counts[number, 0]]
    rows = [np.flatnonzero(split.train.labels == number) for number in shown]
    yield (
        Picture(
            "data",
            "class_examples",
            f"The mean image of {known.shown_name()}, and some of its training images.",
            f"The mean of up to {AVERAGED} training images, and up to {EXAMPLES} of them.",
            photo=True,
        ),
        data_figures.class_examples(
            [known.classes[number] for number in shown],
            [_mean(split.train, _evenly(of_class, AVERAGED)) for of_class in rows],
            [split.train.images[_evenly(of_class, EXAMPLES)] for of_class in rows],
            EXAMPLES,
        ),
    )
    tests, trainings = _near_duplicates(known, split)
    if tests:
        yield (
            Picture(
                "near_duplicates",
                "near_duplicates",
                "Test images, each above a training image that it looks like.",
                "Test images above the training images that they look like, numbered as in the "
                "list. In both, the same of 8 x 8 fields are darker than their neighbours.",
                photo=True,
            ),
            data_figures.pairs(
                split.test.images[tests], split.train.images[trainings], ("test", "training")
            ),
        )


def _near_duplicates(known: DataSheet, split: Split) -> tuple[list[int], list[int]]:
    """The rows of some test images, and of the training images that they look like."""
    named = known.found.get("near_duplicates", {}).get("named", [])[:PAIRS]
    places = [{name: row for row, name in enumerate(split.names(p))} for p in ("test", "train")]
    rows = [[place[name] for place, name in zip(places, pair, strict=True)] for pair in named]
    return [test for test, _ in rows], [training for _, training in rows]


def _evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Rows that are evenly spaced, all if there are no more."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)]


def _mean(examples: Examples, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    total = np.zeros(examples.images.shape[1:])
    for start in range(0, len(rows), ROWS):
        total += examples.images[rows[start : start + ROWS]].sum(axis=0, dtype=np.int64)
    return (total / len(rows)).round().astype(np.uint8)
