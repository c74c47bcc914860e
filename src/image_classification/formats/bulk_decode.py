"""Many images decoded into one file, by as many processes as there are processors."""

import ctypes
import hashlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from image_classification.formats.decode import DecodeError, Found, decode, inspect
from image_classification.formats.records import Record

CHUNK = 64  # images that a process is given at once
MANY = 2000  # images, from which on progress is shown
PR_SET_PDEATHSIG = 1  # of Linux' prctl
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Decoded:
    """What became of the images, in their order.

    hashes: SHA-256 of the pixels; empty where there are none.
    outlines: 64 bits that look-alikes share, as uint64: whether each of 8 x 8 fields is brighter
        than the one to its right (Krawetz, "Kind of like that", 2013).
    causes: why an image could not be decoded, by its index.
    """

    hashes: list[bytes]
    outlines: NDArray[np.uint64]
    causes: dict[int, str]


def inspect_all(records: Sequence[Record]) -> list[Found | str]:
    """What each image is, or why it is none."""
    return list(_mapped(_inspect_chunk, records, "reading headers"))


def decode_all(records: Sequence[Record], shape: Shape, resize: str, target: Path) -> Decoded:
    """Decode images into a `.npy` file, uint8 (n, height, width, channels); bad ones are black."""
    array = np.lib.format.open_memmap(target, "w+", np.uint8, (len(records), *shape))
    del array
    work = partial(_decode_chunk, shape=shape, resize=resize, target=target)
    results = list(_mapped(work, records, "decoding"))
    return Decoded(
        [found if isinstance(found, bytes) else b"" for found, _ in results],
        np.array([outline for _, outline in results], np.uint64),
        {i: found for i, (found, _) in enumerate(results) if isinstance(found, str)},
    )


def _mapped(
    function: Callable[[Any], list[Any]], records: Sequence[Record], title: str
) -> Iterator[Any]:
    numbered = list(enumerate(records))
    chunks = [numbered[start : start + CHUNK] for start in range(0, len(numbered), CHUNK)]
    hidden = len(records) < MANY or not sys.stderr.isatty()
    progress = tqdm(total=len(records), desc=title, unit=" images", disable=hidden)
    in_files = all(isinstance(record.image, Path) for record in records)
    with progress:
        if not in_files or len(chunks) < 2:  # arrays would be sent to and fro
            for chunk in chunks:
                yield from function(chunk)
                progress.update(len(chunk))
            return
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(_processors(), context, initializer=_end_with_parent) as pool:
            for results in pool.map(function, chunks):
                yield from results
                progress.update(len(results))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _inspect_chunk(chunk: Sequence[tuple[int, Record]]) -> list[Found | str]:
    results: list[Found | str] = []
    for _, record in chunk:
        try:
            results.append(inspect(record.image))
        except (DecodeError, OSError) as error:
            results.append(str(error))
    return results


def _decode_chunk(
    chunk: Sequence[tuple[int, Record]], shape: Shape, resize: str, target: Path
) -> list[tuple[bytes | str, int]]:
    array = np.lib.format.open_memmap(target, "r+")
    results: list[tuple[bytes | str, int]] = []
    for index, record in chunk:
        try:
            pixels = decode(record.image, shape, resize)
        except (DecodeError, OSError) as error:
            results.append((str(error), 0))
            continue
        array[index] = pixels
        results.append((hashlib.sha256(pixels.tobytes()).digest(), _outline(pixels)))
    return results


def _outline(pixels: NDArray[np.uint8]) -> int:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("L")
    fields = np.asarray(image.resize((9, 8), Image.Resampling.BILINEAR), np.int16)
    bits = np.packbits(fields[:, 1:] < fields[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")
