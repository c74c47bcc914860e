import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from image_classification.core.errors import UserError
from image_classification.serving import artifact
from image_classification.serving.artifact import Artifact


@pytest.fixture
def copy(exported: Artifact, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.folder, tmp_path / "copy"))


def test_an_artifact_is_read_as_it_was_written(exported: Artifact) -> None:
    assert exported.version == 3
    assert exported.image_shape == (28, 28, 1)
    assert exported.file.name == "model.tflite"
    assert exported.classes[9] == "9"


def test_a_damaged_model_is_not_served(copy: Path) -> None:
    file = copy / "model.tflite"
    file.write_bytes(file.read_bytes()[:-1] + b"x")

    with pytest.raises(UserError, match=r"model\.tflite has SHA-256 .*export copy"):
        artifact.read(copy)


@pytest.mark.parametrize("name", ["model.tflite", "served.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()

    with pytest.raises(UserError, match=f"{name} is missing: run `image-classification export"):
        artifact.read(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", []),
        ("classes", [1, 2]),
        ("image_shape", [28, 28]),
        ("image_shape", [28, 28, True]),
        ("engine", "onnx"),
        ("normalise", 1),
        ("version", "3"),
        ("sha256", None),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(copy: Path, key: str, value: Any) -> None:
    path = copy / "served.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    with pytest.raises(UserError, match=key):
        artifact.read(copy)
