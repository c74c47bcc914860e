"""One's own images through the stages, each kind, and what the stage `split` refuses."""

import hashlib
import html
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Compose, Mirror, Project
from numpy.typing import NDArray
from PIL import Image

from image_classification.compare import compare
from image_classification.core import paths
from image_classification.core.config import Config
from image_classification.core.errors import UserError
from image_classification.data import arrays
from image_classification.data.splits import split_for_run
from image_classification.download import download
from image_classification.evaluate import evaluate
from image_classification.formats import bulk_decode, listing
from image_classification.formats.idx import read_idx
from image_classification.split import split
from image_classification.tracking import event_log
from image_classification.train import train

COLOURS = ("blue", "green", "red")
Split = Callable[..., arrays.Split]


def image(colour: int, seed: int, side: int = 8) -> NDArray[np.uint8]:
    """Noise that is brighter in one of three colours."""
    pixels = np.random.default_rng(seed).integers(0, 120, (side, side, 3), dtype=np.uint8)
    pixels[..., 2 - colour] += 120
    return pixels


def write_folder(root: Path, each: int = 12) -> Path:
    for number, name in enumerate(COLOURS):
        (root / name).mkdir(parents=True)
        for index in range(each):
            picture = Image.fromarray(image(number, 100 * number + index))
            picture.save(root / name / f"{index:02}.png")
    return root


def write_table(root: Path) -> Path:
    write_folder(root)
    lines = [f"{name}/{i:02}.png,{name},{i // 2}{name}" for name in COLOURS for i in range(12)]
    (root / "labels.csv").write_text("\n".join(["file_name,label,group", *lines]))
    return root


def write_pixels(root: Path) -> Path:
    rows = [[i % 3, *image(i % 3, i, 4)[..., 2 - i % 3].ravel()] for i in range(36)]
    for row in rows:
        row[1 + 5 * row[0] : 6 + 5 * row[0]] = [0] * 5  # in grey, the place tells the class
    root.mkdir()
    head = [f"pixel{number}" for number in range(16)]
    train = pd.DataFrame(rows, columns=["label", *head])
    train.to_csv(root / "train.csv", index=False)
    train[head][:5].to_csv(root / "test.csv", index=False)
    return root


def write_npz(root: Path) -> Path:
    numbers = np.arange(36) % 3
    images = np.stack([image(int(number), index) for index, number in enumerate(numbers)])
    np.savez(root.with_suffix(".npz"), images=images, labels=numbers)
    return root.with_suffix(".npz")


def write_cifar(root: Path) -> Path:
    root.mkdir()
    for name, count in (("data_batch_1", 36), ("test_batch", 9)):
        planes = [(i % 3, image(i % 3, i, 32).transpose(2, 0, 1).tobytes()) for i in range(count)]
        contents = b"".join(bytes([label]) + pixels for label, pixels in planes)
        (root / f"{name}.bin").write_bytes(contents)
    return root


def write_python(root: Path) -> Path:
    write_folder(root)
    file = root.with_suffix(".py")
    file.write_text(
        "from pathlib import Path\n\n\nclass Images:\n    def __iter__(self):\n"
        f"        for path in Path({str(root)!r}).rglob('*.png'):\n"
        "            yield path, path.parent.name\n"
    )
    return file


