"""The data sheet: what people should know about the images before they trust a score."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from image_classification.core import readers
from image_classification.core.errors import UserError
from image_classification.data.arrays import Split
from image_classification.data.split_plan import PARTS, Inventory, Plan

NAMED = 100  # at most, of each kind of finding
NAMED_OF_A_SET = 10
FILE = "sheet.json"  # of a split of one's own images
LARGEST = 2**24  # bytes of it: long names
ROWS = 512  # images that are read at once

SETS = {"sets": int, "images": int, "named": [[str]]}
FORM = {  # of that file; a list holds any number of what it shows, {str: int} any keys
    "counts": {str: {str: int}},
    "unlabelled": int,
    "sizes": {str: [int]},
    "modes": {str: int},
    "groups": int,
    "duplicates": SETS,
    "conflicting": SETS,
    "across": SETS,
    "near_duplicates": {"images": int, "named": [[str]]},
    "bad": {"images": int, "named": [[str]]},
    "ignored": {str: int},
}


def of_user_data(
    plan: Plan,
    images: Inventory,
    issues: Sequence[tuple[str, str]],
    ignored: Mapping[str, int],
) -> dict[str, Any]:
    """What users should know about their own images: a JSON object.

    counts: by class and part. sizes: the smallest, the median and the largest width and height.
    modes: number of images by Pillow's mode. groups: their number. duplicates, conflicting, across:
    see `_same_pixels`. near_duplicates: test images whose perceptual hash equals that of a training
    image, with other pixels. bad, ignored: what was left out.
    """
    part_of = {int(row): part for part in PARTS for row in plan.parts[part]}
    sizes = np.array(images.sizes)
    near = _near(plan, images)
    return {
        "counts": {
            name: {part: int((plan.labels[plan.parts[part]] == number).sum()) for part in PARTS}
            for number, name in enumerate(plan.classes)
        },
        "unlabelled": len(plan.parts["unlabelled"]),
        "sizes": {
            side: [int(value) for value in (np.min(of), np.median(of), np.max(of))]
            for side, of in zip(("width", "height"), sizes.T, strict=True)
        },
        "modes": dict(Counter(images.modes)),
        "groups": len(set(images.groups) - {None}),
        **_same_pixels(part_of, images.hashes, plan.labels, plan.names.__getitem__),
        "near_duplicates": {"images": len(near), "named": near[:NAMED]},
        "bad": {"images": len(issues), "named": [list(issue) for issue in issues[:NAMED]]},
        "ignored": dict(ignored),
    }


def _near(plan: Plan, images: Inventory) -> list[list[str]]:
    """Pairs of a test image and a training image that look alike but are not the same."""
    first: dict[int, int] = {}
    for row in plan.parts["train"]:
        first.setdefault(int(images.perceptual_hashes[row]), int(row))
    pairs = []
    for row in plan.parts["test"]:
        other = first.get(int(images.perceptual_hashes[row]))
        if other is not None and images.hashes[other] != images.hashes[row]:
            pairs.append([plan.names[row], plan.names[other]])
    return pairs


def _same_pixels(
    part_of: Mapping[int, str],
    hashes: Sequence[bytes],
    labels: Sequence[Any] | np.ndarray,
    name: Callable[[int], str],
) -> dict[str, Any]:
    """The sets of images with the same pixels.

    Args:
        part_of: of each image that has a label, by its row.
        hashes: of the pixels of all rows.
        labels: of all rows.
        name: of a row's image.

    Returns:
        duplicates: all such sets. conflicting: those with different labels. across: those in
        several parts. Of each their number, that of the images, and the names of some.
    """
    same = defaultdict(list)
    for row in part_of:
        same[hashes[row]].append(row)
    sets = [sorted(rows) for rows in same.values() if len(rows) > 1]

    def told(chosen: list[list[int]]) -> dict[str, Any]:
        named = [[name(row) for row in rows[:NAMED_OF_A_SET]] for rows in chosen[:NAMED]]
        return {"sets": len(chosen), "images": sum(map(len, chosen)), "named": named}

    return {
        "duplicates": told(sets),
        "conflicting": told([rows for rows in sets if len({int(labels[row]) for row in rows}) > 1]),
        "across": told([rows for rows in sets if len({part_of[row] for row in rows}) > 1]),
    }


def of_split(split: Split) -> dict[str, Any]:
    """The data sheet of a split: what its stage wrote about the user's own images.

    For IDX files, which have none, what the arrays show: duplicates, conflicting, across. They are
    read once, slice by slice, so that memory is bounded whatever their size.

    Raises:
        UserError: the file is missing or damaged.
    """
    if split.is_user_data():
        return _read(split)
    hashes: list[bytes] = []
    parts: list[str] = []
    names: list[str] = []
    for part in PARTS:
        images = getattr(split, part).images
        for start in range(0, len(images), ROWS):
            rows = np.asarray(images[start : start + ROWS])
            hashes += [hashlib.blake2b(image, digest_size=16).digest() for image in rows]
        parts += [part] * len(images)
        names += [f"{part} image {index}" for index in range(len(images))]
    labels = np.concatenate([getattr(split, part).labels for part in PARTS])
    return _same_pixels(dict(enumerate(parts)), hashes, labels, names.__getitem__)


def _read(split: Split) -> dict[str, Any]:
    path, hint = split.folder / FILE, "run `dvc repro --force split`"
    found = readers.read_mapping(path, hint, LARGEST)
    for key, form in FORM.items():
        if not _fits(found.get(key), form):
            raise UserError(f"{path} is damaged ({key}): {hint}")
    return found


def _fits(value: Any, form: Any) -> bool:
    """Whether a value has a form as those in `FORM`."""
    if isinstance(form, type):
        return type(value) is form
    if not isinstance(value, type(form)):
        return False
    if isinstance(form, list):
        return all(_fits(part, form[0]) for part in value)
    if str in form:
        return all(_fits(part, form[str]) for part in value.values())
    return all(_fits(value.get(key), part) for key, part in form.items())


def doubts(found: Mapping[str, Any]) -> list[str]:
    """What in the data makes scores doubtful, each a sentence without a full stop."""
    lines = []
    for key, text in (
        ("conflicting", "images with the same pixels have different labels"),
        ("across", "images with the same pixels are in several parts"),
    ):
        if found[key]["sets"]:
            example = ", ".join(found[key]["named"][0])
            lines.append(f"{found[key]['images']:,} {text}, such as {example}")
    return lines


def warnings(found: Mapping[str, Any]) -> list[str]:
    """The warnings of the stage `split` about the user's own images, a line each."""
    lines = [f"warning: {doubt}" for doubt in doubts(found)]
    if found["ignored"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in found["ignored"].items())
        lines.append(f"left out, not image files by their suffix: {kinds}")
    return lines
