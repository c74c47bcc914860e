"""Figures of a data set: counts and images in, a matplotlib Figure out."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from image_classification.evaluation.captions import shortened
from image_classification.evaluation.figures import COLOURS, LONGEST_NAME, new_figure, plain

PART_NAMES = ("training", "validation", "test")
WIDTH = 6.0  # inches
MOST_NAMED = 20  # classes of a bar chart; of more, their sizes alone
GAP = 0.06  # between images, in widths of one


def class_sizes(counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """How many images of each part each class has: a bar each, or of many classes a curve.

    Args:
        counts: (classes, 3), in train, validation and test.
        classes: their names.
    """
    if len(classes) > MOST_NAMED:
        return _many_sizes(counts)
    figure = new_figure(WIDTH, 1.0 + 0.26 * len(classes))
    axes = figure.subplots()
    starts = np.zeros(len(classes))
    for part, values, colour in zip(PART_NAMES, counts.T, COLOURS, strict=False):
        axes.barh(range(len(classes)), values, left=starts, color=colour, label=part)
        starts += values
    axes.set_yticks(range(len(classes)), [_named(name) for name in classes], fontsize=9)
    axes.tick_params("x", labelsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("images")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return figure


def _many_sizes(counts: NDArray[np.int64]) -> Figure:
    figure = new_figure(WIDTH, 3.0)
    axes = figure.subplots()
    ordered = counts[np.argsort(-counts.sum(axis=1), kind="stable")].T
    axes.stackplot(np.arange(1, len(counts) + 1), ordered, labels=PART_NAMES, colors=COLOURS[:3])
    axes.set_xlim(1, len(counts))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("classes, the largest first")
    axes.set_ylabel("images")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return figure


def class_examples(
    classes: Sequence[str],
    means: Sequence[NDArray[np.uint8]],
    examples: Sequence[NDArray[np.uint8]],
    columns: int,
) -> Figure:
    """A row for each class: its mean image, then some of its images.

    Args:
        classes: their names.
        means: uint8 (height, width, channels) each.
        examples: uint8 (n, height, width, channels) each; n at most `columns`.
        columns: of examples.
    """
    ratio = means[0].shape[0] / means[0].shape[1]
    names = [_named(name) for name in classes]
    for_names = 0.3 + 0.085 * max(map(len, names))
    columns_wide = 1.4 + columns + GAP * columns  # the mean stands apart
    cell = (WIDTH - for_names) / columns_wide
    height = ratio + GAP
    figure = new_figure(WIDTH, 0.45 + cell * height * len(classes))
    axes = figure.subplots()
    for row, (mean, images) in enumerate(zip(means, examples, strict=True)):
        top = row * height
        axes.imshow(_shown(mean), extent=(0, 1, top + ratio, top))
        for column, image in enumerate(images):
            left = 1.4 + column * (1 + GAP)
            axes.imshow(_shown(image), extent=(left, left + 1, top + ratio, top))
    axes.set_xlim(0, columns_wide)
    axes.set_ylim(height * len(classes), 0)
    axes.set_yticks([row * height + ratio / 2 for row in range(len(classes))], names, fontsize=9)
    axes.set_xticks([0.5, 1.4 + columns / 2], ["mean", "some images"], fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def pairs(firsts: NDArray[np.uint8], seconds: NDArray[np.uint8], titles: tuple[str, str]) -> Figure:
    """Pairs of images, one above the other, numbered from 1.

    Args:
        firsts: uint8 (n, height, width, channels), the upper ones; n at least 1.
        seconds: the same, the lower ones.
        titles: of both rows.
    """
    ratio = firsts.shape[1] / firsts.shape[2]
    figure = new_figure(WIDTH, 0.45 + 2.1 * min(1.0, (WIDTH - 1.2) / len(firsts)) * ratio)
    axes = figure.subplots()
    for row, images in enumerate((firsts, seconds)):
        top = row * (ratio + GAP)
        for column, image in enumerate(images):
            left = column * (1 + 2 * GAP)
            axes.imshow(_shown(image), extent=(left, left + 1, top + ratio, top))
    axes.set_xlim(0, len(firsts) * (1 + 2 * GAP))
    axes.set_ylim(2 * ratio + GAP, 0)
    axes.set_yticks([ratio / 2, ratio * 1.5 + GAP], titles, fontsize=9)
    places = [column * (1 + 2 * GAP) + 0.5 for column in range(len(firsts))]
    axes.set_xticks(places, [str(number + 1) for number in range(len(firsts))], fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _named(name: str) -> str:
    """A class's name beside an axis."""
    return plain(shortened(name, LONGEST_NAME))


def _shown(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image as (height, width, 3), as it is: grey without colours, alpha left out."""
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1].repeat(3, axis=-1)
