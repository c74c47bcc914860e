"""The data sheet as people read it: a split in, facts for the report and MLflow's note out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification.data import sheet
from image_classification.data.arrays import Split
from image_classification.data.split_plan import PARTS
from image_classification.evaluation.captions import shortened
from image_classification.reporting.data_figures import PART_NAMES

MOST_SHOWN = 20  # classes in a table or a picture; of more, the largest and the smallest
LONGEST_NAME = 60  # characters of a class in a sentence
MOST_LISTED = 20  # findings of a kind
MODES = {  # Pillow's names, in words
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "I;16": "grey of 16 bits",
    "P": "palette",
    "RGB": "colour",
    "RGBA": "colour with alpha",
    "CMYK": "colour for print",
}
# What Markdown reads as its own, and mlflow_pages as links to runs.
SPECIAL = re.compile(r"[&<>|\[*`\\~]|\((?=runs?:|compare:)|[:,](?=[0-9a-f]{32}\b)")


@dataclass(frozen=True)
class Listing:
    """Findings by name.

    title: what they are.
    heads: of the columns.
    rows: of the first `MOST_LISTED`.
    total: how many there are.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: int

    def caption(self) -> str:
        """What the rows are, and of how many."""
        return f"{self.title}: {len(self.rows)} of {self.total:,}, by name"


@dataclass(frozen=True)
class DataSheet:
    """What is known about a data set.

    classes: their names, in the order of the labels.
    counts: int64 (classes, 3), labelled images in train, validation and test.
    image_shape: height, width, channels.
    unlabelled: number of the images to predict.
    found: from `data.sheet.of_split`.
    """

    classes: Sequence[str]
    counts: NDArray[np.int64]
    image_shape: Sequence[int]
    unlabelled: int
    found: Mapping[str, Any]

    @property
    def is_user_data(self) -> bool:
        """Whether these are a user's own images, whose files were inspected."""
        return "sizes" in self.found

    def shown(self) -> list[int]:
        """The classes that are shown: all in their order, or the largest and the smallest."""
        if len(self.classes) <= MOST_SHOWN:
            return list(range(len(self.classes)))
        order = np.argsort(-self.counts.sum(axis=1), kind="stable")
        half = MOST_SHOWN // 2
        return [*order[:half].tolist(), *order[-half:].tolist()]

    def shown_name(self) -> str:
        """Which classes these are."""
        if len(self.classes) <= MOST_SHOWN:
            return "each class"
        half = MOST_SHOWN // 2
        return f"the {half} largest and the {half} smallest of {len(self.classes):,} classes"

    def size(self) -> str:
        """How many images there are, a sentence."""
        counts = zip(self.counts.sum(axis=0), PART_NAMES, strict=True)
        parts = ", ".join(f"{count:,} {part}" for count, part in counts)
        more = f"; {self.unlabelled:,} more without a label, to predict" if self.unlabelled else ""
        return f"{self.counts.sum():,} images of {len(self.classes):,} classes: {parts}{more}."

    def imbalance(self) -> str:
        """How much larger the largest class is than the smallest, a sentence."""
        totals = self.counts.sum(axis=1)
        most, fewest = int(totals.argmax()), int(totals.argmin())
        if totals[most] == totals[fewest]:
            return f"Each class has {totals[most]:,} images."
        first, last = (shortened(self.classes[number], LONGEST_NAME) for number in (most, fewest))
        largest = f"The largest class, {first}, has {totals[most]:,} images"
        smallest = f"the smallest, {last}"
        if not totals[fewest]:
            return f"{largest}, {smallest}, none."
        ratio = totals[most] / totals[fewest]
        return f"{largest}, {ratio:.1f} times as many as {smallest}, with {totals[fewest]:,}."

    def doubts(self) -> list[str]:
        """What makes scores doubtful, each a sentence without a full stop."""
        return sheet.doubts(self.found)

    def facts(self) -> list[tuple[str, str]]:
        """What was found in the files and in their pixels: names and values."""
        found = self.found
        height, width, channels = self.image_shape
        facts = [("shape of each image", f"{height} x {width} x {channels}")]
        if self.is_user_data:
            facts += [
                ("width of the files, pixels", _range(found["sizes"]["width"])),
                ("height of the files, pixels", _range(found["sizes"]["height"])),
                ("modes of the files", _counted({_mode(k): n for k, n in found["modes"].items()})),
                ("groups, each on one side", f"{found['groups']:,}" if found["groups"] else "none"),
            ]
        facts += [
            ("images with the same pixels", _sets(found["duplicates"])),
            ("of these with different labels", _sets(found["conflicting"])),
            ("of these in several parts", _sets(found["across"])),
        ]
        if self.is_user_data:
            near, bad = found["near_duplicates"]["images"], found["bad"]["images"]
            facts += [
                ("test images that look like a training image", f"{near:,}" if near else "none"),
                ("bad files left out", f"{bad:,}" if bad else "none"),
                ("files whose suffix is not an image's", _counted(found["ignored"])),
            ]
        return facts

    def listings(self) -> list[Listing]:
        """The findings by name, those that there are."""
        found = self.found
        kinds = [
            ("Same pixels, different labels", "conflicting", "sets", ("images",)),
            ("Same pixels in several parts", "across", "sets", ("images",)),
            ("Same pixels", "duplicates", "sets", ("images",)),
            ("Near-duplicates", "near_duplicates", "images", ("test image", "training image")),
            ("Bad files left out", "bad", "images", ("file", "cause")),
        ]
        listings = []
        for title, key, count, heads in kinds:
            if found.get(key, {}).get(count):
                rows = found[key]["named"][:MOST_LISTED]
                one = heads == ("images",)  # of sets of several images
                cells = [[", ".join(row)] if one else row for row in rows]
                listings.append(Listing(title, heads, cells, found[key][count]))
        return listings


def of_split(split: Split) -> DataSheet:
    """What is known of a split: its counts from the arrays, the rest from `data.sheet.of_split`."""
    counts = [
        np.bincount(np.asarray(getattr(split, part).labels), minlength=len(split.classes))
        for part in PARTS
    ]
    unlabelled = split.unlabelled()
    return DataSheet(
        split.classes,
        np.array(counts, np.int64).T,
        split.image_shape,
        0 if unlabelled is None else len(unlabelled),
        sheet.of_split(split),
    )


def escaped(text: str) -> str:
    """A text that Markdown shows as it is."""
    return SPECIAL.sub(lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def _range(values: Sequence[int]) -> str:
    lowest, median, highest = values
    if lowest == highest:
        return f"{lowest:,}"
    return f"{lowest:,} to {highest:,}, median {median:,}"


def _mode(name: str) -> str:
    return f"{MODES[name]} ({name})" if name in MODES else name


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items()) or "none"


def _sets(finding: Mapping[str, Any]) -> str:
    if not finding["sets"]:
        return "none"
    return f"{finding['images']:,} in {finding['sets']:,} set{'s' if finding['sets'] > 1 else ''}"
