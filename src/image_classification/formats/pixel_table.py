"""Tables of pixels: a label and one column a pixel, as the study and Kaggle publish MNIST."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.formats.records import Problem, Reading, Record, part_named

FEWEST_COLUMNS = 16  # of pixels; a manifest has a handful
ROWS = 10_000  # read at once


def is_pixel_table(table: Path) -> bool:
    """Whether the first line of a CSV file is that of a table of pixels."""
    if table.suffix.lower() != ".csv":
        return False
    head = _first_line(table)
    return len(head) >= FEWEST_COLUMNS and (head[0] in ("label", "pixel0") or _is_number(head[0]))


def read(tables: Sequence[Path], data: DataConfig) -> Reading:
    """Read tables of pixels; the name of a table may be that of its part (train.csv, test.csv).

    With one column more than there are pixels, the first is the label. Without it the images are
    to be predicted. A header line may be there or not.

    Raises:
        UserError: the columns make no image.
    """
    records: list[Record] = []
    problems: list[Problem] = []
    to_predict = 0  # as Kaggle counts them, on through all tables
    for table in tables:
        part = part_named(table.stem) if len(tables) > 1 else None
        head = _first_line(table)
        shape, labelled = _shape(table, len(head), data)
        header = 0 if not _is_number(head[0]) else None
        found, bad, rows = _read(table, header, shape, labelled, part, to_predict, data)
        to_predict += 0 if labelled else rows
        records += found
        problems += bad
    return Reading(records, problems)


def _first_line(table: Path) -> list[str]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            return next(csv.reader(stream), [])
    except (ValueError, csv.Error) as error:
        raise UserError(f"{table} can't be read: {str(error)[:200]}: mend it") from error


def _is_number(text: str) -> bool:
    return text.strip().isdigit()


def _shape(table: Path, columns: int, data: DataConfig) -> tuple[tuple[int, ...], bool]:
    """The shape of an image, and whether its label stands before it."""
    for labelled in (True, False):
        pixels = columns - labelled
        side = math.isqrt(pixels)
        if data.image_shape and math.prod(data.image_shape) == pixels:
            return tuple(data.image_shape), labelled
        if not data.image_shape and side * side == pixels:
            return (side, side, 1), labelled
    wanted = math.prod(data.image_shape) if data.image_shape else "a square number of"
    raise UserError(
        f"{table}: has {columns} columns, expected {wanted} pixels, or a label and as many: mend "
        "it, or set data.image_shape"
    )


def _read(
    table: Path,
    header: int | None,
    shape: tuple[int, ...],
    labelled: bool,
    part: str | None,
    to_predict: int,
    data: DataConfig,
) -> tuple[list[Record], list[Problem], int]:
    """The images, what is wrong, and the number of rows; those to predict are named by number."""
    records, problems = [], []
    first = 1 if header is None else 2  # the line of the first image
    columns = math.prod(shape) + labelled
    number = 0
    try:
        # As text, so that a wrong value is found and named, not guessed at.
        for frame in pd.read_csv(
            table,
            header=header,
            dtype=str,
            chunksize=ROWS,
            keep_default_na=False,
            index_col=False,
            on_bad_lines="error",
        ):
            values = frame.to_numpy()
            pixels = pd.DataFrame(values[:, int(labelled) :]).apply(pd.to_numeric, errors="coerce")
            array = pixels.to_numpy(float)
            good = (array >= 0) & (array <= 255) & (array == np.floor(array))
            images = np.where(good, array, 0).astype(np.uint8)
            for row, image in enumerate(images):
                line, number = first + number, number + 1
                name = f"{table.name}:{line}"
                if not good[row].all():
                    column = int(
                        (~good[row]).argmin() if good[row].all() else (~good[row]).argmax()
                    )
                    value = values[row, column + labelled]
                    cause = f"pixel {column} is {value or 'missing'!s:.20}, not from 0 to 255"
                    problems.append(Problem(name, cause))
                    continue
                label = _label(str(values[row, 0]), data) if labelled else None
                if label == "":
                    problems.append(Problem(name, "has no label"))
                    continue
                # Only what has a label can be a part of what is scored.
                called, place = (name, part) if labelled else (str(to_predict + number), None)
                records.append(Record(called, label, image.reshape(shape), place))
    except (ValueError, pd.errors.ParserError) as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{table} can't be read as {columns} columns: {cause}: mend it") from error
    return records, problems, number


def _label(value: str, data: DataConfig) -> str:
    """A label, or the name of the class that its number stands for."""
    if data.classes and value.isdigit() and value not in data.classes:
        return data.classes[int(value)] if int(value) < len(data.classes) else value
    return value
