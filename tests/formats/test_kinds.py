"""Reading each kind of data: what counts as what, and each bad input by its name."""

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Compose
from PIL import Image

from image_classification.core.errors import UserError
from image_classification.formats.decode import inspect
from image_classification.formats.kinds import READERS
from image_classification.formats.listing import visible_files, write_listing
from image_classification.formats.records import Reading

Read = Callable[..., Reading]


@pytest.fixture
def read(compose: Compose) -> Read:
    def read_kind(kind: str, path: Path, *overrides: str) -> Reading:
        return READERS[kind](compose(f"data={kind}", f"data.path={path}", *overrides).data)

    return read_kind


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def labels(reading: Reading) -> dict[str, Any]:
    return {record.name: (record.label, record.part) for record in reading.records}


def test_a_folder_of_classes_and_one_of_parts(tmp_path: Path, read: Read) -> None:
    for name in ("cat/a.png", "cat/deep/b.PNG", "dog/train.png", ".hidden/c.png", "dog/.d.png"):
        picture(tmp_path / "classes" / name)
    for name in ("Train/cat/a.png", "Train/dog/a.png", "valid/cat/b.png", "testing/dog/c.png"):
        picture(tmp_path / "parts" / name)

    assert labels(read("folder", tmp_path / "classes")) == {
        "cat/a.png": ("cat", None),
        "cat/deep/b.PNG": ("cat", None),
        "dog/train.png": ("dog", None),  # a file's name is no part
    }
    assert labels(read("folder", tmp_path / "parts")) == {
        "Train/cat/a.png": ("cat", "train"),
        "Train/dog/a.png": ("dog", "train"),
        "valid/cat/b.png": ("cat", "validation"),
        "testing/dog/c.png": ("dog", "test"),
    }


def test_images_of_every_documented_kind_count(tmp_path: Path, read: Read) -> None:
    names = ["a.png", "b.JPG", "c.jpeg", "d.bmp", "e.gif", "f.tif", "g.tiff", "h.webp"]
    for name in names:
        picture(tmp_path / "cat" / name)

    reading = read("folder", tmp_path)

    assert {record.name for record in reading.records} == {f"cat/{name}" for name in names}
    for record in reading.records:
        assert isinstance(record.image, Path)
        found = inspect(record.image)
        assert (found.width, found.height) == (4, 4)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *(("training", "train"), ("validation", "validation"), ("valid", "validation")),
        *(("val", "validation"), ("dev", "validation"), ("test", "test"), ("testing", "test")),
        *(("eval", "test"), ("evaluation", "test")),
    ],
)
def test_a_part_has_any_of_its_documented_names(
    tmp_path: Path, read: Read, name: str, part: str
) -> None:
    picture(tmp_path / name / "cat/a.png")
    picture(tmp_path / "train/cat/b.png")

    assert labels(read("folder", tmp_path)) == {
        f"{name}/cat/a.png": ("cat", part),
        "train/cat/b.png": ("cat", "train"),
    }


def test_classes_named_like_a_part_stay_classes_beside_others(tmp_path: Path, read: Read) -> None:
    for name in ("test/a.png", "training shoes/b.png"):
        picture(tmp_path / name)

    assert {label for label, _ in labels(read("folder", tmp_path)).values()} == {
        "test",
        "training shoes",
    }


def test_what_holds_no_image_leaves_the_parts_as_they_are(tmp_path: Path, read: Read) -> None:
    for name in ("train/cat/a.png", "train/dog/a.png", "test/cat/b.png"):
        picture(tmp_path / name)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text("<a/>")

    reading = read("folder", tmp_path)

    assert {record.label for record in reading.records} == {"cat", "dog"}
    assert {record.part for record in reading.records} == {"train", "test"}
    assert reading.ignored == {".xml": 1}


def test_images_beside_the_parts_are_refused(tmp_path: Path, read: Read) -> None:
    for name in ("train/cat/a.png", "test/cat/b.png", "extra/cat/c.png"):
        picture(tmp_path / name)

    with pytest.raises(
        UserError, match=r"holds test, train, and beside these .* images in extra: "
    ):
        read("folder", tmp_path)


