"""What a server has seen lately: a bounded sample of anonymous statistics, on disk as well.

observations/NAME.npz holds those of one model and of the last day, by the hour; NAME+2.npz those of
a second server at the same time, and so on. No image, no address and no time of a single request is
kept.
"""

import itertools
import random
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.monitoring.statistics import NAMES, Statistics, describe, join

HOURS = 24  # that are kept
RESERVOIR_SIZE = 500  # images of an hour that are kept, drawn at random from all
BATCH = 64  # images that are described at once
HOUR = 3600  # seconds
LARGEST_FILE = 2**24  # bytes
# Damaged files raise any of these; a header that declares too much raises MemoryError.
FILE_ERRORS = (ValueError, TypeError, KeyError, SyntaxError, EOFError, OverflowError, MemoryError)
ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Window:
    """What was seen of one model's requests.

    key: of the model's run.
    begin, end: seconds since 1970 of the first and the last request.
    seen: how many images came in.
    statistics: of those that were drawn from them.
    """

    key: str
    begin: float
    end: float
    seen: int
    statistics: Statistics


@dataclass
class _Hour:
    number: int  # of the hour since 1970
    begin: float
    end: float
    seen: int = 0
    values: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((RESERVOIR_SIZE, len(NAMES)), np.float32)
    )
    classes: NDArray[np.int32] = field(default_factory=lambda: np.zeros(RESERVOIR_SIZE, np.int32))

    @property
    def kept(self) -> int:
        return min(self.seen, RESERVOIR_SIZE)


