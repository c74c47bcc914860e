"""A Python file of the user's own, for everything that no other kind can read."""

import runpy
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.formats.records import ImageRecord, Problem, Reading, part_named

CLASS = "Images"  # in the file


def read(data: DataConfig) -> Reading:
    """Run the file and iterate over its class `Images`.

    An instance, made without arguments, yields one tuple per image: the image (a path, relative to
    the file, or an array of bytes), its label, and optionally its part and its group.

    Raises:
        UserError: there is no such class, or it raises an error; names the line.
    """
    file = Path(data.path)
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"data.path: {file} is not a Python file")
    try:
        images = runpy.run_path(str(file)).get(CLASS)
        if images is None:
            raise UserError(f"{file} has no class {CLASS}: write one")
        rows = list(images())
    except UserError:
        raise
    except Exception as error:  # whatever that file does
        lines = [
            step.lineno
            for step in traceback.extract_tb(error.__traceback__)
            if step.filename == str(file)
        ]
        where = f"{file}, line {lines[-1]}" if lines else str(file)
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: {type(error).__name__}: {cause}: fix it") from error
    found = [_record(index, row, file.parent) for index, row in enumerate(rows)]
    return Reading(
        [each for each in found if isinstance(each, ImageRecord)],
        [each for each in found if isinstance(each, Problem)],
    )


def _record(index: int, row: Any, folder: Path) -> ImageRecord | Problem:
    place = f"image {index}"
    if not isinstance(row, tuple) or not 2 <= len(row) <= 4:
        return Problem(place, "must be a tuple (image, label), optionally with part and group")
    image, label, part, group = (*row, None, None)[:4]
    if isinstance(image, np.ndarray):
        source: Any = image
    elif isinstance(image, str | Path):
        source = folder / image
        place = str(image)
        if not source.is_file():
            return Problem(place, "is missing")
    else:
        return Problem(place, f"must be a path or an array, is {type(image).__name__}")
    known = part_named(str(part)) if part is not None else None
    if part is not None and known is None:
        return Problem(place, f"unknown part {part!r:.50}")
    if label is None or str(label) == "":
        return Problem(place, "has no label")
    return ImageRecord(place, str(label), source, known, None if group is None else str(group))
