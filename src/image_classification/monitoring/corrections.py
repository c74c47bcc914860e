"""Corrected predictions on disk: pending corrections, and those that were accepted.

feedback/NAME/pending/ and feedback/NAME/accepted/ each hold images and a manifest, labels.jsonl, in
the form that `formats/table.py` reads.
"""

import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.core.files import sync_to_disk
from image_classification.core.locks import locked
from image_classification.monitoring.recent_predictions import (
    FeedbackError,
    RecentPredictions,
    ServedPrediction,
)

MANIFEST = "labels.jsonl"
MOST_PENDING = 1000  # corrections that wait
MOST_BYTES = 2**26  # of their images
LARGEST_MANIFEST = 2**26  # bytes


@dataclass(frozen=True)
class Correction:
    """An image that somebody has labelled.

    path: of the image, in the manifest's folder.
    label: the class that the user gave.
    answer, probability: the class that the model predicted, and its probability.
    key, version: of the model; see `ServedPrediction`.
    time: of the feedback; ISO 8601, UTC.
    """

    path: str
    label: str
    answer: str
    probability: float
    key: str
    version: int | None
    time: str

    @property
    def id(self) -> str:
        """What `image-classification feedback` calls it."""
        return self.path.removesuffix(".png")


TYPES: dict[str, type | tuple[type, ...]] = {  # of the fields, as they stand in the manifest
    "path": str,
    "label": str,
    "answer": str,
    "probability": float,
    "key": str,
    "version": (int, type(None)),
    "time": str,
}


class Corrections:
    """The feedback on the models of one data set."""

    def __init__(self, name: str, most: int = MOST_PENDING, most_bytes: int = MOST_BYTES) -> None:
        """Take the data set's name, and how many corrections and bytes of images may wait."""
        self.folder = paths.FEEDBACK / name
        self.pending, self.accepted = self.folder / "pending", self.folder / "accepted"
        self._most, self._most_bytes = most, most_bytes

    def add(self, recent: RecentPredictions, prediction_id: str, label: str) -> Correction:
        """Store that a prediction should have been `label`.

        Raises:
            FeedbackError: the prediction is unknown (404) or has been corrected (409); the label is
                not one of its classes, or its image can't be stored (422); the store is full
                (507).
            UserError: the store can't be used.
        """
        with recent.correction(prediction_id) as prediction:
            if label not in prediction.classes:
                raise FeedbackError(
                    HTTPStatus.UNPROCESSABLE_ENTITY, f"{label!r:.50} is not a class"
                )
            contents = _png(prediction.image)
            correction = _correction(prediction_id, prediction, label)
            with self._locked():
                self._require_room(len(contents))
                try:
                    self.pending.mkdir(parents=True, exist_ok=True)
                    _write(self.pending / correction.path, contents)
                    _append(self.pending / MANIFEST, correction)
                except OSError as error:
                    raise UserError(f"{self.pending} can't be written: {error.strerror}") from error
        return correction

    def waiting(self) -> list[Correction]:
        """The pending corrections, the oldest first.

        Raises:
            UserError: the manifest is damaged.
        """
        return read(self.pending / MANIFEST)

    def accept(self, ids: Sequence[str]) -> list[Correction]:
        """Move corrections, or all if no ids are given, to the accepted ones.

        A kill leaves each where it was, or in both places until it is accepted once more.

        Raises:
            UserError: there is no such correction, or a file can't be read or written.
        """
        with self._locked():
            chosen, rest = _chosen(self.waiting(), ids)
            known = read(self.accepted / MANIFEST)
            self.accepted.mkdir(parents=True, exist_ok=True)
            for correction in chosen:
                _write(self.accepted / correction.path, self._image(correction))
            names = {correction.path for correction in chosen}
            kept = [correction for correction in known if correction.path not in names]
            _write(self.accepted / MANIFEST, _lines([*kept, *chosen]))
            self._keep(rest)
        return chosen

    def discard(self, ids: Sequence[str]) -> list[Correction]:
        """Delete corrections, or all if no ids are given, and their images.

        Raises:
            UserError: there is no such correction, or a file can't be read or written.
        """
        with self._locked():
            chosen, rest = _chosen(self.waiting(), ids)
            self._keep(rest)
        return chosen

    def _locked(self) -> Any:
        return locked(self.folder / ".lock")

    def _image(self, correction: Correction) -> bytes:
        path = self.pending / correction.path
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            advice = f"`image-classification feedback discard {correction.id}`"
            raise UserError(f"{path} is missing: run {advice}") from error

    def _keep(self, rest: list[Correction]) -> None:
        if rest or self.pending.exists():
            _write(self.pending / MANIFEST, _lines(rest))
        names = {correction.path for correction in rest}
        for path in self.pending.glob("*.png"):  # also what a kill left without its line
            if path.name not in names:
                path.unlink()

    def _require_room(self, size: int) -> None:
        found = [path.stat().st_size for path in self.pending.glob("*.png")]
        if len(found) >= self._most or sum(found) + size > self._most_bytes:
            raise FeedbackError(
                HTTPStatus.INSUFFICIENT_STORAGE,
                f"{len(found)} corrections are pending: run `image-classification feedback list`",
            )


