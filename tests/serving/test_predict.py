"""`image-classification predict`, with a model that has been exported."""

import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_examples, write_idx
from PIL import Image

from image_classification.commands import predict
from image_classification.commands.predict import Counts
from image_classification.core.errors import UserError
from image_classification.serving.artifact import Artifact
from image_classification.serving.engine import Engine

IMAGES = tiny_examples(9, seed=6).images
Predict = Callable[..., Counts]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the images in every form."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder/inner").mkdir(parents=True)
    for index, image in enumerate(IMAGES):
        place = tmp_path / "folder" / ("inner" if index % 2 else "") / f"{index}.png"
        Image.fromarray(image[..., 0]).save(place)
    (tmp_path / "folder/notes.txt").write_text("no image by its name")
    rows = IMAGES.reshape(len(IMAGES), -1)
    header = [f"pixel{index}" for index in range(784)]
    pd.DataFrame(rows, columns=header).to_csv(tmp_path / "pixels.csv", index=False)
    labelled = pd.DataFrame(rows, columns=header)
    labelled.insert(0, "label", "7")
    labelled.to_csv(tmp_path / "labelled.csv", index=False)
    names = [
        str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "folder").rglob("*.png"))
    ]
    (tmp_path / "files.csv").write_text("\n".join(["file_name", *names]))
    objects = [json.dumps({"image": name}) for name in names]
    (tmp_path / "files.jsonl").write_text("\n".join(objects))
    write_idx(tmp_path / "images-idx3-ubyte", IMAGES[..., 0])
    raw = (tmp_path / "images-idx3-ubyte").read_bytes()
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(gzip.compress(raw))
    np.save(tmp_path / "images.npy", IMAGES)
    np.savez(tmp_path / "images.npz", test_images=IMAGES, test_labels=np.zeros(len(IMAGES)))
    return tmp_path


def ask(*words: str) -> predict.Options:
    return predict.parse(words)


