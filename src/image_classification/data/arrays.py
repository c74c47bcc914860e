"""Examples as NumPy arrays: in memory, and on disk as the split keeps them."""

import json
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_classification.core import readers
from image_classification.core.errors import UserError
from image_classification.core.files import atomic_folder

# The header of a .npy file is a Python literal, and NumPy lets these through.
HEADER_ERRORS = (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError)


class Examples(NamedTuple):
    """Images and their labels.

    images: uint8 (n, height, width, channels), 0 to 255.
    labels: uint8 (n,), indices into the data set's classes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class Split:
    """What stage `split` made; the arrays stay on disk until they are read.

    classes: their names, in the order of the labels.
    origin: what the function of that name said of the configuration it was made from.
    """

    train: Examples
    validation: Examples
    test: Examples
    classes: list[str]
    origin: dict[str, object]

    @property
    def image_shape(self) -> list[int]:
        """Height, width and channels of every image."""
        return list(self.train.images.shape[1:])


def save_split(folder: Path, parts: dict[str, Examples], origin: dict[str, object]) -> None:
    """Write `{part}_images.npy` and `{part}_labels.npy` for each part, and where they come from.

    Raises:
        UserError: the folder can't be written, or the disk is full.
    """
    with atomic_folder(folder) as fresh:
        for part, examples in parts.items():
            np.save(fresh / f"{part}_images.npy", examples.images, allow_pickle=False)
            np.save(fresh / f"{part}_labels.npy", examples.labels, allow_pickle=False)
        (fresh / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")


def load_split(folder: Path) -> Split:
    """Open what `save_split` wrote, memory-mapped and read-only.

    Raises:
        UserError: a file is missing, or is not what `save_split` writes.
    """
    hint = "run `dvc repro --force split`"
    parts = {
        part: Examples(
            _open_array(folder / f"{part}_images.npy", 4),
            _open_array(folder / f"{part}_labels.npy", 1),
        )
        for part in ("train", "validation", "test")
    }
    for part, (images, labels) in parts.items():
        if not 0 < len(images) == len(labels):
            counts = f"{len(images)} images, {len(labels)} labels"
            raise UserError(f"{folder} is damaged ({part}: {counts}): {hint}")
    origin = readers.read_mapping(folder / "origin.json", hint)
    classes = origin.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{folder}/origin.json names no classes: {hint}")
    return Split(**parts, classes=classes, origin=origin)


def _open_array(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Map a .npy file into memory; a false header promises what it likes and allocates nothing."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        assert array.offset is not None
        if array.dtype != np.uint8 or array.ndim != dimensions:
            raise ValueError(f"{array.dtype} {array.shape}")
        if array.offset + array.nbytes != path.stat().st_size:
            raise ValueError("more bytes than the header promises")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run `dvc repro split`") from error
    except (*HEADER_ERRORS, EOFError, OverflowError) as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({cause}): run `dvc repro --force split`") from error
    return array