def test_what_is_wrong_in_a_folder_is_named(tmp_path: Path, read: Read) -> None:
    for name in ("cat/a.png", "Cat/b.png", "loose.png", "dog/c.png"):
        picture(tmp_path / name)
    (tmp_path / "dog" / "notes.txt").write_text("x")

    reading = read("folder", tmp_path)

    assert dict(reading.problems) == {
        "loose.png": "is not in a class folder",
        "cat": "differs from Cat only by case",
        "Cat": "differs from cat only by case",
    }
    assert reading.ignored == {".txt": 1}


def write_table(path: Path, rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def test_a_manifest_as_csv_and_as_json_lines(tmp_path: Path, read: Read) -> None:
    rows: list[list[object]] = [["path", "label", "split", "group", "other"]]
    rows += [["a.png", "cat", "training", "g1", "x"], ["in/b.png", "dog", "", "", "y"]]
    for kind in ("csv", "jsonl"):
        folder = tmp_path / kind
        picture(folder / "a.png")
        picture(folder / "in/b.png")
        if kind == "csv":
            write_table(folder / "labels.csv", rows)
        else:
            objects = [dict(zip(map(str, rows[0]), row, strict=True)) for row in rows[1:]]
            (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, objects)))

        reading = read("table", folder)

        assert labels(reading) == {"a.png": ("cat", "train"), "in/b.png": ("dog", None)}
        assert [record.group for record in reading.records] == ["g1", None]


def test_what_is_wrong_in_a_manifest_is_named(tmp_path: Path, read: Read) -> None:
    picture(tmp_path / "inner/a.png")
    picture(tmp_path / "outside.png")
    rows: list[list[object]] = [["file_name", "label", "split"], ["a.png", "cat", "train"]]
    rows += [["gone.png", "cat", ""], ["a.png", "cat", ""], ["../outside.png", "cat", ""]]
    rows += [["b.png", "", ""], ["", "cat", ""], ["c.png", "cat", "half"], ["d.png", "c", "", "5"]]
    write_table(tmp_path / "inner/labels.csv", rows)

    problems = read("table", tmp_path / "inner").problems

    assert [(name, cause.partition(" (")[0]) for name, cause in problems] == [
        ("gone.png", "is missing"),
        ("a.png", "is listed twice"),
        ("../outside.png", f"lies outside of {tmp_path / 'inner'}"),
        ("b.png", "has no label"),
        ("labels.csv, line 7", "names no file under file_name or path or image"),
        ("c.png", "unknown split 'half'"),
        ("labels.csv, line 9", "has more values than there are columns"),
    ]


def test_a_manifest_needs_its_columns_and_its_folder(tmp_path: Path, read: Read) -> None:
    picture(tmp_path / "a.png")
    wrong: list[list[object]] = [["file_name", "class"], ["a.png", "cat"]]
    write_table(tmp_path / "labels.csv", wrong)
    with pytest.raises(UserError, match=r"needs one of the columns .* it has file_name, class"):
        read("table", tmp_path)

    write_table(tmp_path / "labels.csv", [["file_name", "label"], ["a.png", "cat"]])
    with pytest.raises(UserError, match=f"set data.path to {tmp_path} and data.table to labels"):
        read("table", tmp_path / "labels.csv")

    write_table(tmp_path / "more.csv", [["file_name", "label"]])
    with pytest.raises(UserError, match=r"name one with data\.table"):
        read("table", tmp_path)
    assert len(read("table", tmp_path, "data.table=labels.csv").records) == 1


@pytest.mark.parametrize("header", [True, False])
def test_tables_of_pixels(tmp_path: Path, read: Read, header: bool) -> None:
    names: list[object] = ["label", *(f"pixel{i}" for i in range(16))]
    head: list[list[object]] = [names] if header else []
    write_table(tmp_path / "train.csv", [*head, [7, *range(16)], [2, *range(16, 32)]])
    write_table(tmp_path / "test.csv", [*(line[1:] for line in head), [*range(32, 48)]])

    reading = read("table", tmp_path)

    found = {record.label: record for record in reading.records}
    assert set(found) == {"7", "2", None}
    assert np.array_equal(np.asarray(found["7"].image), np.arange(16).reshape(4, 4, 1))
    assert np.array_equal(np.asarray(found[None].image), np.arange(32, 48).reshape(4, 4, 1))
    assert (found["7"].part, found[None].part) == ("train", None)


