"""What every format is read into: labelled images that are not decoded yet, and what is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

PART_ALIASES = {  # the names in use for the parts of a data set, in lower case
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class ImageRecord:
    """One image.

    name: unique in its data set, as people see it: the file below `data.path`, or a place in it.
    label: the name of its class; None for an image to predict.
    image: the file that holds it, or an array (height, width) or (height, width, channels).
    part: train, validation or test, if the data set says so.
    group: images of one group are never in two parts.
    """

    name: str
    label: str | None
    image: Path | NDArray[Any]
    part: str | None = None
    group: str | None = None


class Problem(NamedTuple):
    """What is wrong with one file, line or class."""

    name: str
    cause: str


@dataclass(frozen=True)
class Reading:
    """A data set as it was found.

    ignored: by suffix, the number of files whose suffix is not an image's.
    """

    records: Sequence[ImageRecord]
    problems: Sequence[Problem] = ()
    ignored: dict[str, int] | None = None


def part_named(word: str) -> str | None:
    """The part that a whole word stands for, in any case."""
    for part, words in PART_ALIASES.items():
        if word.strip().casefold() in words:
            return part
    return None
