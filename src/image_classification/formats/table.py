"""Tables: a manifest that names image files and their labels, as CSV or JSON lines."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.formats import pixel_table
from image_classification.formats.records import ImageRecord, Problem, Reading, part_named

FILE_COLUMNS = ("file_name", "path", "image")
SUFFIXES = (".csv", ".jsonl")

Row = tuple[int, dict[str, Any]]  # the number of its line, and its values by column


def read(data: DataConfig) -> Reading:
    """Read the table, or the tables, at `data.path`: pixels, or the names of image files.

    A manifest has a column `file_name`, `path` or `image`, relative to its folder, a `label`, and
    optionally `split` and `group`; other columns are ignored.

    Raises:
        UserError: there is no table, several manifests, or one that can't be read.
    """
    tables = _tables(Path(data.path), data.table)
    if all(pixel_table.is_pixel_table(table) for table in tables):
        return pixel_table.read(tables, data)
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise UserError(f"data.path: {data.path} holds {names}: name one with data.table")
    (table,) = tables
    if Path(data.path).is_file():
        raise UserError(
            f"data.path: {table} names other files, whose changes would go unnoticed: set "
            f"data.path to {table.parent} and data.table to {table.name}"
        )
    return _manifest(table)


def is_manifest(table: Path) -> bool:
    """Whether a file is a table by its suffix, and not a table of pixels."""
    return table.suffix.lower() in SUFFIXES and not pixel_table.is_pixel_table(table)


def named_files(table: Path) -> Iterator[ImageRecord | Problem]:
    """The image files that a manifest names, one after another; labels do not count.

    Raises:
        UserError: it can't be read, or has no column of names.
    """
    for line, row in _rows(table, labelled=False):
        named = [row[column] for column in FILE_COLUMNS if row.get(column)]
        if len(named) == 1:
            yield ImageRecord(str(named[0]), None, table.parent / str(named[0]))
        else:
            place = f"{table.name}, line {line}"
            yield Problem(place, f"names no file under {' or '.join(FILE_COLUMNS)}")


def _tables(path: Path, name: str | None) -> list[Path]:
    if name is not None:
        tables = [path / name]
    elif path.is_file():
        tables = [path]
    else:
        tables = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not tables or not all(table.is_file() for table in tables):
        wanted = name or "a table, *.csv or *.jsonl"
        raise UserError(f"data.path: {path} does not hold {wanted}: set data.path or data.table")
    return tables


def _manifest(table: Path) -> Reading:
    folder = table.parent.resolve()
    records: list[ImageRecord] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for line, row in _rows(table):
        place = f"{table.name}, line {line}"
        named = [row[column] for column in FILE_COLUMNS if row.get(column)]
        label, split = row.get("label"), row.get("split")
        part = part_named(str(split)) if split else None
        if None in row:
            problems.append(Problem(place, "has more values than there are columns"))
        elif len(named) != 1:
            problems.append(Problem(place, f"names no file under {' or '.join(FILE_COLUMNS)}"))
        elif label in (None, ""):
            problems.append(Problem(str(named[0]), f"has no label ({place})"))
        elif split and part is None:
            problems.append(Problem(str(named[0]), f"unknown split {split!r:.50} ({place})"))
        else:
            name = str(named[0])
            file = (folder / name).resolve()
            if not file.is_relative_to(folder):
                problems.append(Problem(name, f"lies outside of {table.parent} ({place})"))
            elif not file.is_file():
                problems.append(Problem(name, f"is missing ({place})"))
            elif name in seen:
                problems.append(Problem(name, f"is listed twice ({place})"))
            else:
                group = row.get("group")
                group = None if group in (None, "") else str(group)
                records.append(ImageRecord(name, str(label), folder / name, part, group))
            seen.add(name)
    return Reading(records, problems)


def _rows(table: Path, labelled: bool = True) -> Iterator[Row]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            if table.suffix.lower() == ".csv":
                reader = csv.DictReader(stream, strict=True)
                _require_columns(table, reader.fieldnames or (), labelled)
                for row in reader:
                    yield reader.line_num, row
            else:
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        row = json.loads(line)
                        if not isinstance(row, dict):
                            raise ValueError(f"line {number} is not a JSON object")
                        yield number, row
    except (ValueError, csv.Error, RecursionError) as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{table} can't be read: {cause}: fix it") from error


def _require_columns(table: Path, columns: Any, labelled: bool) -> None:
    named = [column for column in FILE_COLUMNS if column in columns]
    if len(named) != 1 or (labelled and "label" not in columns):
        raise UserError(
            f"{table}: needs one of the columns {', '.join(FILE_COLUMNS)}"
            f"{', and label' if labelled else ''}; it has "
            f"{', '.join(map(str, columns))[:200] or 'none'}"
        )
