"""Tables of pixels: a label and one column per pixel, as the study and Kaggle publish MNIST."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.formats.records import ImageRecord, Problem, Reading, part_named

FEWEST_COLUMNS = 16  # of pixels; a manifest has a handful
LABEL = "label"  # the header of a column
ROWS = 10_000  # read at once


def is_pixel_table(table: Path) -> bool:
    """Whether the first line of a CSV file is that of a table of pixels."""
    if table.suffix.lower() != ".csv":
        return False
    head = _first_line(table)
    return len(head) >= FEWEST_COLUMNS and (head[0] in (LABEL, "pixel0") or _is_number(head[0]))


def read(tables: Sequence[Path], data: DataConfig) -> Reading:
    """Read tables of pixels; the name of a table may be that of its part (train.csv, test.csv).

    With one column more than there are pixels, the one called `label`, or else the first, is the
    label. Without it the images are to be predicted. A header line is optional.

    Raises:
        UserError: the columns do not form an image.
    """
    records: list[ImageRecord] = []
    problems: list[Problem] = []
    to_predict = 0
    for table in tables:
        part = part_named(table.stem) if len(tables) > 1 else None
        shape, labelled = _shape(table, _first_line(table), data)
        found, bad = _read(table, shape, part if labelled else to_predict, data)
        to_predict += 0 if labelled else len(found) + len(bad)
        records += found
        problems += bad
    return Reading(records, problems)


def _first_line(table: Path) -> list[str]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            return next(csv.reader(stream), [])
    except (ValueError, csv.Error) as error:
        raise UserError(f"{table} can't be read: {str(error)[:200]}: fix it") from error


def _is_number(text: str) -> bool:
    return text.strip().isdigit()


def _shape(table: Path, head: list[str], data: DataConfig) -> tuple[tuple[int, ...], bool]:
    """The shape of an image, and whether a column is its label."""
    either = (False,) if head[0] == "pixel0" else (True, False)
    for labelled in (True,) if LABEL in head else either:
        pixels = len(head) - labelled
        side = math.isqrt(pixels)
        if data.image_shape and math.prod(data.image_shape) == pixels:
            return tuple(data.image_shape), labelled
        if not data.image_shape and side * side == pixels:
            return (side, side, 1), labelled
    wanted = math.prod(data.image_shape) if data.image_shape else "a square number of"
    raise UserError(
        f"{table}: has {len(head)} columns, expected {wanted} pixels, or as many and a label, in "
        f"the first column or one called `{LABEL}`: fix it, or set data.image_shape"
    )


def stream(table: Path, data: DataConfig) -> Iterator[ImageRecord | Problem]:
    """The images of a table one after another, with some rows in memory; labels do not count.

    Raises:
        UserError: the columns make no image.
    """
    shape, labelled = _shape(table, _first_line(table), data)
    part_or_offset = None if labelled else 0
    done = 0
    try:
        for found, bad in _parts(table, False, shape, part_or_offset, data):
            yield from found
            yield from bad
            done += 1
        return
    except (ValueError, TypeError, OverflowError):  # a value is no whole number
        pass
    try:
        for found, bad in islice(_parts(table, True, shape, part_or_offset, data), done, None):
            yield from found
            yield from bad
    except ValueError as error:
        raise _misshapen(table, shape, part_or_offset, error) from error


def _read(
    table: Path, shape: tuple[int, ...], part_or_offset: str | int | None, data: DataConfig
) -> tuple[list[ImageRecord], list[Problem]]:
    try:
        return _images(table, False, shape, part_or_offset, data)
    except (ValueError, TypeError, OverflowError):  # a value is no whole number
        pass
    try:
        return _images(table, True, shape, part_or_offset, data)
    except ValueError as error:
        raise _misshapen(table, shape, part_or_offset, error) from error


def _misshapen(
    table: Path, shape: tuple[int, ...], part_or_offset: str | int | None, error: ValueError
) -> UserError:
    columns = math.prod(shape) + (not isinstance(part_or_offset, int))
    cause = " ".join(str(error).split())[:200]
    return UserError(f"{table} can't be read as {columns} columns: {cause}: fix it")


def _images(
    table: Path,
    as_text: bool,
    shape: tuple[int, ...],
    part_or_offset: str | int | None,
    data: DataConfig,
) -> tuple[list[ImageRecord], list[Problem]]:
    """The images of a table: read as text, a wrong value is reported; read as numbers, it raises.

    Args:
        table: the file.
        as_text: how to read it.
        shape: of an image.
        part_or_offset: the part of a table with labels, or how many images to predict come before
            those of a table without; these are named by their numbers, as Kaggle counts them.
        data: see `read`.

    Raises:
        ValueError, TypeError, OverflowError: the table does not have this form.
    """
    records, problems = list[ImageRecord](), list[Problem]()
    for found, bad in _parts(table, as_text, shape, part_or_offset, data):
        records += found
        problems += bad
    return records, problems


def _parts(
    table: Path,
    as_text: bool,
    shape: tuple[int, ...],
    part_or_offset: str | int | None,
    data: DataConfig,
) -> Iterator[tuple[list[ImageRecord], list[Problem]]]:
    """The images of some rows at a time; see `_images`."""
    labelled = not isinstance(part_or_offset, int)
    first = 1
    for line, frame in _frames(table, as_text, labelled):
        records, problems = list[ImageRecord](), list[Problem]()
        pixels = frame.iloc[:, int(labelled) :]
        array = pixels.apply(pd.to_numeric, errors="coerce").to_numpy(float)
        good = (array >= 0) & (array <= 255) & (array == np.floor(array))
        images = np.where(good, array, 0).astype(np.uint8)
        for row, image in enumerate(images):
            name = f"{table.name}:{line + row}"
            if not good[row].all():
                column = int(good[row].argmin())  # the first that is not good
                value = pixels.iat[row, column]
                shown = "missing" if value == "" else value
                cause = f"pixel {column} is {shown!s:.20}, not from 0 to 255"
                problems.append(Problem(name, cause))
                continue
            label = _label(str(frame.iat[row, 0]), data) if labelled else None
            if label == "":
                problems.append(Problem(name, "has no label"))
                continue
            if isinstance(part_or_offset, int):
                name = f"{part_or_offset + first + row}"
            part = part_or_offset if isinstance(part_or_offset, str) else None
            records.append(ImageRecord(name, label, image.reshape(shape), part))
        first += len(frame)
        yield records, problems


def _frames(table: Path, as_text: bool, labelled: bool) -> Iterator[tuple[int, pd.DataFrame]]:
    """Some rows at a time, labels first, and the line of the first; labels are always text."""
    head = _first_line(table)
    has_header = not _is_number(head[0])
    label: Any = (LABEL if LABEL in head else head[0]) if has_header else 0
    types: Any = str if as_text else np.int64
    if labelled and not as_text:
        types = defaultdict(lambda: np.int64, {label: str})
    line = 1 + has_header
    for frame in pd.read_csv(
        table,
        header=0 if has_header else None,
        dtype=types,
        chunksize=ROWS,
        keep_default_na=False,
        index_col=False,
        on_bad_lines="error",
    ):
        if labelled and frame.columns[0] != label:
            frame.insert(0, label, frame.pop(label))
        yield line, frame
        line += len(frame)


def _label(value: str, data: DataConfig) -> str:
    """A label, or the name of the class that its number stands for."""
    if data.classes and value.isdigit() and value not in data.classes:
        return data.classes[int(value)] if int(value) < len(data.classes) else value
    return value
