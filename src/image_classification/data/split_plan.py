"""How a user's own images are split: an inventory of them in, a plan out."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.data.assignment import assign, quotas, units

PARTS = ("train", "validation", "test")
FEWEST_PER_CLASS = 3  # images of a class: one a part

Issues = list[tuple[str, str]]  # what is bad, and why


@dataclass(frozen=True)
class Inventory:
    """A user's images as they were found, each at the same index of every list.

    names: unique, as people see them.
    labels: names of classes; None for an image to predict.
    parts: train, validation, test, or None where the data does not say.
    groups: None for an image of no group.
    hashes: of the decoded pixels; empty for an image that could not be decoded.
    perceptual_hashes: uint64 (images,), equal for near-duplicates.
    sizes: width and height before decoding.
    modes: of the pixels, as Pillow calls them.
    """

    names: Sequence[str]
    labels: Sequence[str | None]
    parts: Sequence[str | None]
    groups: Sequence[str | None]
    hashes: Sequence[bytes]
    perceptual_hashes: NDArray[np.uint64]
    sizes: Sequence[tuple[int, int]]
    modes: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """Which image goes where.

    classes: their names, in the order of the labels.
    labels: int64 (images,), -1 for those left out or to predict.
    units: int64 (images,), see data.assignment.
    names: of the images.
    parts: rows of the images in `train`, `validation`, `test` and `unlabelled`.
    """

    classes: list[str]
    labels: NDArray[np.int64]
    units: NDArray[np.int64]
    names: list[str]
    parts: dict[str, NDArray[np.int64]]

    def label_type(self) -> type[np.unsignedinteger[Any]]:
        """The type that labels are saved in."""
        return np.uint8 if len(self.classes) <= 256 else np.uint16


def plan(images: Inventory, data: DataConfig) -> tuple[Plan, Issues]:
    """Divide the images that could be decoded.

    Parts that the data gives are kept. Others are drawn from the training images and from those of
    no part: each class with its share, and what belongs together on one side.

    Returns:
        The plan, and what is bad: unknown labels, and classes with too few images; these
        images are in no part.

    Raises:
        UserError: nothing is left, a group is in several parts, or a setting does not fit the data.
    """
    kept = np.array([bool(digest) for digest in images.hashes], bool)
    labels, classes, issues = _labels(images, kept, data)
    _require_whole_groups(images, labels)
    order = _order(images, data)
    together = units(
        images.groups,
        [digest or None for digest in images.hashes],
    )
    rows = {part: _given(images, labels, order, part) for part in PARTS}
    free = np.concatenate([rows["train"], _given(images, labels, order, None)])
    free = free[np.argsort(np.argsort(order)[free])]
    unlabelled = np.array(
        [row for row, label in enumerate(images.labels) if label is None and kept[row]], int
    )
    if not len(free) or len(classes) < 2:
        found = "no good images to train with"
        if len(classes) < 2:
            found = f"{len(classes)} classes with enough good images, at least 2 are needed"
        cause = f" ({': '.join(issues[0])})" if issues else ""
        raise UserError(
            f"data.path: {data.path} holds {found}{cause}: add images, or correct data.path"
        )
    drawn = _draw(free, labels, together, rows, classes, images, data)
    parts = {part: drawn.get(part, rows[part]) for part in PARTS}
    for part, chosen in parts.items():
        if not len(chosen):
            raise UserError(
                f"data.path: no images are left for {part}: a group, like images with the same "
                f"pixels, stays together: give more or smaller groups, or name the parts"
            )
    parts["unlabelled"] = unlabelled
    return Plan(classes, labels, together, list(images.names), parts), issues


def _labels(
    images: Inventory, kept: NDArray[np.bool_], data: DataConfig
) -> tuple[NDArray[np.int64], list[str], Issues]:
    """The number of each image's class, one list of classes for all parts, and what is bad."""
    found = Counter(
        label for label, good in zip(images.labels, kept, strict=True) if good and label
    )
    classes = list(data.classes or sorted(found, key=_natural))
    issues: Issues = []
    for name, label in zip(images.names, images.labels, strict=True):
        if data.classes and label is not None and label not in data.classes:
            issues.append((name, f"label {label!r:.80} is not a class of data.classes"))
    numbers = {name: number for number, name in enumerate(classes)}
    all_given = {"train", "validation", "test"} <= set(images.parts)
    fewest = 1 if all_given else FEWEST_PER_CLASS
    few = [name for name in classes if found[name] < fewest]
    if few and not data.classes:
        classes = [name for name in classes if name not in few]
        numbers = {name: number for number, name in enumerate(classes)}
    for name in few:
        issues.append(
            (name, f"good images of this class: {found[name]}, needed: at least {fewest}")
        )
    labels = [
        numbers.get(label, -1) if good and label and label not in few else -1
        for label, good in zip(images.labels, kept, strict=True)
    ]
    return np.array(labels, np.int64), classes, issues