def read(manifest: Path) -> list[Correction]:
    """Read a manifest; none where it is missing. A line that a kill cut short does not count.

    Raises:
        UserError: a line is not a correction; names it.
    """
    try:
        with manifest.open("rb") as stream:
            text = stream.read(LARGEST_MANIFEST + 1)
    except FileNotFoundError:
        return []
    if len(text) > LARGEST_MANIFEST:
        raise UserError(f"{manifest}: larger than {LARGEST_MANIFEST:,} bytes: make it smaller")
    lines = text.split(b"\n")[:-1]
    return [_parsed(line, f"{manifest}, line {number}") for number, line in enumerate(lines, 1)]


def _parsed(line: bytes, place: str) -> Correction:
    try:
        values = json.loads(line)
        correction = Correction(**values)
        for name, kind in TYPES.items():
            if not isinstance(values[name], kind):
                raise ValueError(f"{name} is {values[name]!r:.50}")
        if Path(correction.path).name != correction.path or not correction.path.endswith(".png"):
            raise ValueError(f"path is {correction.path!r:.50}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{place} is damaged ({cause}): delete that line") from error
    return correction


def _chosen(
    waiting: list[Correction], ids: Sequence[str]
) -> tuple[list[Correction], list[Correction]]:
    """Those that the ids, or prefixes of them, name; and the others."""
    names = set()
    for prefix in ids:
        found = [correction.id for correction in waiting if correction.id.startswith(prefix)]
        if len(found) != 1:
            several = f"matches {len(found)} corrections: give more characters" if found else ""
            hint = several or "is not a correction: see `image-classification feedback list`"
            raise UserError(f"{prefix!r:.50} {hint}")
        names.update(found)
    chosen = [correction for correction in waiting if correction.id in names or not ids]
    return chosen, [correction for correction in waiting if correction not in chosen]


def _correction(prediction_id: str, prediction: ServedPrediction, label: str) -> Correction:
    return Correction(
        path=f"{prediction_id}.png",
        label=label,
        answer=prediction.label,
        probability=round(float(prediction.probability), 6),
        key=prediction.key,
        version=prediction.version,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _png(image: NDArray[np.uint8]) -> bytes:
    if image.shape[2] not in (1, 3):
        raise FeedbackError(
            HTTPStatus.UNPROCESSABLE_ENTITY, "feedback takes grey and colour images only"
        )
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    return stream.getvalue()


def _lines(corrections: Iterable[Correction]) -> bytes:
    return "".join(json.dumps(asdict(one)) + "\n" for one in corrections).encode()


def _write(path: Path, contents: bytes) -> None:
    """Write a file that is whole whenever it has its name."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(contents)
    sync_to_disk(part)
    part.replace(path)


def _append(manifest: Path, correction: Correction) -> None:
    with manifest.open("a+b") as stream:
        stream.seek(0)
        whole = stream.read().rfind(b"\n") + 1
        stream.truncate(whole)  # what a kill cut short
        stream.write(_lines([correction]))
        stream.flush()
        os.fsync(stream.fileno())