def test_a_column_called_label_is_the_label_wherever_it_stands(tmp_path: Path, read: Read) -> None:
    head: list[object] = [*(f"pixel{i}" for i in range(16)), "label"]
    write_table(tmp_path / "x.csv", [head, [*range(16), "cat"], [*range(16, 32), 300]])

    found = {record.label: record for record in read("table", tmp_path / "x.csv").records}

    assert set(found) == {"cat", "300"}
    assert np.array_equal(np.asarray(found["cat"].image), np.arange(16).reshape(4, 4, 1))
    assert np.array_equal(np.asarray(found["300"].image), np.arange(16, 32).reshape(4, 4, 1))


def test_a_label_under_another_name_after_the_pixels_is_refused(tmp_path: Path, read: Read) -> None:
    head: list[object] = [*(f"pixel{i}" for i in range(16)), "class"]
    write_table(tmp_path / "x.csv", [head, [*range(16), 7]])

    with pytest.raises(UserError, match=r"has 17 columns, .* or one called `label`: fix it"):
        read("table", tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("value", "cause"), [(256, "256"), ("nan", "nan"), ("", "missing"), (-1, "-1"), (0.5, "0.5")]
)
def test_a_pixel_that_is_none_is_named(
    tmp_path: Path, read: Read, value: object, cause: str
) -> None:
    rows: list[list[object]] = [[0, *range(16)], [1, *range(16)]]
    rows[1][4] = value
    write_table(tmp_path / "x.csv", [["label", *(f"pixel{i}" for i in range(16))], *rows])

    reading = read("table", tmp_path / "x.csv")

    assert [record.label for record in reading.records] == ["0"]
    assert reading.problems == [("x.csv:3", f"pixel 3 is {cause}, not from 0 to 255")]


@pytest.mark.parametrize("columns", [18, 15 + 4])
def test_columns_that_make_no_image_are_refused(tmp_path: Path, read: Read, columns: int) -> None:
    head: list[object] = ["label", *(f"pixel{i}" for i in range(columns - 1))]
    write_table(tmp_path / "x.csv", [head])

    with pytest.raises(UserError, match=f"has {columns} columns"):
        read("table", tmp_path / "x.csv")


def test_a_row_with_a_surplus_pixel_is_refused(tmp_path: Path, read: Read) -> None:
    head: list[object] = ["label", *(f"pixel{i}" for i in range(16))]
    rows: list[list[object]] = [head, [1, *range(16)], [1, *range(17)]]
    write_table(tmp_path / "x.csv", rows)

    with pytest.raises(UserError, match="line 3"):
        read("table", tmp_path / "x.csv")


def test_an_archive_in_the_form_of_medmnist(tmp_path: Path, read: Read) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "x.npz",
        train_images=images,
        train_labels=np.array([[0], [1], [1], [2]]),
        val_images=images[:1],
        val_labels=np.array([[2]]),
    )

    reading = read("npz", tmp_path / "x.npz")
    named = read("npz", tmp_path / "x.npz", "data.classes=[a,b,c]")

    assert [record.label for record in reading.records] == ["0", "1", "1", "2", "2"]
    assert [record.part for record in reading.records] == [*["train"] * 4, "validation"]
    assert [record.label for record in named.records] == ["a", "b", "b", "c", "c"]
    assert np.array_equal(np.asarray(reading.records[3].image), images[3])
    assert [record.name for record in reading.records[3:]] == [
        "x.npz:train_images[3]",
        "x.npz:val_images[0]",
    ]


def damaged_data(archive: bytearray, at: int) -> None:
    archive[at + 30] = 0xFF  # where the deflated data begins


def other_compression(archive: bytearray, at: int) -> None:
    archive[archive.index(b"PK\1\2") + 10] = 99


def encrypted(archive: bytearray, at: int) -> None:
    archive[archive.index(b"PK\1\2") + 8] |= 1


@pytest.mark.parametrize("damage", [damaged_data, other_compression, encrypted])
def test_a_damaged_archive_is_named(
    tmp_path: Path, read: Read, damage: Callable[[bytearray, int], None]
) -> None:
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((9, 5, 5), np.uint8))
    contents = bytearray((tmp_path / "x.npz").read_bytes())
    damage(contents, contents.index(b"images.npy"))
    (tmp_path / "x.npz").write_bytes(contents)

    with pytest.raises(UserError, match=r"x\.npz: .*: fix it, or set another data\.path"):
        read("npz", tmp_path / "x.npz")


