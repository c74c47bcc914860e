"""What people read of a data set: facts, pictures, MLflow's note."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Compose
from numpy.typing import NDArray
from test_gallery import CLASSES, DATA, FOUND, NONE, TWO_MODELS, a_comparison, page

from image_classification.comparison import leaderboard
from image_classification.data import arrays
from image_classification.data.arrays import Examples, Split
from image_classification.reporting import data_figures, data_gallery, data_sheet, report
from image_classification.reporting.data_sheet import DataSheet
from image_classification.reporting.gallery import Section
from image_classification.tracking import mlflow_pages


def known(classes: list[str], counts: list[int], **found: Any) -> DataSheet:
    table = np.array([[count, 1, 1] for count in counts])
    return replace(DATA, classes=classes, counts=table, found=FOUND | found)


def a_split(folder: Path, examples: Examples, names: list[str] | None = None) -> Split:
    parts = dict.fromkeys(["train", "validation", "test"], examples)
    arrays.save_split(folder, parts, {"classes": CLASSES, "kind": "folder"})
    for part in parts:
        lines = [json.dumps(name) + "\n" for name in names or []]
        (folder / f"{part}_names.jsonl").write_text("".join(lines))
    return arrays.load_split(folder)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (
            [5, 40, 10],
            "The largest class, 1, has 42 images, 6.0 times as many as the smallest, 0, ",
        ),
        ([5, 5, 5], "Each class has 7 images."),
        ([5, 6, -2], "The largest class, 1, has 8 images, the smallest, 2, none."),
    ],
)
def test_the_imbalance_is_told(counts: list[int], said: str) -> None:
    assert known(["0", "1", "2"], counts).imbalance().startswith(said)


def test_of_many_classes_the_largest_and_the_smallest_are_shown() -> None:
    sizes = np.random.default_rng(0).permutation(100)
    many = known([str(size) for size in sizes], sizes.tolist())

    shown = [int(many.classes[number]) for number in many.shown()]
    assert shown == [*range(99, 89, -1), *range(9, -1, -1)]
    assert many.shown_name() == "the 10 largest and the 10 smallest of 100 classes"
    (curves,) = data_figures.class_sizes(many.counts, many.classes).axes
    assert curves.get_xlim() == (1, 100)
    few = known(CLASSES, list(range(10)))
    assert few.shown() == list(range(10))
    (bars,) = data_figures.class_sizes(few.counts, few.classes).axes
    assert [text.get_text() for text in bars.get_yticklabels()] == CLASSES


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.folds=5", "Each run divides training and validation anew, by folds; the numbers"),
        ("data.split_per_seed=true", "Each run divides training and validation anew; the numbers"),
        ("data.split_per_seed=false", None),
    ],
)
def test_the_numbers_say_of_which_split_they_are(
    tmp_path: Path, compose: Compose, override: str, said: str | None
) -> None:
    text = page(TWO_MODELS, [], tmp_path, lambda: compose(override))

    assert ("divides training and validation anew" in text) == (said is not None)
    assert said is None or said in text


def test_findings_beyond_the_first_are_counted() -> None:
    found = {"sets": 35, "images": 70, "named": [[f"{n}a", f"{n}b"] for n in range(35)]}

    (listing,) = known(CLASSES, [1] * 10, duplicates=found).listings()

    assert listing.caption() == "Same pixels: 20 of 35, by name"
    assert [row[0] for row in listing.rows] == [f"{n}a, {n}b" for n in range(20)]


def drawn(sheet: DataSheet, split: Split, folder: Path) -> dict[str, Section]:
    """Draw all pictures; their sections by their names."""
    pictures = {}
    for picture, figure in data_gallery.draw(sheet, split):
        figure.savefig(folder / "picture.png", dpi=20)
        pictures[picture.name] = picture.section
    return pictures


def test_mean_and_examples_are_of_the_class_and_near_duplicates_stand_in_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.arange(600, dtype=np.uint8) % 3
    images = np.random.default_rng(0).integers(0, 80, (600, 6, 5, 3), dtype=np.uint8)
    images += 80 * labels[:, None, None, None]
    monkeypatch.setattr(arrays, "LARGE", 1)  # as for data larger than memory
    split = a_split(tmp_path / "split", Examples(images, labels), [f"{n}.png" for n in range(600)])
    read: list[int] = []
    whole = arrays.StoredImages.__getitem__

    def counted(stored: arrays.StoredImages, index: Any) -> NDArray[np.uint8]:
        rows = whole(stored, index)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(arrays.StoredImages, "__getitem__", counted)
    shown: dict[str, Any] = {}
    figure_of, pairs_of = data_figures.class_examples, data_figures.pairs

    def class_examples(*given: Any) -> Any:
        shown["classes"], shown["means"], shown["examples"], _ = given
        return figure_of(*given)

    def pairs(*given: Any) -> Any:
        shown["tests"], shown["trainings"], _ = given
        return pairs_of(*given)

    monkeypatch.setattr(data_figures, "class_examples", class_examples)
    monkeypatch.setattr(data_figures, "pairs", pairs)
    near = {"images": 2, "named": [["7.png", "9.png"], ["8.png", "300.png"]]}
    sheet = replace(
        known(["$a", "b$", "c", "none"], [200, 200, 200, 0], near_duplicates=near), counts=COUNTS
    )

    pictures = drawn(sheet, split, tmp_path)

    assert pictures == {
        "class_sizes": "data",
        "class_examples": "data",
        "near_duplicates": "near_duplicates",
    }
    assert shown["classes"] == ["$a", "b$", "c"]  # the class without images has no row
    for number in range(3):
        of_class = images[labels == number]
        assert np.array_equal(shown["means"][number], of_class.mean(axis=0).round())
        assert len(shown["examples"][number]) == data_gallery.EXAMPLES
        for example in shown["examples"][number]:
            assert (of_class == example).all(axis=(1, 2, 3)).any()
    assert np.array_equal(shown["tests"], images[[7, 8]])
    assert np.array_equal(shown["trainings"], images[[9, 300]])
    assert max(read) <= data_gallery.ROWS  # at once
    monkeypatch.setattr(data_gallery, "AVERAGED", 10)
    read.clear()
    drawn(sheet, split, tmp_path)
    assert sum(read) == 3 * (10 + data_gallery.EXAMPLES) + 2 * 2


COUNTS = np.array([[200, 1, 1], [200, 1, 1], [200, 1, 1], [0, 0, 0]])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_channels_are_drawn(tmp_path: Path, channels: int) -> None:
    images = np.full((30, 4, 9, channels), 7, np.uint8)
    split = a_split(tmp_path / "split", Examples(images, np.arange(30, dtype=np.uint8) % 10))

    assert set(drawn(known(CLASSES, [3] * 10), split, tmp_path)) == {
        "class_sizes",
        "class_examples",
    }


HOSTILE = [
    f"| <script>{number} [x](run:{'0' * 32}) (runs:) (compare:{'1' * 32},{'2' * 32}) `*" * 3
    for number in range(1000)
]


def test_the_note_holds_the_data_of_a_thousand_classes_whatever_their_names() -> None:
    doubt = {"sets": 100, "images": 1000, "named": [HOSTILE[:10]] * 100}
    sheet = known(HOSTILE, list(range(1, 1001)), across=doubt)
    plain = report.comparison_note(TWO_MODELS, "a" * 32, DATA)
    note = report.comparison_note(TWO_MODELS, "a" * 32, sheet)

    assert len(note) <= report.LONGEST_NOTE
    assert "images of 1,000 classes" in note
    assert mlflow_pages.keys_in(note) == mlflow_pages.keys_in(plain)  # those of runs alone
    assert note.count("(runs:)") == plain.count("(runs:)")
    assert mlflow_pages.compared_in(note) == mlflow_pages.compared_in(plain)
    assert "<script" not in note
    _, _, table = note.partition("## The data")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {5, 3}


def test_links_make_room_for_the_data() -> None:
    """Keys become longer addresses: the first would fit as it is written, but not in MLflow."""
    results = [
        replace(result, training={**result.training, "run": f"{number:032x}"})
        for number, result in enumerate(a_comparison({"lm": [30] * 60, "cnn": [1] * 60}).results)
    ]
    entries = leaderboard.ranked(leaderboard.entry(result, {}) for result in results)
    comparison = replace(TWO_MODELS, entries=entries)
    few = replace(TWO_MODELS, entries=[*entries[:5], *entries[-5:]])

    for compared, linked in ((comparison, False), (few, True)):
        note = report.comparison_note(compared, "a" * 32, DATA)
        keys = dict.fromkeys(mlflow_pages.keys_in(note), "0" * 32)
        assert len(keys) == (11 if linked else 3)
        assert "## The data" in note
        assert len(mlflow_pages.Pages("9" * 19, keys).linked(note)) <= report.LONGEST_NOTE


def test_every_finding_has_its_place_in_facts_and_listings(tmp_path: Path) -> None:
    """A key of the file that no page shows would be found in vain."""
    split = a_split(tmp_path / "split", Examples(np.zeros((9, 4, 4, 1), np.uint8), LABELS))
    one = {"sets": 3, "images": 1234, "named": [["a", "b"]]}
    contents = {
        "counts": {},
        "unlabelled": 0,
        "sizes": {"width": [4, 40, 1400], "height": [5, 5, 5]},
        "modes": {"L": 5, "RGBX": 4},
        "groups": 17,
        "duplicates": one,
        "conflicting": NONE,
        "across": one,
        "near_duplicates": {"images": 1, "named": [["a", "b"]]},
        "bad": {"images": 1, "named": [["a", "empty"]]},
        "ignored": {".txt": 2},
    }
    (tmp_path / "split/sheet.json").write_text(json.dumps(contents))

    sheet = data_sheet.of_split(split)

    assert dict(sheet.facts()) == {
        "shape of each image": "4 x 4 x 1",
        "width of the files, pixels": "4 to 1,400, median 40",
        "height of the files, pixels": "5",
        "modes of the files": "grey (L): 5, RGBX: 4",
        "groups, each on one side": "17",
        "images with the same pixels": "1,234 in 3 sets",
        "of these with different labels": "none",
        "of these in several parts": "1,234 in 3 sets",
        "test images that look like a training image": "1",
        "bad files left out": "1",
        "files whose suffix is not an image's": ".txt: 2",
    }
    titles = [listing.title for listing in sheet.listings()]
    assert titles == [
        "Same pixels in several parts",
        "Same pixels",
        "Near-duplicates",
        "Bad files left out",
    ]


LABELS = np.arange(9, dtype=np.uint8)
