"""What is known about a run: from the files of its stages, or from an earlier record."""

import base64
import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification.core import paths, readers, tables
from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.data.arrays import Examples, Split
from image_classification.data.splits import split_for_run
from image_classification.evaluation import metrics
from image_classification.promotion.candidates import Candidate
from image_classification.promotion.records import JudgedRun, Validation

COSTS = ("parameters", "model_bytes", "microseconds_batch_1", "microseconds_batch_256", "machine")
WEIGHTS = "model.weights.h5"  # within a file of Keras' format
AT_ONCE = 1000  # images that are read at a time


@dataclass(frozen=True)
class ValidationSet:
    """The examples that a run holds out for validation.

    examples: images and labels.
    classes: their names.
    """

    examples: Examples
    classes: Sequence[str]

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """(n,): a hash of each image and its label."""
        images, labels = self.examples
        found = [
            hashlib.blake2b(image.tobytes() + int(label).to_bytes(2), digest_size=8).digest()
            for start in range(0, len(labels), AT_ONCE)
            for image, label in zip(
                images[start : start + AT_ONCE], labels[start : start + AT_ONCE], strict=True
            )
        ]
        return np.frombuffer(b"".join(found), np.uint64)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of all of these, in order."""
        return hash_of(self.digests)


@dataclass(frozen=True)
class EvaluatedRun:
    """One of two runs that are compared.

    predicted: (n,), the classes that it predicts for the examples that it holds out.
    numbers: see gate.Evidence.
    """

    judged: JudgedRun
    validation_set: ValidationSet
    predicted: NDArray[np.integer]
    numbers: dict[str, Any]


def hash_of(digests: NDArray[np.uint64]) -> str:
    """The SHA-256, in hexadecimal, of examples that these digests stand for."""
    return hashlib.sha256(digests.tobytes()).hexdigest()


def load_validation_set(data: DataConfig, split: dict[str, Any]) -> ValidationSet:
    """The validation examples of a run, by the settings in `JudgedRun.split`.

    Raises:
        UserError: the split is missing, damaged, or made from other settings.
    """
    drawn = replace(data, split_per_seed=split["split_per_seed"], folds=split["folds"])
    found: Split = split_for_run(paths.SPLIT, drawn, split["seed"])
    return ValidationSet(found.validation, found.classes)


def of_run(candidate: Candidate, data: DataConfig, version: int | None) -> EvaluatedRun:
    """A run of the pipeline, from what `train` and `evaluate` wrote.

    Raises:
        UserError: a file is missing or damaged, or of another run than the one compared.
    """
    again = f"run `dvc repro evaluate@{candidate.run}`"
    folder, evaluation = paths.RUNS / candidate.run, paths.EVALUATIONS / candidate.run
    training = readers.read_training(folder / paths.TRAINING_FILE, again)
    if training["run"] != candidate.key:
        raise UserError(f"{folder} holds a later run than the one compared: run `dvc repro`")
    split = {"seed": candidate.seed, "split_per_seed": data.split_per_seed, "folds": data.folds}
    validation_set = load_validation_set(data, split)
    predicted = _read_predicted(evaluation / paths.VALIDATION_FILE, validation_set, again)
    validation = ("validation_calibration_error",)
    scores = readers.read_numbers(evaluation / paths.METRICS_FILE, validation, again)
    costs = readers.read_costs(evaluation / paths.COSTS_FILE, again)
    judged = JudgedRun(
        run=candidate.run,
        model=candidate.model,
        key=candidate.key,
        version=version,
        sha256=training["model_sha256"],
        weights_sha256=weights_sha256(folder / paths.MODEL_FILE, again),
        data=str(training["provenance"].get("dvc.data", "")),
        split=split,
    )
    error = float(scores["validation_calibration_error"])
    numbers = {**scores_of(validation_set, predicted), "calibration_error": error}
    return EvaluatedRun(
        judged, validation_set, predicted, {**numbers, **{key: costs[key] for key in COSTS}}
    )


def scores_of(validation_set: ValidationSet, predicted: NDArray[np.integer]) -> dict[str, float]:
    """Accuracy, and the recall of the worst class of those that occur; from 0 to 1."""
    labels = np.asarray(validation_set.examples.labels)
    hits = predicted == labels
    counts = np.bincount(labels)
    recalls = np.bincount(labels, hits)[counts > 0] / counts[counts > 0]
    return {"accuracy": float(hits.mean()), "worst_class_recall": float(recalls.min())}


def of_probabilities(
    validation_set: ValidationSet, probabilities: NDArray[np.float32]
) -> dict[str, float]:
    """As `scores_of`, and the calibration error, of probabilities (n, classes)."""
    labels = np.asarray(validation_set.examples.labels)
    error = metrics.calibration_error(metrics.reliability(labels, probabilities))
    return {**scores_of(validation_set, probabilities.argmax(axis=1)), "calibration_error": error}


def weights_sha256(path: Path, hint: str) -> str:
    """The SHA-256 of the weights in a file of Keras' format, which saving it again keeps.

    Raises:
        UserError: there is no such file, or it holds none; ends with the hint.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(WEIGHTS) as stream:
            digest = hashlib.sha256()
            while part := stream.read(2**20):
                digest.update(part)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a Keras model ({error}): {hint}") from error
    return digest.hexdigest()


def pack(validation_set: ValidationSet, predicted: NDArray[np.integer]) -> str:
    """Predictions as text: how far each is from the label, in classes, compressed; most are 0."""
    labels, classes = validation_set.examples.labels, len(validation_set.classes)
    away = (predicted.astype(np.int64) - labels) % classes
    return base64.b64encode(zlib.compress(away.astype("<u2").tobytes(), 9)).decode()


def unpack(validation_set: ValidationSet, validation: Validation) -> NDArray[np.integer]:
    """The predictions in a record for these very examples.

    Raises:
        UserError: they are damaged.
    """
    labels, count = validation_set.examples.labels, len(validation_set.examples.labels)
    try:
        packed = base64.b64decode(validation.answers, validate=True)
        away = np.frombuffer(zlib.decompressobj().decompress(packed, 2 * count + 1), "<u2")
    except (ValueError, zlib.error) as error:
        raise UserError(f"the predictions in a record are damaged ({error})") from error
    if len(away) != count:
        raise UserError(f"a record has predictions for {len(away)} examples, expected {count}")
    return np.asarray((away.astype(np.int64) + labels) % len(validation_set.classes))


def _read_predicted(path: Path, validation_set: ValidationSet, hint: str) -> NDArray[np.integer]:
    count = len(validation_set.examples.labels)
    table = tables.read_table(path, {"predicted": str, "actual": str}, count, hint)
    numbers = {name: number for number, name in enumerate(validation_set.classes)}
    predicted, actual = (table[name].map(numbers) for name in ("predicted", "actual"))
    if len(table) != count or predicted.isna().any():
        raise UserError(f"{path}: there must be a class for each of {count} images: {hint}")
    if not np.array_equal(actual.to_numpy(), np.asarray(validation_set.examples.labels)):
        raise UserError(f"{path}: has other validation images than the split: {hint}")
    return predicted.to_numpy(np.int64)