def test_an_archive_that_declares_more_than_memory_holds_is_named(
    tmp_path: Path, read: Read
) -> None:
    header = io.BytesIO()
    declared = {"descr": "|u1", "fortran_order": False, "shape": (2**60,)}
    np.lib.format.write_array_header_1_0(header, declared)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())

    with pytest.raises(UserError, match=r"x\.npz: .*: fix it, or set another data\.path"):
        read("npz", tmp_path / "x.npz")


def test_a_pickle_in_an_archive_is_not_opened(tmp_path: Path, read: Read) -> None:
    np.savez(tmp_path / "x.npz", images=np.array([{}], object), labels=np.array([0]))

    with pytest.raises(UserError, match="allow_pickle"):
        read("npz", tmp_path / "x.npz")


def test_cifars_binary_form(tmp_path: Path, read: Read) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    planes = image.transpose(2, 0, 1).tobytes()
    (tmp_path / "data_batch_1.bin").write_bytes(bytes([1]) + planes + bytes([0]) + planes)
    (tmp_path / "test_batch.bin").write_bytes(bytes([1]) + planes)
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")

    reading = read("cifar", tmp_path)

    found = [(record.label, record.part) for record in reading.records]
    assert found == [("dog", "train"), ("cat", "train"), ("dog", "test")]
    assert all(np.array_equal(np.asarray(record.image), image) for record in reading.records)
    (tmp_path / "test_batch.bin").write_bytes(planes)
    with pytest.raises(UserError, match="not a whole number of images"):
        read("cifar", tmp_path)


MINE = """
import numpy as np


class Images:
    def __iter__(self):
        yield "a.png", "cat"
        yield np.zeros((4, 4), np.uint8), "dog", "val", "g"
        yield "gone.png", "cat"
        yield "a.png", None
        yield 7
"""


def test_a_python_file_of_ones_own(tmp_path: Path, read: Read) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "mine.py").write_text(MINE)

    reading = read("python", tmp_path / "mine.py")

    found = [(record.name, record.label, record.part, record.group) for record in reading.records]
    assert found == [("a.png", "cat", None, None), ("image 1", "dog", "validation", "g")]
    assert [name for name, _ in reading.problems] == ["gone.png", "a.png", "image 4"]
    (tmp_path / "mine.py").write_text(MINE.replace("yield 7", 'raise ValueError("no")'))
    with pytest.raises(UserError, match=r"mine\.py, line 11: ValueError: no"):
        read("python", tmp_path / "mine.py")


def test_a_linked_folder_is_looked_into_and_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    for name in ("far/b.png", "root/a.png", "root/other/c.png"):
        picture(tmp_path / name)
    root = tmp_path / "root"
    (root / "linked").symlink_to(tmp_path / "far")
    found = [path.relative_to(root).as_posix() for path in visible_files(root)]
    assert found == ["a.png", "linked/b.png", "other/c.png"]

    for link, target in ((root / "loop", tmp_path), (tmp_path / "far" / "back", root / "other")):
        link.symlink_to(target)
        if target == root / "other":  # which leads on to where the link is
            (target / "on").symlink_to(tmp_path / "far")
        with pytest.raises(UserError, match="leads back to a folder that it is in: remove"):
            list(visible_files(root))
        link.unlink()


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "cat/a.png")
    scandir = os.scandir

    def denied(path: str) -> Any:
        if Path(path).name == "cat":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match="cat can't be read: Permission denied: fix it"):
        list(visible_files(tmp_path))


def test_a_linked_folder_in_ones_own_data_is_refused_since_dvc_overlooks_it(
    tmp_path: Path, compose: Compose
) -> None:
    for name in ("far/b.png", "root/cat/a.png"):
        picture(tmp_path / name)
    link = tmp_path / "root" / "dog"
    link.symlink_to(tmp_path / "far")
    data = compose("data=folder", f"data.path={tmp_path / 'root'}").data

    with pytest.raises(UserError, match=f"{link} is a link to a folder, in which DVC would see no"):
        write_listing(data, tmp_path / "files.csv")
    link.unlink()
    assert write_listing(data, tmp_path / "files.csv") == 1
