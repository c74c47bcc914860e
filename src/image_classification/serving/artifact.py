"""The artifact that is served: a model for the engine, and its description."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from image_classification.core import readers
from image_classification.core.errors import UserError
from image_classification.core.files import sha256

MODEL_FILE = "model.tflite"  # of the engine litert
SAVED_MODEL_FILE = "saved_model.zip"  # of the engine tf_function: a SavedModel, in one file
DESCRIPTION_FILE = "served.json"
ENGINES = {"litert": MODEL_FILE, "tf_function": SAVED_MODEL_FILE}
TYPES: dict[str, type | tuple[type, ...]] = {  # of the fields of the description
    "name": str,
    "model": str,
    "run": str,
    "key": str,
    "version": (int, type(None)),
    "classes": list,
    "image_shape": list,
    "resize": str,
    "normalise": bool,
    "engine": str,
    "weights_sha256": str,
    "sha256": str,
    "checked": dict,
}
LARGEST_DESCRIPTION = 2**24  # bytes: 65,536 classes with names of 250


@dataclass(frozen=True)
class Artifact:
    """What is served, as `served.json` describes it.

    name: of the data set, and so of the registered model.
    model: of the file in conf/model/.
    run: the folder of the run, such as cnn-0.
    key: of the run's event log.
    version: of the registered model; None while MLflow does not know the run.
    classes: names, in the order of the probabilities.
    image_shape: height, width, channels.
    resize: how images of another size are brought to it; see `decode`.
    normalise: whether drawings are converted to MNIST's format.
    engine: litert or tf_function.
    weights_sha256: of the weights that it was made from, in hexadecimal: MLflow's copy of a model
        has them too, though its file has another hash.
    sha256: of the engine's file, in hexadecimal.
    checked: images compared with Keras, labels_equal, and the largest_difference of a probability.
    folder: that holds all of this.
    """

    name: str
    model: str
    run: str
    key: str
    version: int | None
    classes: list[str]
    image_shape: tuple[int, int, int]
    resize: str
    normalise: bool
    engine: str
    weights_sha256: str
    sha256: str
    checked: dict[str, Any]
    folder: Path

    @property
    def file(self) -> Path:
        """The engine's file."""
        return self.folder / ENGINES[self.engine]


def write(artifact: Artifact) -> None:
    """Write the description beside the engine's file."""
    described = {key: value for key, value in asdict(artifact).items() if key != "folder"}
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    (artifact.folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


def read(folder: Path) -> Artifact:
    """Read an exported artifact, whose file must be the one that was checked.

    Raises:
        UserError: it is missing or damaged.
    """
    hint = f"run `image-classification export {folder.name}`"
    path = folder / DESCRIPTION_FILE
    described = readers.read_mapping(path, hint, LARGEST_DESCRIPTION)
    cause = _fault(described)
    if cause:
        raise UserError(f"{path}: {cause}: {hint}")
    fields = {key: described[key] for key in TYPES}
    height, width, channels = described["image_shape"]
    artifact = Artifact(**{**fields, "image_shape": (height, width, channels)}, folder=folder)
    if not artifact.file.is_file():
        raise UserError(f"{artifact.file} is missing: {hint}")
    found = sha256(artifact.file)
    if found != artifact.sha256:
        raise UserError(f"{artifact.file} has SHA-256 {found}, expected {artifact.sha256}: {hint}")
    return artifact


def _fault(described: Mapping[str, Any]) -> str | None:
    """What is wrong with a description, if anything is."""
    for key, kind in TYPES.items():
        value = described.get(key)
        of_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not of_kind:
            return f"{key} is missing or of the wrong type"
    shape = described["image_shape"]
    if len(shape) != 3 or not all(type(size) is int and 1 <= size <= 2**16 for size in shape):
        return "image_shape must be three sizes"
    if not described["classes"] or not all(isinstance(name, str) for name in described["classes"]):
        return "classes must be names"
    if described["engine"] not in ENGINES:
        return f"engine must be {' or '.join(ENGINES)}"
    return None