KINDS: dict[str, Callable[[Path], Path]] = {
    "folder": write_folder,
    "table": write_table,
    "pixels": write_pixels,
    "npz": write_npz,
    "cifar": write_cifar,
    "python": write_python,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """An empty project folder, in which stages can run."""
    shutil.copy(empty_store, tmp_path)
    shutil.copy(ROOT / paths.PIPELINE, tmp_path)
    shutil.copy(ROOT / paths.PARAMS, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(place: Path, compose: Compose) -> Split:
    """Runs `download` and `split` on somebody's data; the split on disk."""

    def make(kind: str, path: Path, *overrides: str) -> arrays.Split:
        config = compose(f"data={kind}", f"data.path={path}", *overrides)
        download(config)
        split(config)
        return arrays.load_split(paths.SPLIT)

    return make


def configured(compose: Compose, kind: str, path: Path, *more: str) -> Callable[[str], Config]:
    """The configuration of a stage by the folder that holds its outputs, for a single model."""
    model = "tiny_lm" if "model=tiny_lm" in more else "tiny_cnn"
    return lambda folder: compose(
        f"data={kind}",
        f"data.path={path}",
        f"models=[{model}]",
        "seeds=[0]",
        f"model={model}",
        "recipe.batch_size=8",
        "recipe.learning_rate=0.01",
        f"output_dir={folder}/{model}-0",
        *more,
    )


def table_rows(page: str, caption: str) -> list[list[str]]:
    """The cells of the table whose caption begins so."""
    _, found, rest = page.partition(f"<caption><span>{caption}")
    assert found, f"no table {caption}"
    rows = re.findall(r"<tr>(.*?)</tr>", rest[: rest.index("</table>")], re.DOTALL)
    return [[html.unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r)] for r in rows]


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_is_split(place: Path, made: Split, kind: str) -> None:
    found = made("table" if kind == "pixels" else kind, KINDS[kind](place / "mine"))

    named = kind in ("folder", "table", "python")
    assert tuple(found.classes) == (COLOURS if named else ("0", "1", "2"))
    shape = tuple(found.image_shape)
    assert shape == {"pixels": (4, 4, 1), "cifar": (32, 32, 3)}.get(kind, (8, 8, 3))
    parts = (found.train, found.validation, found.test)
    assert sum(len(part.labels) for part in parts) == (45 if kind == "cifar" else 36)
    for part in parts:
        for picture, label in zip(np.asarray(part.images), np.asarray(part.labels), strict=True):
            if kind != "pixels":  # the brightest colour is that of the class
                assert picture.mean(axis=(0, 1)).argmax() == 2 - label


@pytest.mark.parametrize(
    "kind",  # what comes after the split does not depend on it, but for images without labels
    [
        pytest.param(kind, marks=() if kind in ("folder", "pixels") else pytest.mark.slow)
        for kind in KINDS
    ],
)
def test_each_kind_goes_through_all_stages(place: Path, compose: Compose, kind: str) -> None:
    path = KINDS[kind](place / "mine")
    config = configured(compose, "table" if kind == "pixels" else kind, path, "recipe.epochs=3")

    download(config("x"))
    split(config("x"))
    trained = train(config("runs"))
    evaluation = evaluate(config("evaluations"))
    classes = {"folder": COLOURS, "table": COLOURS, "python": COLOURS}.get(kind, ("0", "1", "2"))
    assert trained.model.input_shape[1:3] == {"pixels": (4, 4), "cifar": (32, 32)}.get(kind, (8, 8))
    assert evaluation.probabilities.shape[1] == 3
    if kind == "pixels":  # its test.csv has no labels: predicted, and in no score
        predicted = pd.read_csv("evaluations/tiny_cnn-0/predictions/unlabelled.csv")
        submission = pd.read_csv("evaluations/tiny_cnn-0/predictions/submission.csv")
        assert list(submission) == ["ImageId", "Label"]
        assert list(submission["ImageId"]) == [1, 2, 3, 4, 5]
        assert list(submission["Label"]) == list(predicted["predicted"])
        images = np.load("data/split/unlabelled_images.npy")
        expected = trained.model.predict(images, verbose=0)
        assert np.allclose(predicted.filter(like="probability_"), expected, atol=1e-6)
    else:
        assert not Path("evaluations/tiny_cnn-0/predictions/submission.csv").exists()
    if kind in ("folder", "pixels"):  # comparing does not depend on the kind
        compared = compare(config("x"))
        assert compared.data == "mine"
        assert tuple(compared.classes) == classes
        text = (paths.REPORTS / "index.html").read_text()
        assert ("; 5 more without a label, to predict." in text) == (kind == "pixels")


@pytest.mark.slow
def test_the_report_and_mlflows_note_tell_what_is_in_the_data(
    place: Path, compose: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    root = place / "mine"
    names = ("blue", "a<b>&$|", "red")
    for start, (part, each) in enumerate((("train", 7), ("val", 3), ("test", 3))):
        for number, name in enumerate(names):
            (root / part / name).mkdir(parents=True)
            for index in range(each - number):
                pixels = image(number, 1000 * start + 100 * number + index)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    shutil.copy(root / "train/blue/0.png", root / "test/blue/again.png")
    shutil.copy(root / "train/red/1.png", root / "train/blue/wrong.png")
    Image.fromarray(image(0, 2) + 3).save(root / "test/blue/brighter.png")
    (root / "train/red/<i>empty.png").write_bytes(b"")
    (root / "train/red/notes.txt").write_text("none")
    config = configured(
        compose, "folder", root, "recipe.epochs=1", "data.bad_files=skip", "model=tiny_lm"
    )

    for stage, folder in (
        (download, "x"),
        (split, "x"),
        (train, "runs"),
        (evaluate, "evaluations"),
    ):
        stage(config(folder))
    compare(config("x"))

    raw = (paths.REPORTS / "index.html").read_text()
    assert not {"<b>&", "<i>"} & set(re.findall(r"<[bi]>&?", raw))
    text = html.unescape(raw)
    events = event_log.read(paths.REPORTS / paths.EVENTS_FILE)
    (note,) = (html.unescape(event["text"]) for event in events if event["type"] == "note")
    doubts = (
        "2 images with the same pixels have different labels, such as train/blue/wrong.png, "
        "train/red/1.png",
        "2 images with the same pixels are in several parts, such as test/blue/again.png, "
        "train/blue/0.png",
    )
    facts = {
        "shape of each image": "8 x 8 x 3",
        "width of the files, pixels": "8",
        "height of the files, pixels": "8",
        "modes of the files": "colour (RGB): 33",
        "groups, each on one side": "none",
        "images with the same pixels": "4 in 2 sets",
        "of these with different labels": "2 in 1 set",
        "of these in several parts": "2 in 1 set",
        "test images that look like a training image": "1",
        "bad files left out": "1",
        "files whose suffix is not an image's": ".txt: 1",
    }
    assert dict(table_rows(raw, "What was found in the files")) == facts
    for said in (
        "33 images of 3 classes: 19 training, 6 validation, 8 test. The largest class, blue, has "
        "16 images, 2.3 times as many as the smallest, red, with 7.",
        *doubts,
    ):
        assert said in text
        assert said in note
    for name, value in facts.items():
        assert f"| {name} | {value} |\n" in note
    counts = [["blue", 8, 3, 5], ["a<b>&$|", 6, 2, 2], ["red", 5, 1, 1]]
    _, *rows = table_rows(raw, "Number of images of each class")
    assert sorted(row[:-1] for row in rows) == sorted([str(cell) for cell in row] for row in counts)
    assert "| blue | 8 | 3 | 5 |\n" in note
    for title, row in {
        "Same pixels, different labels": ["1", "train/blue/wrong.png, train/red/1.png"],
        "Same pixels in several parts": ["1", "test/blue/again.png, train/blue/0.png"],
        "Near-duplicates": ["1", "test/blue/brighter.png", "train/blue/2.png"],
        "Bad files left out": ["1", "train/red/<i>empty.png", "empty"],
    }.items():
        assert table_rows(raw, f"{title}: 1 of 1")[1:] == [row]
    for alt in ("The mean image of each class", "Test images, each above a training image"):
        assert f'alt="{alt}' in text


def test_the_order_of_the_files_does_not_change_the_split(place: Path, made: Split) -> None:
    write_folder(place / "mine")
    before = made("folder", place / "mine")
    arrays_before = [np.asarray(part.images) for part in (before.train, before.test)]
    names = before.names("test")
    shutil.rmtree(paths.SPLIT)
    rows = sorted((f"{i:02}.png,{name}" for name in COLOURS for i in range(12)), reverse=True)
    lines = [f"{row.partition(',')[2]}/{row}" for row in rows]
    (place / "mine/labels.csv").write_text("\n".join(["file_name,label", *lines]))

    after = made("table", place / "mine")

    assert after.names("test") == names
    for one, other in zip(arrays_before, (after.train, after.test), strict=True):
        assert np.array_equal(one, other.images)


def test_a_table_of_pixels_gives_the_arrays_of_the_idx_files(
    place: Path, made: Split, compose: Compose, mirror: Mirror
) -> None:
    files = compose("data.validation_examples=100")
    paths.RAW.mkdir(parents=True)
    for file in files.data.files.values():
        contents = (mirror.folder / file.name).read_bytes()
        (paths.RAW / file.name).write_bytes(contents)
        file.sha256 = hashlib.sha256(contents).hexdigest()
    official = split(files)
    (place / "mine").mkdir()
    for part in ("train", "test"):
        images, labels = (
            read_idx(paths.RAW / files.data.files[f"{part}_{role}"].name)
            for role in ("images", "labels")
        )
        rows = np.column_stack([labels, images.reshape(len(labels), -1)])
        names = ["label", *(f"pixel{number}" for number in range(28 * 28))]
        pd.DataFrame(rows, columns=names).to_csv(place / f"mine/{part}.csv", index=False)

    settings = ("data.validation_examples=100", "data.stratify=false")
    own = made("table", place / "mine", *settings)

    assert own.classes == files.data.classes
    for name, examples in official.items():
        found = getattr(own, name)
        for one, other in zip(examples, found, strict=True):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)


def test_a_class_missing_in_one_part_shifts_no_label(place: Path, made: Split) -> None:
    write_folder(place / "all")
    for name in COLOURS:
        shutil.copytree(place / "all" / name, place / "mine/train" / name)
    shutil.copytree(place / "all/red", place / "mine/test/red")

    found = made("folder", place / "mine")

    assert found.classes == list(COLOURS)
    assert set(np.asarray(found.test.labels)) == {2}
    assert set(np.asarray(found.validation.labels)) == {0, 1, 2}


def test_all_that_is_bad_stops_the_split_and_is_named(
    place: Path, made: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder(place / "mine")
    (root / "red/empty.png").write_bytes(b"")
    (root / "blue/text.jpg").write_text("no picture")
    cut = root / "green/00.png"
    cut.write_bytes(cut.read_bytes()[:100])
    (root / "rare").mkdir()
    shutil.copy(root / "red/01.png", root / "rare/a.png")

    with pytest.raises(UserError, match=r"4 bad of 39 in .*mine.*data\.bad_files=skip"):
        made("folder", root)

    named = capsys.readouterr().err
    for name in (
        "red/empty.png: empty",
        "blue/text.jpg: not an image",
        "green/00.png: damaged",
        "rare: good images of this class: 1, needed: at least 3",
    ):
        assert name in named
    assert not (paths.SPLIT / "train_images.npy").exists()
    skipped = made("folder", root, "data.bad_files=skip")
    assert skipped.classes == list(COLOURS)
    assert sum(len(part.labels) for part in (skipped.train, skipped.validation, skipped.test)) == 35
    sheet = json.loads((paths.SPLIT / "sheet.json").read_text())
    assert sheet["bad"]["images"] == 4


def test_bad_files_are_named_also_where_too_little_is_left_to_split(
    place: Path, made: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine").mkdir()
    for index in range(3):
        Image.fromarray(image(0, index)).save(place / f"mine/{index}.png")

    with pytest.raises(
        UserError,
        match=r"mine holds 0 classes with enough good images, .* add images, or correct data\.path",
    ):
        made("folder", place / "mine")
    named = capsys.readouterr().err.splitlines()
    assert named == [f"{index}.png: is not in a class folder" for index in range(3)]


def test_names_with_line_breaks_stay_with_their_images(place: Path, made: Split) -> None:
    root = write_folder(place / "mine")
    for number, mark in enumerate(("\u2028", "\x85", "\r", "\n", '"')):
        (root / f"red/{number:02}.png").rename(root / f"red/a{mark}b.png")
    expected = {np.asarray(Image.open(path)).tobytes(): path for path in root.rglob("*.png")}

    found = made("folder", root)

    for part in ("train", "validation", "test"):
        images = getattr(found, part).images
        paths_of = [expected[np.asarray(one).tobytes()] for one in images]
        assert found.names(part) == [str(path.relative_to(root)) for path in paths_of]
    (paths.SPLIT / "test_names.jsonl").write_text("red/00.png\n")
    with pytest.raises(UserError, match=r"test_names\.jsonl is damaged: run"):
        found.names("test")


def test_another_table_is_another_split(place: Path, made: Split, compose: Compose) -> None:
    root = write_table(place / "mine")
    shutil.copy(root / "labels.csv", root / "other.csv")
    made("table", root, "data.table=labels.csv")
    settings = ("data=table", f"data.path={root}")

    split_for_run(paths.SPLIT, compose(*settings, "data.table=labels.csv").data, seed=0)
    with pytest.raises(UserError, match=r"data\.table: the split on disk was made with labels"):
        split_for_run(paths.SPLIT, compose(*settings, "data.table=other.csv").data, seed=0)


def test_folds_and_splits_per_seed_that_groups_leave_empty_are_refused(
    place: Path, made: Split, compose: Compose
) -> None:
    root = write_folder(place / "mine")
    groups = [f"{name}/{i:02}.png,{name},{i % 3}" for name in COLOURS for i in range(12)]
    (root / "labels.csv").write_text("\n".join(["file_name,label,group", *groups]))
    shares = ("data.validation_share=0.33", "data.test_share=0.33")
    made("table", root, *shares)
    settings = ("data=table", f"data.path={root}", *shares)

    with pytest.raises(UserError, match=r"data\.folds: 3 of 5 would be empty, since groups"):
        split_for_run(paths.SPLIT, compose(*settings, "data.folds=5").data, seed=0)
    two = compose(*settings, "data.folds=2").data
    assert len(split_for_run(paths.SPLIT, two, seed=0).validation.labels) == 12

    for name in COLOURS:  # what is in both parts ties them together
        shutil.copy(root / f"{name}/01.png", root / f"{name}/00.png")
    rows = [
        f"{name}/{i:02}.png,{name},{part},{'all' if part == 'train' else ''}"
        for name in COLOURS
        for i, part in enumerate(["validation", "train", "test", "train"])
    ]
    (root / "labels.csv").write_text("\n".join(["file_name,label,split,group", *rows]))
    made("table", root, *shares)
    per_seed = compose(*settings, "data.split_per_seed=true").data
    with pytest.raises(UserError, match=r"data\.split_per_seed: seed 1 leaves a side empty, since"):
        split_for_run(paths.SPLIT, per_seed, seed=1)


def test_progress_is_shown_on_terminals_only(
    place: Path, made: Split, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bulk_decode, "MANY", 1)
    monkeypatch.setattr(listing, "MANY", 1)
    path = write_folder(place / "mine")
    made("folder", path)
    in_a_file = capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    made("folder", path)

    shown = capsys.readouterr().err
    assert in_a_file == ""
    assert all(title in shown for title in ("hashing", "reading headers", "decoding"))


def test_a_label_that_is_no_class_is_named(
    place: Path, made: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(place / "mine")

    with pytest.raises(UserError, match="12 bad of 36"):
        made("folder", place / "mine", "data.classes=[red,green]")
    assert "blue/00.png: label 'blue' is not a class of data.classes" in capsys.readouterr().err


def test_duplicates_stay_together_and_are_named(
    place: Path, made: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder(place / "mine", each=8)
    for index in range(20):
        shutil.copy(root / "red/00.png", root / f"red/copy{index}.png")
    shutil.copy(root / "red/01.png", root / "blue/wrong.png")

    found = made("folder", root)

    copies = [
        part
        for part in ("train", "validation", "test")
        if any("copy" in name for name in found.names(part))
    ]
    assert len(copies) == 1
    assert "2 images with the same pixels have different labels, such as" in capsys.readouterr().err
    sheet = json.loads((paths.SPLIT / "sheet.json").read_text())
    assert (sheet["duplicates"]["sets"], sheet["duplicates"]["images"]) == (2, 23)
    assert sheet["conflicting"]["named"] == [["blue/wrong.png", "red/01.png"]]


def test_an_image_in_two_given_parts_is_named(
    place: Path, made: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "val", "test"):
        write_folder(place / "mine" / part, each=1 if part != "train" else 4)

    made("folder", place / "mine")

    assert "9 images with the same pixels are in several parts" in capsys.readouterr().err


def test_folds_take_turns_and_hold_out_everything_once(
    place: Path, made: Split, compose: Compose
) -> None:
    write_folder(place / "mine")
    before = made("folder", place / "mine", "data.split_seed=1")
    count = len(before.train.labels) + len(before.validation.labels)
    config = compose(
        "data=folder", f"data.path={place / 'mine'}", "data.split_seed=1", "data.folds=5"
    )

    held_out: list[NDArray[Any]] = []
    for seed in range(5):
        found = split_for_run(paths.SPLIT, config.data, seed)
        held_out.append(np.asarray(found.validation.images))
        assert len(found.train.labels) + len(found.validation.labels) == count
    again = split_for_run(paths.SPLIT, config.data, seed=7)

    assert np.array_equal(np.asarray(again.validation.images), held_out[2])
    distinct = {pixels.tobytes() for fold in held_out for pixels in fold}
    assert len(distinct) == sum(map(len, held_out)) == count


def test_large_images_are_read_from_disk_to_the_same_bytes(
    place: Path, made: Split, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(place / "mine")
    mapped = made("folder", place / "mine")
    monkeypatch.setattr(arrays, "LARGE", 100)
    stored = arrays.load_split(paths.SPLIT)
    assert isinstance(stored.train.images, arrays.StoredImages)

    rows = np.array([3, 0, 3, 20])
    assert np.array_equal(stored.train.images[rows], mapped.train.images[rows])
    assert np.array_equal(stored.train.images[2:9], mapped.train.images[2:9])
    assert np.array_equal(stored.train.images[1], mapped.train.images[1])
    config = compose("data=folder", f"data.path={place / 'mine'}", "data.folds=3").data
    of_stored = split_for_run(paths.SPLIT, config, seed=1)
    monkeypatch.setattr(arrays, "LARGE", 2**28)
    of_mapped = split_for_run(paths.SPLIT, config, seed=1)
    assert np.array_equal(np.asarray(of_stored.train.images), np.asarray(of_mapped.train.images))


def test_a_data_set_larger_than_the_disk_is_refused_before_decoding(
    place: Path, made: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(place / "mine")
    free = shutil.disk_usage(place)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)

    with pytest.raises(UserError, match=r"data/split: needs 0 MB, 0 MB are free"):
        made("folder", place / "mine")


@pytest.mark.slow
def test_changed_files_run_again_from_the_split_and_unchanged_ones_nothing(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = write_folder(tmp_path_factory.mktemp("outside") / "mine")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    project.edit("params.yaml", "name: tiny", "name: folder")
    project.edit("params.yaml", "path: images", f"path: {root}")

    project.must("dvc", "repro", "split")
    assert "Running stage" not in project.must("dvc", "repro", "split")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    Image.fromarray(image(0, 999)).save(root / "blue/new.png")
    project.must("dvc", "repro", "split")

    assert "blue/new.png" in "".join(
        (project.root / f"data/split/{part}_names.jsonl").read_text()
        for part in ("train", "validation", "test")
    )
