"""IDX files, the format that MNIST is published in."""

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from image_classification.core.errors import UserError

UNSIGNED_BYTE = 0x08  # the element type in an IDX header
LARGEST_IMAGE = 2**28  # bytes of one that is read alone


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes.

    The format: two zero bytes, the element type, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the elements, the last dimension varying fastest.

    Raises:
        UserError: the file is missing, or is not exactly what its header says.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run `dvc repro download`")
    hint = f"remove it and run `dvc repro --force --single-item download`: {path}"
    with path.open("rb") as stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:3] != bytes([0, 0, UNSIGNED_BYTE]) or magic[3] == 0:
            raise UserError(f"not an IDX file of unsigned bytes, {hint}")
        header = stream.read(4 * magic[3])
        if len(header) < 4 * magic[3]:
            raise UserError(f"the header is cut short, {hint}")
        shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
        # Compared before anything is allocated: a false header may declare any size.
        expected = math.prod(shape)
        found = path.stat().st_size - stream.tell()
        if found != expected:
            raise UserError(f"the header declares {expected} bytes, {found} follow, {hint}")
        try:
            return np.fromfile(stream, np.uint8).reshape(shape)
        except ValueError as error:  # more dimensions than NumPy has
            raise UserError(f"{error}, {hint}") from error


def is_idx(path: Path) -> bool:
    """Whether a file, which may be gzipped, begins as an IDX file of images does."""
    try:
        with _opened(path) as stream:
            head = stream.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return len(head) == 4 and head[:3] == bytes([0, 0, UNSIGNED_BYTE]) and head[3] in (3, 4)


def stream_idx(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The images of an IDX file, which may be gzipped, one after another.

    Raises:
        UserError: it is cut short, or damaged.
    """
    try:
        with _opened(path) as stream:
            dimensions = stream.read(4)[3]
            count, *shape = np.frombuffer(stream.read(4 * dimensions), ">u4").tolist()
            size = math.prod(shape)
            if size > LARGEST_IMAGE:
                raise UserError(f"{path}: images of {size:,} bytes, at most {LARGEST_IMAGE:,}")
            for number in range(count):
                pixels = stream.read(size)
                if len(pixels) < size:
                    raise UserError(f"{path} is cut short after {number} of {count} images: fix it")
                yield np.frombuffer(pixels, np.uint8).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}: fix it") from error


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
