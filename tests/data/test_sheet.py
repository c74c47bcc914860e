"""What is found in a data set that has no files to look at, and of a sheet that is damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from image_classification.core.errors import UserError
from image_classification.data import arrays, sheet
from image_classification.data.arrays import Examples
from image_classification.data.split_plan import Inventory, Plan

NONE = {"sets": 0, "images": 0, "named": []}
WHOLE: dict[str, Any] = {
    "counts": {"a": {"train": 1}},
    "unlabelled": 0,
    "sizes": {"width": [1, 2, 3], "height": [1, 2, 3]},
    "modes": {"L": 1},
    "groups": 0,
    "duplicates": NONE,
    "conflicting": NONE,
    "across": NONE,
    "near_duplicates": {"images": 0, "named": []},
    "bad": {"images": 0, "named": []},
    "ignored": {},
}


def examples(first: int, count: int) -> Examples:
    images = np.zeros((count, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = first + np.arange(count)
    return Examples(images, np.zeros(count, np.uint8))


@pytest.mark.parametrize("large", [True, False])
def test_the_same_pixels_are_found_in_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    parts = {"train": examples(0, 10), "validation": examples(50, 4), "test": examples(99, 4)}
    parts["test"].images[2] = parts["train"].images[7]
    parts["train"].images[3] = parts["train"].images[1]
    parts["train"].labels[3] = 1
    arrays.save_split(tmp_path, parts, {"classes": ["a", "b"]})
    monkeypatch.setattr(sheet, "ROWS", 3)
    monkeypatch.setattr(arrays, "LARGE", 1 if large else 2**20)

    found = sheet.of_split(arrays.load_split(tmp_path))

    across, conflicting = ["train image 7", "test image 2"], ["train image 1", "train image 3"]
    assert found == {
        "duplicates": {"sets": 2, "images": 4, "named": [conflicting, across]},
        "conflicting": {"sets": 1, "images": 2, "named": [conflicting]},
        "across": {"sets": 1, "images": 2, "named": [across]},
    }


def test_an_image_to_predict_is_no_conflict() -> None:
    names = ["train.png", "validation.png", "test.png", "unlabelled.png"]
    rows = {name.partition(".")[0]: np.array([row]) for row, name in enumerate(names)}
    plan = Plan(["a"], np.array([0, 0, 0, -1]), np.arange(4), names, rows)
    hashes = [b"0", b"1", b"2", b"0"]  # the last as the first
    nothing = [None] * 4
    inventory = Inventory(
        names,
        nothing,
        nothing,
        nothing,
        hashes,
        np.arange(4, dtype=np.uint64),
        [(1, 1)] * 4,
        "LLLL",
    )

    found = sheet.of_user_data(plan, inventory, [], {})

    assert found["duplicates"] == found["conflicting"] == found["across"] == NONE
    assert sheet.doubts(found) == []


def opened(folder: Path, contents: object) -> dict[str, Any]:
    parts = {"train": examples(0, 3), "validation": examples(0, 3), "test": examples(0, 3)}
    arrays.save_split(folder / "split", parts, {"classes": ["a"], "kind": "folder"})
    (folder / "split/sheet.json").write_text(json.dumps(contents))
    return sheet.of_split(arrays.load_split(folder / "split"))


def test_a_sheet_reads_as_it_was_written_also_with_long_names(tmp_path: Path) -> None:
    named = [["x" * 1000] * 10] * 100
    long = WHOLE | {"across": {"sets": 100, "images": 1000, "named": named}}

    assert opened(tmp_path, long) == long


@pytest.mark.parametrize("key", list(WHOLE))
@pytest.mark.parametrize("value", [None, True, "1", [1], {"sets": "1"}, {"x": [None]}])
def test_a_damaged_sheet_is_named(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"sheet\.json is damaged \({key}\): run `dvc repro"):
        opened(tmp_path, WHOLE | {key: value})