@pytest.mark.parametrize(
    "source",
    [
        "folder",
        "pixels.csv",
        "labelled.csv",
        "files.csv",
        "files.jsonl",
        "images-idx3-ubyte",
        "images-idx3-ubyte.gz",
        "images.npy",
        "images.npz",
    ],
)
def test_every_form_of_images_gives_the_same(
    folder: Path, exported: Artifact, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    counts = predict.predict(ask(source, "--format", "csv"), exported)

    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    order = sorted(range(len(IMAGES)), key=lambda index: index % 2)  # inner/ comes last
    images = IMAGES[order] if source in ("folder", "files.csv", "files.jsonl") else IMAGES
    expected = Engine(exported).predict(images)
    found = [[float(row[f"probability_{name}"]) for name in exported.classes] for row in rows]
    assert (counts.predicted, counts.bad, counts.exit_code) == (len(IMAGES), 0, 0)
    assert np.allclose(found, expected, atol=1e-5)
    assert [row["predicted"] for row in rows] == [str(label) for label in expected.argmax(axis=1)]
    assert len({row["file"] for row in rows}) == len(IMAGES)


def test_images_of_a_folder_are_named_the_same_with_a_slash_behind_it(
    folder: Path, exported: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    names = []
    for source in ("folder", "folder/"):
        predict.predict(ask(source, "--format", "csv"), exported)
        rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
        names.append([row["file"] for row in rows])

    assert names[0] == names[1]
    assert "folder/0.png" in names[1]


def test_bad_files_are_listed_and_the_others_predicted(
    folder: Path,
    exported: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (folder / "folder/bad.png").write_bytes(b"no image")

    counts = predict.predict(ask("folder", "gone.png", "images.npy"), exported)

    printed = capsys.readouterr()
    assert "folder/bad.png: not an image" in printed.err
    assert "gone.png: is missing" in printed.err
    assert counts == Counts(predicted=2 * len(IMAGES), bad=2)
    assert counts.exit_code == 3
    monkeypatch.setenv("DVC_STAGE", "predict@letters")
    assert counts.exit_code == 0  # or DVC would throw the predictions away
    assert len(printed.out.splitlines()) == 1 + 2 * len(IMAGES)


def test_a_wrong_pixel_costs_one_row_of_a_table(
    folder: Path, exported: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(folder / "pixels.csv", dtype=str)
    table.iloc[4, 3] = "300"
    table.to_csv(folder / "pixels.csv", index=False)

    counts = predict.predict(ask("pixels.csv"), exported)

    assert counts == Counts(predicted=len(IMAGES) - 1, bad=1)
    assert "pixels.csv:6: pixel 3 is 300" in capsys.readouterr().err


def test_nothing_predicted_is_a_failure(
    folder: Path, exported: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "empty").mkdir()

    counts = predict.predict(ask("empty"), exported)

    assert counts.exit_code == 1
    monkeypatch.setenv("DVC_STAGE", "predict@letters")
    assert counts.exit_code == 1


def test_standard_input_is_an_image(
    folder: Path, exported: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    data = (folder / "folder/0.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    predict.predict(ask("-", "--format", "json"), exported)

    found = json.loads(capsys.readouterr().out)
    expected = Engine(exported).predict(IMAGES[:1])[0]
    assert found["file"] == "-"
    assert found["predicted"] == str(expected.argmax())
    assert list(found["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_file_is_written_in_the_format_of_its_name(folder: Path, exported: Artifact) -> None:
    predict.predict(ask("images.npy", "--output", "out.parquet"), exported)
    predict.predict(ask("images.npy", "--output", "out.csv"), exported)

    table = pd.read_parquet(folder / "out.parquet")
    assert list(table.columns) == list(pd.read_csv(folder / "out.csv").columns)
    assert table["probability_0"].dtype == np.float32
    assert np.allclose(table.iloc[:, 2:].sum(axis=1), 1, atol=1e-5)
    assert not list(folder.glob("*.part"))


def test_an_output_that_fails_leaves_the_old_one(folder: Path, exported: Artifact) -> None:
    (folder / "out.csv").write_text("old")
    (folder / "cut.gz").write_bytes((folder / "images-idx3-ubyte.gz").read_bytes()[:-30])

    with pytest.raises(UserError, match="cut"):
        predict.predict(ask("cut.gz", "--output", "out.csv"), exported)
    with pytest.raises(UserError, match=r"gone/out\.csv can't be written: No such file"):
        predict.predict(ask("images.npy", "--output", "gone/out.csv"), exported)

    assert (folder / "out.csv").read_text() == "old"
    assert not list(folder.glob("*.part"))


def test_many_images_are_predicted_in_parts(
    folder: Path, exported: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(folder / "many.npy", np.resize(IMAGES, (2 * predict.PART + 3, 28, 28, 1)))

    counts = predict.predict(ask("many.npy", "--sheet", "sheet.png"), exported)

    lines = capsys.readouterr().out.splitlines()
    assert counts.predicted == len(lines) - 1 == 2 * predict.PART + 3
    assert lines[-1].startswith(f"many.npy[{2 * predict.PART + 2}]")
    with Image.open(folder / "sheet.png") as sheet:
        assert min(sheet.size) > 500


@pytest.mark.parametrize(
    "words", [[], ["--format", "parquet", "x.png"], ["--format", "xml", "x.png"]]
)
def test_a_wrong_command_line_is_refused_at_once(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        predict.parse(words)
    assert ended.value.code == 2


def test_neither_tensorflow_nor_mlflow_is_imported(folder: Path, exported: Artifact) -> None:
    code = f"""
import sys
from pathlib import Path
from image_classification.commands import predict
from image_classification.serving import artifact
predict.predict(predict.parse(["images.npy"]), artifact.read(Path({str(exported.folder)!r})))
print([name for name in ("tensorflow", "keras", "mlflow", "sklearn") if name in sys.modules])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""
