"""From a Keras model to the file of an engine, compared with Keras on all test images."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from image_classification.core.errors import UserError
from image_classification.core.files import sha256
from image_classification.models.prediction import predict
from image_classification.models.safety import error_text
from image_classification.serving.artifact import MODEL_FILE, SAVED_MODEL_FILE, Artifact
from image_classification.serving.engine import Engine

TOLERANCE = 1e-4  # that a probability may differ by from that of Keras
PART = 1000  # images compared at once
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the time of each file in an archive, for a stable hash


@dataclass(frozen=True)
class Difference:
    """How an engine's predictions differ from those of Keras.

    images: how many were compared.
    labels_equal: how many of these both give the same class.
    largest_difference: of any probability.
    """

    images: int
    labels_equal: int
    largest_difference: float

    @property
    def is_small(self) -> bool:
        """Whether the engine may replace Keras."""
        return self.labels_equal == self.images and self.largest_difference <= TOLERANCE


def convert(model: keras.Model, described: Artifact, images: NDArray[np.uint8]) -> Artifact:
    """Write the model for the first engine that predicts as Keras does: LiteRT, or TensorFlow.

    Args:
        model: from `saved.load`.
        described: what is known of it; its file is written into `folder`.
        images: (n, height, width, channels), read a part at a time.

    Returns:
        The same with engine, sha256 and checked.

    Raises:
        UserError: no engine does.
    """
    causes = []
    for engine, write in (("litert", _write_litert), ("tf_function", _write_saved_model)):
        try:
            with _silent():
                artifact, found = _written(model, replace(described, engine=engine), images, write)
        except Exception as error:  # neither the converters nor the engines have a common one
            causes.append(f"{engine}: {error_text(error)}")
            continue
        if found.is_small:
            return artifact
        causes.append(f"{engine}: {found}")
        artifact.file.unlink()
    raise UserError(f"{described.run} can't be exported: {'; '.join(causes)}: train another")


def _written(
    model: keras.Model,
    described: Artifact,
    images: NDArray[np.uint8],
    write: Callable[[keras.Model, Path], None],
) -> tuple[Artifact, Difference]:
    write(model, described.file)
    artifact = replace(described, sha256=sha256(described.file))
    found = compare(model, Engine(artifact), images)
    return replace(artifact, checked=vars(found)), found


def compare(model: keras.Model, engine: Engine, images: NDArray[np.uint8]) -> Difference:
    """Compare an engine's predictions with those of Keras."""
    equal, largest = 0, 0.0
    for start in range(0, len(images), PART):
        part = np.asarray(images[start : start + PART])
        expected, found = predict(model, part), engine.predict(part)
        equal += int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
        largest = max(largest, float(np.abs(expected - found).max()))  # NaN is not small either
        if np.isnan(found).any():
            largest = float("inf")
    return Difference(len(images), equal, largest)


def _write_litert(model: keras.Model, target: Path) -> None:
    assert target.name == MODEL_FILE
    model.export(target, format="litert", verbose=False)


def _write_saved_model(model: keras.Model, target: Path) -> None:
    assert target.name == SAVED_MODEL_FILE
    with tempfile.TemporaryDirectory() as scratch:
        model.export(scratch, format="tf_saved_model", verbose=False)
        files = sorted(path for path in Path(scratch).rglob("*") if path.is_file())
        with zipfile.ZipFile(target, "w") as archive:
            for path in files:
                entry = zipfile.ZipInfo(str(path.relative_to(scratch)), LONG_AGO)
                with path.open("rb") as source, archive.open(entry, "w") as copy:
                    shutil.copyfileobj(source, copy)


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress what the converters print, from C++ as well: what matters is raised."""
    kept: list[Any] = [os.dup(number) for number in (1, 2)]
    with Path(os.devnull).open("wb") as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    try:
        yield
    finally:
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