def _require_whole_groups(images: Inventory, labels: NDArray[np.int64]) -> None:
    parts = defaultdict(set)
    for group, part, label in zip(images.groups, images.parts, labels, strict=True):
        if group is not None and label >= 0:
            parts[group].add(part or "no part")
    for group, found in parts.items():
        if len(found) > 1 and found != {"train", "no part"}:  # others are drawn from these
            raise UserError(
                f"data.path: images of the group {group!r:.80} are in {' and '.join(sorted(found))}"
                ": give them one part, or groups of their own"
            )


def _natural(name: str) -> list[Any]:
    """A sort key that puts 10 after 9."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
    ]


def _order(images: Inventory, data: DataConfig) -> NDArray[np.int64]:
    """An order that does not depend on that of the files; without `stratify`, that of the files."""
    if not data.stratify:
        return np.arange(len(images.names))
    keys = list(images.names)
    if data.kind == "python":  # an array has no name of its own
        keys = [digest.hex() for digest in images.hashes]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _given(
    images: Inventory,
    labels: NDArray[np.int64],
    order: NDArray[np.int64],
    part: str | None,
) -> NDArray[np.int64]:
    chosen = [row for row in order if labels[row] >= 0 and images.parts[row] == part]
    return np.array(chosen, np.int64)


def _draw(
    free: NDArray[np.int64],
    labels: NDArray[np.int64],
    together: NDArray[np.int64],
    rows: Mapping[str, NDArray[np.int64]],
    classes: list[str],
    images: Inventory,
    data: DataConfig,
) -> dict[str, NDArray[np.int64]]:
    """The parts that the data does not give, and what is left to train with."""
    total = len(free) + len(rows["validation"]) + len(rows["test"])
    held_out = {"validation": data.validation_share, "test": data.test_share}
    sizes = {part: share * total for part, share in held_out.items() if not len(rows[part])}
    if "validation" in sizes and data.validation_examples is not None:
        sizes["validation"] = data.validation_examples
    if sum(sizes.values()) >= len(free):
        raise UserError(
            f"data.validation_share, data.test_share: {sum(sizes.values()):.0f} of {len(free)} "
            "images leave none to train with: lower one of them"
        )
    if not data.stratify:
        if any(images.groups[row] is not None for row in free):
            raise UserError("data.stratify: must be true where images have groups")
        drawn = {}
        for part, size in sizes.items():
            free, drawn[part] = train_test_split(
                free, test_size=max(1, round(size)), random_state=data.split_seed
            )
        return {**drawn, "train": free}
    counts = np.bincount(labels[free], minlength=len(classes))
    wanted = quotas(counts.tolist(), [size / len(free) for size in sizes.values()])
    parts = assign(labels[free], together[free], wanted, data.split_seed)
    return {part: free[parts == number] for number, part in enumerate([*sizes, "train"])}
