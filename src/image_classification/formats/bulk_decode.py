"""Many images decoded into one file, by as many processes as there are processors."""

import hashlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from image_classification.core.errors import UserError
from image_classification.core.signals import end_with_parent
from image_classification.formats.decode import DecodeError, ImageHeader, decode, inspect
from image_classification.formats.records import ImageRecord

CHUNK = 64  # images that a process is given at once
EDGE = 0.37  # levels of grey; a smaller difference of two means may come from rounding
MANY = 2000  # from this many images on, progress is shown
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Decoded:
    """What became of the images, in their order.

    hashes: SHA-256 of the pixels; empty where there are none.
    perceptual_hashes: 64 bits each as uint64 (dHash), which near-duplicates share: whether each of
        8 x 8 fields is brighter than the one to its right (Krawetz, "Kind of like that", 2013).
    causes: why an image could not be decoded, by its index.
    """

    hashes: list[bytes]
    perceptual_hashes: NDArray[np.uint64]
    causes: dict[int, str]


def inspect_all(records: Sequence[ImageRecord]) -> list[ImageHeader | str]:
    """What each image is, or why it is not one."""
    return list(_mapped(_inspect_chunk, records, "reading headers"))


def decode_all(records: Sequence[ImageRecord], shape: Shape, resize: str, target: Path) -> Decoded:
    """Decode images into a `.npy` file, uint8 (n, height, width, channels); bad ones are black."""
    array = np.lib.format.open_memmap(target, "w+", np.uint8, (len(records), *shape))
    del array
    work = partial(_decode_chunk, shape=shape, resize=resize, target=target)
    results = list(_mapped(work, records, "decoding"))
    return Decoded(
        [found if isinstance(found, bytes) else b"" for found, _ in results],
        np.array([perceptual_hash for _, perceptual_hash in results], np.uint64),
        {i: found for i, (found, _) in enumerate(results) if isinstance(found, str)},
    )


def _mapped(
    function: Callable[[Any], list[Any]], records: Sequence[ImageRecord], title: str
) -> Iterator[Any]:
    numbered = list(enumerate(records))
    chunks = [numbered[start : start + CHUNK] for start in range(0, len(numbered), CHUNK)]
    hidden = len(records) < MANY or not sys.stderr.isatty()
    progress = tqdm(total=len(records), desc=title, unit=" images", disable=hidden)
    in_files = all(isinstance(record.image, Path) for record in records)
    with progress:
        if not in_files or len(chunks) < 2:  # arrays would be copied between processes
            for chunk in chunks:
                yield from function(chunk)
                progress.update(len(chunk))
            return
        context = multiprocessing.get_context("forkserver")
        try:
            with ProcessPoolExecutor(_processors(), context, initializer=_begin) as pool:
                for results in pool.map(function, chunks):
                    yield from results
                    progress.update(len(results))
        except BrokenProcessPool as error:
            raise UserError(
                "a process that decodes images was killed, perhaps for lack of memory: repeat the "
                "command"
            ) from error


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin() -> None:
    """Leave Ctrl-C to the parent, and end when it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _inspect_chunk(chunk: Sequence[tuple[int, ImageRecord]]) -> list[ImageHeader | str]:
    results: list[ImageHeader | str] = []
    for _, record in chunk:
        try:
            results.append(inspect(record.image))
        except (DecodeError, OSError) as error:
            results.append(str(error))
    return results


def _decode_chunk(
    chunk: Sequence[tuple[int, ImageRecord]], shape: Shape, resize: str, target: Path
) -> list[tuple[bytes | str, int]]:
    images = np.zeros((len(chunk), *shape), np.uint8)
    found: list[bytes | str] = []
    for place, (_, record) in enumerate(chunk):
        try:
            images[place] = decode(record.image, shape, resize)
        except (DecodeError, OSError) as error:
            found.append(str(error))
        else:
            found.append(hashlib.sha256(images[place]).digest())
    first, _ = chunk[0]
    np.lib.format.open_memmap(target, "r+")[first : first + len(chunk)] = images
    return list(zip(found, perceptual_hashes(images), strict=True))


def perceptual_hashes(images: NDArray[np.uint8]) -> list[int]:
    """The perceptual hash of each image: see Decoded.

    Args:
        images: (n, height, width, channels).
    """
    count, height, width, channels = images.shape
    lines = images.reshape(count, height, width * channels).astype(np.float32)
    columns = np.repeat(_weights(9, width), channels, axis=1) / channels
    fields = _weights(8, height) @ (lines @ columns.T)
    brighter = fields[:, :, :-1] - fields[:, :, 1:] > EDGE
    bits = np.packbits(brighter, axis=None).reshape(count, 8)
    return [int.from_bytes(row.tobytes(), "big") for row in bits]


def _weights(fields: int, pixels: int) -> NDArray[np.float32]:
    """What each pixel adds to the mean of each of the equal fields of a side: (fields, pixels)."""
    edges = np.linspace(0, pixels, fields + 1)[:, None]
    covered = np.clip(edges - np.arange(pixels), 0, 1)
    shares = np.diff(covered, axis=0)
    weights: NDArray[np.float32] = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights
