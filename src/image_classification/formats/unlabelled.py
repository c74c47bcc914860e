"""Images to predict: what files, folders, tables and archives hold, one after another."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.formats import pixel_table, table
from image_classification.formats.decode import SUFFIXES
from image_classification.formats.idx import is_idx, stream_idx
from image_classification.formats.listing import visible_files
from image_classification.formats.npz import ERRORS
from image_classification.formats.records import ImageRecord, Problem

ARRAYS = (".npy", ".npz")


def images(path: Path, shape: Sequence[int]) -> Iterator[ImageRecord | Problem]:
    """The images that a path leads to, and what of it can't be used.

    Args:
        path: an image file; a folder, of which the image files below count; a table of pixels or
            of file names (CSV, JSON lines); an IDX file; or NumPy's .npy or .npz.
        shape: height, width and channels of the images in a table of pixels.

    Raises:
        UserError: a table or an array can't be read.
    """
    if path.is_dir():
        yield from _in_folder(path)
    elif not path.exists():
        yield Problem(str(path), "is missing")
    elif table.is_manifest(path):
        yield from table.named_files(path)
    elif path.suffix.lower() in table.SUFFIXES:
        data = DataConfig(name="table", kind="table", image_shape=list(shape))
        yield from pixel_table.stream(path, data)
    elif path.suffix.lower() in ARRAYS:
        yield from _in_arrays(path)
    elif is_idx(path):
        for index, image in enumerate(stream_idx(path)):
            yield ImageRecord(f"{path}[{index}]", None, image)
    else:
        yield ImageRecord(str(path), None, path)


def _in_folder(folder: Path) -> Iterator[ImageRecord | Problem]:
    found = False
    for path in visible_files(folder):
        if path.suffix.lower() in SUFFIXES:
            found = True
            yield ImageRecord(str(path), None, path)
    if not found:
        yield Problem(str(folder), f"holds no image ({', '.join(SUFFIXES)})")


def _in_arrays(path: Path) -> Iterator[ImageRecord | Problem]:
    """The images of an array, (n, height, width[, channels]); of an archive, all such arrays."""
    try:
        if path.suffix.lower() == ".npy":
            yield from _of_array(str(path), np.load(path, mmap_mode="r", allow_pickle=False))
            return
        with np.load(path, allow_pickle=False) as archive:
            names = [name for name in archive.files if name.endswith("images")]
            for name in names:
                yield from _of_array(f"{path}:{name}", archive[name])
        if not names:
            yield Problem(str(path), "holds no array whose name ends in `images`")
    except ERRORS as error:
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} can't be read: {cause}: fix it") from error


def _of_array(name: str, array: NDArray[Any]) -> Iterator[ImageRecord | Problem]:
    if array.ndim not in (3, 4):
        yield Problem(name, f"an array of shape {array.shape} holds no images")
        return
    for index, image in enumerate(array):
        yield ImageRecord(f"{name}[{index}]", None, np.asarray(image))