class Observations:
    """The observations of one server process; for several threads."""

    def __init__(
        self, name: str, clock: Callable[[], float] = time.time, seed: int | None = None
    ) -> None:
        """Continue with what is on disk for this data set, if that can be read.

        Each process has a file of its own, the first that no other process holds.
        """
        self._path, self._claim = _claimed(name)
        self._clock, self._random = clock, random.Random(seed)
        self._lock, self._changed = threading.Lock(), False
        self._writing = threading.Lock()  # the timer's thread may still write when the server ends
        self._waiting: list[tuple[list[int], NDArray[np.uint8], NDArray[np.floating]]] = []
        try:
            self._key, self._hours = _read(self._path)
        except (UserError, OSError):
            self._key, self._hours = "", []

    def observe(
        self, key: str, images: NDArray[np.uint8], probabilities: NDArray[np.floating]
    ) -> None:
        """Count a batch of images that a model has answered, and keep some of their statistics.

        Args:
            key: of the model's run; what another model has seen is forgotten.
            images: uint8 (n, height, width, channels), as the model saw them.
            probabilities: (n, classes).
        """
        with self._lock:
            if key != self._key:
                self._key, self._hours, self._waiting = key, [], []
            hour = self._hour()
            slots = self._slots(hour.seen, len(images))
            hour.seen += len(images)
            self._changed = True
            chosen = [index for index, slot in enumerate(slots) if slot < RESERVOIR_SIZE]
            if chosen:
                kept = [slots[index] for index in chosen]
                self._waiting.append((kept, images[chosen], probabilities[chosen]))
                if sum(len(part[0]) for part in self._waiting) >= BATCH:
                    self._settle()

    def write(self) -> None:
        """Write what is new to disk; a server's timer calls this.

        Raises:
            UserError: the file can't be written, or the disk is full.
        """
        with self._writing:
            with self._lock:
                if not self._changed:
                    return
                self._settle()
                contents = _contents(self._key, self._hours)
                self._changed = False
            part = self._path.with_suffix(".part")
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with part.open("wb") as stream:
                    np.savez(stream, allow_pickle=False, **contents)
                part.replace(self._path)
            except OSError as error:
                self._changed = True
                cause = error.strerror or error
                raise UserError(f"{self._path} can't be written: {cause}") from error

    def _hour(self) -> _Hour:
        """The current hour; those that are too old are dropped."""
        now = self._clock()
        number = int(now // HOUR)
        if not self._hours or self._hours[-1].number != number:
            self._settle()
            kept = [hour for hour in self._hours if number - HOURS < hour.number < number]
            self._hours = [*kept, _Hour(number, now, now)]
        self._hours[-1].end = now
        return self._hours[-1]

    def _slots(self, seen: int, count: int) -> list[int]:
        """The slot of each image, which is kept if below RESERVOIR_SIZE.

        All images of an hour are equally likely to be kept: Vitter's algorithm R, "Random sampling
        with a reservoir" (1985).
        """
        numbers = range(seen, seen + count)  # few at once: NumPy would take longer
        draw = self._random.random
        return [
            number if number < RESERVOIR_SIZE else int(draw() * (number + 1)) for number in numbers
        ]

    def _settle(self) -> None:
        """Describe the images that wait, all of the last hour."""
        if not self._waiting:
            return
        slots, images, probabilities = map(np.concatenate, zip(*self._waiting, strict=True))
        self._waiting = []
        hour = self._hours[-1]
        hour.values[slots], hour.classes[slots] = describe(images, probabilities)


def path_of(name: str, number: int = 1) -> Path:
    """The file of the observations of a data set's models, of one of the servers at once."""
    return paths.OBSERVATIONS / (f"{name}.npz" if number == 1 else f"{name}+{number}.npz")


def _claimed(name: str) -> tuple[Path, FileLock | None]:
    """A file that no other process writes, and the lock on it; None where none can be written."""
    with suppress(OSError):
        paths.OBSERVATIONS.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            path = path_of(name, number)
            lock = FileLock(path.with_suffix(".lock"))
            with suppress(Timeout):
                lock.acquire(blocking=False)
                return path, lock
    return path_of(name), None


def read(name: str, hours: float = HOURS, now: float | None = None) -> Window:
    """What all servers saw of the latest model, in the hours that ended in the last so many.

    Raises:
        UserError: nothing was observed in that time, or the file is damaged.
    """
    path = path_of(name)
    others = sorted(paths.OBSERVATIONS.glob(f"{name}+*.npz"))
    files = [_read(file) for file in (path, *others) if file.exists()] or [_read(path)]
    found = [(hour, model) for model, its_hours in files for hour in its_hours]
    _, key = max(found, key=lambda one: one[0].end, default=(None, ""))
    since = (time.time() if now is None else now) - HOUR * hours
    chosen = [hour for hour, model in found if model == key and hour.end >= since and hour.seen]
    if not chosen:
        raise UserError(f"{path} holds nothing of the last {hours:g} hours: increase --hours")
    rows = [Statistics(hour.values[: hour.kept], hour.classes[: hour.kept]) for hour in chosen]
    seen = sum(hour.seen for hour in chosen)
    begin, end = min(hour.begin for hour in chosen), max(hour.end for hour in chosen)
    return Window(key, begin, end, seen, join(rows))


def _contents(key: str, hours: list[_Hour]) -> dict[str, NDArray[Any]]:
    return {
        "key": np.array(key),
        "names": np.array(NAMES),
        "times": np.array([(hour.number, hour.begin, hour.end) for hour in hours], np.float64),
        "seen": np.array([hour.seen for hour in hours], np.int64),
        "values": np.concatenate([hour.values[: hour.kept] for hour in hours]),
        "classes": np.concatenate([hour.classes[: hour.kept] for hour in hours]),
    }


def _read(path: Path) -> tuple[str, list[_Hour]]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"larger than {LARGEST_FILE:,} bytes")
        with np.load(path, allow_pickle=False) as archive:
            return str(archive["key"]), _hours(dict(archive))
    except FileNotFoundError as error:
        hint = "`image-classification serve` observes"
        raise UserError(f"{path} is missing: nothing has been observed: {hint}") from error
    except (*FILE_ERRORS, *ARCHIVE_ERRORS) as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({cause}): delete it") from error


def _hours(arrays: dict[str, NDArray[Any]]) -> list[_Hour]:
    values, classes = arrays["values"], arrays["classes"]
    if tuple(arrays["names"]) != NAMES or values.dtype != np.float32 or classes.dtype != np.int32:
        raise ValueError("other statistics")
    if not np.isfinite(values).all() or classes.min(initial=0) < 0:
        raise ValueError("a number is out of its bounds")
    hours, at = [], 0
    for (number, begin, end), seen in zip(arrays["times"], arrays["seen"], strict=True):
        hour = _Hour(int(number), float(begin), float(end), int(seen))
        hour.values[: hour.kept] = values[at : at + hour.kept]
        hour.classes[: hour.kept] = classes[at : at + hour.kept]
        hours.append(hour)
        at += hour.kept
    if at != len(values) or at != len(classes):
        raise ValueError(f"{len(values)} rows, expected {at}")
    return hours
