"""The data sheet: what people should know of the images before they trust a score."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from image_classification.data.own_split import PARTS, Inventory, Plan

NAMED = 100  # at most, of each kind of finding


def sheet(
    plan: Plan,
    images: Inventory,
    issues: Sequence[tuple[str, str]],
    ignored: Mapping[str, int],
) -> dict[str, Any]:
    """What people should know of the data: a JSON object.

    counts: by class and part. sizes: the smallest, the median and the largest width and height.
    modes: number of images by Pillow's mode. groups: their number. duplicates: sets of images with
    the same pixels. conflicting: those with different labels. across: those in several parts.
    near_duplicates: test images whose outline equals that of a training image, with other pixels.
    bad, ignored: what was left out.
    """
    used = {int(row): part for part, rows in plan.parts.items() for row in rows}
    sizes = np.array(images.sizes)
    same = defaultdict(list)
    for row in used:
        same[images.hashes[row]].append(row)
    sets = [sorted(rows) for rows in same.values() if len(rows) > 1]
    conflicting = [rows for rows in sets if len({int(plan.labels[row]) for row in rows}) > 1]
    across = [rows for rows in sets if len({used[row] for row in rows}) > 1]
    near = _near(plan, images)

    def named(groups: Sequence[Sequence[int]]) -> dict[str, Any]:
        shown = [[plan.names[row] for row in rows[:10]] for rows in groups[:NAMED]]
        return {"sets": len(groups), "images": sum(map(len, groups)), "named": shown}

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
        "duplicates": named(sets),
        "conflicting": named(conflicting),
        "across": named(across),
        "near_duplicates": {"images": len(near), "named": near[:NAMED]},
        "bad": {"images": len(issues), "named": [list(issue) for issue in issues[:NAMED]]},
        "ignored": dict(ignored),
    }


def _near(plan: Plan, images: Inventory) -> list[list[str]]:
    """Pairs of a test image and a training image that look alike but are not the same."""
    first: dict[int, int] = {}
    for row in plan.parts["train"]:
        first.setdefault(int(images.outlines[row]), int(row))
    pairs = []
    for row in plan.parts["test"]:
        other = first.get(int(images.outlines[row]))
        if other is not None and images.hashes[other] != images.hashes[row]:
            pairs.append([plan.names[row], plan.names[other]])
    return pairs


def warnings(sheet: Mapping[str, Any]) -> list[str]:
    """What in the data makes scores doubtful, a line each."""
    lines = []
    for key, text in (
        ("conflicting", "images with the same pixels have different labels"),
        ("across", "images are in several parts with the same pixels"),
    ):
        if sheet[key]["sets"]:
            example = ", ".join(sheet[key]["named"][0])
            lines.append(f"warning: {sheet[key]['images']} {text}, such as {example}")
    if sheet["ignored"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sheet["ignored"].items())
        lines.append(f"left out, no images by their names: {kinds}")
    return lines
