"""Examples as NumPy arrays: in memory, and on disk as the split keeps them."""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from image_classification.core import readers
from image_classification.core.errors import UserError
from image_classification.core.files import atomic_folder

# The header of a .npy file is a Python literal, and NumPy lets these through.
HEADER_ERRORS = (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError)


class StoredImages:
    """Images in files too large to be mapped into memory: each is read when it is asked for.

    Positioned reads take no memory but for what they return; a memory map counts as a whole.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: Sequence[np.memmap], rows: NDArray[np.int64] | None = None) -> None:
        """Take the files one after the other, and of all their images these rows, or all."""
        self.files = files
        self._starts = np.cumsum([0, *(len(file) for file in files)])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows
        self.shape = (len(self._rows), *files[0].shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        rows = np.atleast_1d(self._rows[index])
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        size = images[:1].nbytes
        with ExitStack() as opened:
            streams = [opened.enter_context(Path(str(f.filename)).open("rb")) for f in self.files]
            for image, row, number in zip(images, rows, numbers, strict=True):
                offset = self.files[number].offset + int(row - self._starts[number]) * size
                read = os.preadv(streams[number].fileno(), [memoryview(image).cast("B")], offset)
                if read != size:
                    raise OSError(f"{self.files[number].filename} is cut short")
        return images if np.ndim(self._rows[index]) else images[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All images, in memory; NumPy calls this."""
        return np.asarray(self[:], dtype)

    def rows(self, rows: NDArray[np.int64]) -> "StoredImages":
        """Some of the images, in this order, still in their files."""
        return StoredImages(self.files, self._rows[rows])


LARGE = 2**28  # bytes of an array that is not mapped into memory


class Examples(NamedTuple):
    """Images and their labels.

    images: uint8 (n, height, width, channels), 0 to 255; large ones are StoredImages.
    labels: uint8, or uint16 for more than 256 classes, (n,), indices into the data set's classes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Split:
    """What stage `split` made; the arrays stay on disk until they are read.

    classes: their names, in the order of the labels.
    origin: what the function of that name returned for its configuration.
    """

    train: Examples
    validation: Examples
    test: Examples
    classes: list[str]
    origin: dict[str, object]
    folder: Path

    def names(self, part: str) -> list[str]:
        """The names of the images, as people see them; none for a data set without any.

        Raises:
            UserError: the file is damaged.
        """
        path = self.folder / f"{part}_names.jsonl"
        if not self.is_user_data() or not path.exists():
            return []
        try:
            return [str(json.loads(line)) for line in path.read_text().splitlines()]
        except ValueError as error:
            raise UserError(f"{path} is damaged: run `dvc repro --force split`") from error

    def units(self, part: str) -> NDArray[np.int64]:
        """(n,): images with the same number, such as duplicates, belong together.

        They are never on both sides, unless the data gives the parts or `data.stratify` is false.
        """
        count = len(getattr(self, part).labels)
        path = self.folder / f"{part}_units.npy"
        if not self.is_user_data():
            return np.arange(count)
        units = _open(path, (np.int64,), 1)
        if len(units) != count:
            raise UserError(f"{path} is damaged: run `dvc repro --force split`")
        return np.asarray(units)

    def unlabelled(self) -> NDArray[np.uint8] | None:
        """The images to predict, in their order, if there are any."""
        path = self.folder / "unlabelled_images.npy"
        return (
            _images(_open(path, (np.uint8,), 4)) if self.is_user_data() and path.exists() else None
        )

    def is_user_data(self) -> bool:
        """Whether these are a user's own images, and not IDX files."""
        return "kind" in self.origin

    @property
    def image_shape(self) -> list[int]:
        """Height, width and channels of every image."""
        return list(self.train.images.shape[1:])


def pool(first: Examples, second: Examples) -> Examples:
    """The examples of both, each a whole part as it is on disk and not some of its rows."""
    labels = np.concatenate([first.labels, second.labels])
    files: list[Any] = []
    for images in (first.images, second.images):
        files += images.files if isinstance(images, StoredImages) else [images]
    if any(isinstance(part.images, StoredImages) for part in (first, second)):
        return Examples(cast("NDArray[np.uint8]", StoredImages(files)), labels)
    return Examples(np.concatenate([first.images, second.images]), labels)


def take(examples: Examples, rows: NDArray[np.int64]) -> Examples:
    """Some of the examples, in this order."""
    images: Any = examples.images
    chosen: Any = images.rows(rows) if isinstance(images, StoredImages) else images[rows]
    return Examples(chosen, examples.labels[rows])


def save_split(folder: Path, parts: dict[str, Examples], origin: dict[str, object]) -> None:
    """Write `{part}_images.npy` and `{part}_labels.npy` for each part, and where they come from.

    Raises:
        UserError: the folder can't be written, or the disk is full.
    """
    with atomic_folder(folder, replace=True) as fresh:
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
            _images(_open(folder / f"{part}_images.npy", (np.uint8,), 4)),
            _open(folder / f"{part}_labels.npy", (np.uint8, np.uint16), 1),
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
    return Split(**parts, classes=classes, origin=origin, folder=folder)


def _images(array: np.memmap) -> NDArray[np.uint8]:
    # It is indexed like an array.
    return cast("NDArray[np.uint8]", StoredImages([array])) if array.nbytes > LARGE else array


def _open(path: Path, types: tuple[type, ...], dimensions: int) -> np.memmap:
    """Map a .npy file into memory; whatever its header declares, nothing is allocated."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        assert array.offset is not None
        if array.dtype not in types or array.ndim != dimensions:
            raise ValueError(f"{array.dtype} {array.shape}")
        if array.offset + array.nbytes != path.stat().st_size:
            raise ValueError("not as many bytes as the header declares")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run `dvc repro split`") from error
    except (*HEADER_ERRORS, EOFError, OverflowError) as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({cause}): run `dvc repro --force split`") from error
    return array
