"""CSV files that stages wrote, read within stated limits."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from image_classification.core.errors import UserError
from image_classification.core.readers import MOST_VALUES

LARGEST_TABLE = 2**24  # bytes of a file, besides those for the rows that are asked for
LARGEST_NUMBER = 32  # bytes of a number in such a row


def read_table(path: Path, columns: Mapping[str, type], rows: int, hint: str) -> pd.DataFrame:
    """Read a CSV file.

    Args:
        path: the file.
        columns: those that it must have, and their types; if one is of strings, an empty
            field is an empty string, otherwise NaN.
        rows: the most that it may have.
        hint: what the user can do about it.

    Raises:
        UserError: the file is missing, too large, or lacks a column; ends with the hint.
    """
    largest = LARGEST_TABLE + LARGEST_NUMBER * rows * len(columns)
    try:
        if path.stat().st_size > largest:
            raise ValueError(f"larger than {largest} bytes")
        table = pd.read_csv(
            path,
            dtype=dict(columns),
            nrows=rows + 1,
            index_col=False,
            keep_default_na=str not in columns.values(),
        )
        missing = [name for name in columns if name not in table.columns]
        if missing:
            raise ValueError(f"lacks the column {missing[0]}")
        if any(np.isinf(table[name]).any() for name, kind in columns.items() if kind is not str):
            raise ValueError("holds an infinite number")
        if len(table) > rows:
            raise ValueError(f"has more than {rows} rows")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {hint}") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())[:200]}: {hint}") from error
    return table


def read_history(path: Path, hint: str) -> pd.DataFrame:
    """One row per epoch, as in fit.EpochReporter."""
    names = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch_seconds")
    return read_table(path, {"epoch": int, **dict.fromkeys(names, float)}, MOST_VALUES, hint)


def read_layers(path: Path, hint: str) -> pd.DataFrame:
    """One row per layer, as in build.layer_table."""
    columns = {"layer": str, "type": str, "output_shape": str, "parameters": int}
    table = read_table(path, columns, MOST_VALUES, hint)
    return table[list(columns)]
