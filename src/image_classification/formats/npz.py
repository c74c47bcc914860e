"""NumPy archives in MedMNIST's format: train_images, train_labels, val_images, ..."""

import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.formats.records import PART_ALIASES, ImageRecord, Reading

ERRORS = (  # what a damaged archive raises
    *(OSError, ValueError, KeyError, EOFError, SyntaxError, TypeError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, TokenError),
)


def read(data: DataConfig) -> Reading:
    """Read an archive: `images` and `labels`, or these with the name of a part before them.

    Labels are numbers from 0, (n,) or (n, 1): indices into `data.classes`, or else names.

    Raises:
        UserError: it holds no such arrays, or pickled ones, which could run code.
    """
    path = Path(data.path)
    if not path.is_file():
        raise UserError(f"data.path: {path} is not a file: set it to the .npz")
    records: list[ImageRecord] = []
    try:
        with np.load(path, allow_pickle=False) as archive:
            for part, prefix in _prefixes(archive.files):
                images = archive[f"{prefix}images"]
                labels = archive[f"{prefix}labels"]
                records += _records(f"{path.name}:{prefix}images", part, images, labels, data)
    except ERRORS as error:
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: {cause}: fix it, or set another data.path") from error
    return Reading(records)


def _prefixes(names: list[str]) -> list[tuple[str | None, str]]:
    if "images" in names:
        return [(None, "")]
    found: list[tuple[str | None, str]] = [
        (part, f"{word}_")
        for part, words in PART_ALIASES.items()
        for word in words
        if f"{word}_images" in names
    ]
    if not found:
        raise ValueError(f"holds no train_images, but {', '.join(names)[:100] or 'nothing'}")
    return found


def _records(
    prefix: str, part: str | None, images: NDArray[Any], labels: NDArray[Any], data: DataConfig
) -> list[ImageRecord]:
    labels = labels.reshape(-1) if labels.shape[1:] in ((), (1,)) else labels
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(f"labels {labels.shape} do not fit images {images.shape}")
    if labels.dtype.kind not in "iuU":
        raise ValueError(f"labels must be whole numbers or texts, are {labels.dtype}")
    return [
        ImageRecord(f"{prefix}[{index}]", class_name(label, data), image, part)
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def class_name(label: Any, data: DataConfig) -> str:
    """The name of a class that is given by its number, or by its name."""
    number = isinstance(label, np.integer | int)
    if data.classes and number and 0 <= label < len(data.classes):
        return data.classes[int(label)]
    return str(label)
