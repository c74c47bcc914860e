"""Predictions as text or as a table, written a part at a time."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32]
FORMATS = ("table", "json", "csv", "parquet")
NAMES = (12, 60)  # the narrowest and the widest column of names in a table for people


class Output(Protocol):
    """Takes predictions as they come."""

    def write(self, names: Sequence[str], probabilities: Probabilities) -> None:
        """Write one part.

        Args:
            names: (n,), of the images.
            probabilities: float32 (n, classes).
        """

    def close(self) -> None:
        """Complete what has been written."""


class Table:
    """Columns that people read: the class, and the next best one."""

    def __init__(self, target: TextIO, classes: Sequence[str]) -> None:
        self._target = target
        self._classes = classes
        self._width = 0  # of the names
        self._widest = max(5, *(len(name) for name in classes))

    def write(self, names: Sequence[str], probabilities: Probabilities) -> None:
        """See `Output`."""
        if not self._width:
            longest = max(len(name) for name in names)
            self._width = min(max(longest, NAMES[0]), NAMES[1])
            self._line("file", "class", "probability", *self._next_best("runner-up", ""))
        for name, row in zip(names, probabilities, strict=True):
            best, *others = np.argsort(-row, kind="stable")
            second = others[0] if others else best
            self._line(
                name,
                self._classes[best],
                f"{row[best]:.2%}",
                *self._next_best(self._classes[second], f"{row[second]:.2%}"),
            )

    def _next_best(self, name: str, probability: str) -> list[str]:
        return [name, probability] if len(self._classes) > 1 else []

    def _line(self, file: str, name: str, probability: str, *rest: str) -> None:
        cells = [f"{file:<{self._width}}", f"{name:<{self._widest}}", f"{probability:>11}"]
        if rest:
            cells += [f"{rest[0]:<{max(7, self._widest)}}", f"{rest[1]:>7}"]
        print("  ".join(cells).rstrip(), file=self._target)

    def close(self) -> None:
        """See `Output`."""
        self._target.flush()


class Lines:
    """JSON, one object a line."""

    def __init__(self, target: TextIO, classes: Sequence[str]) -> None:
        self._target = target
        self._classes = classes

    def write(self, names: Sequence[str], probabilities: Probabilities) -> None:
        """See `Output`."""
        for name, row in zip(names, probabilities, strict=True):
            found = {
                "file": name,
                "predicted": self._classes[int(row.argmax())],
                "probabilities": dict(zip(self._classes, map(_rounded, row), strict=True)),
            }
            self._target.write(json.dumps(found, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """See `Output`."""
        self._target.flush()


class Csv:
    """The columns of predictions/unlabelled.csv, which `evaluate` writes."""

    def __init__(self, target: TextIO, classes: Sequence[str]) -> None:
        self._classes = classes
        self._target = target
        self._writer = csv.writer(target, lineterminator="\n")
        self._writer.writerow(columns(classes))

    def write(self, names: Sequence[str], probabilities: Probabilities) -> None:
        """See `Output`."""
        for name, row in zip(names, probabilities, strict=True):
            best = self._classes[int(row.argmax())]
            self._writer.writerow([name, best, *map(_rounded, row)])

    def close(self) -> None:
        """See `Output`."""
        self._target.flush()


class Parquet:
    """The same columns in a Parquet file, a row group for each part."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        import pyarrow as pa  # slow to import, only used here
        import pyarrow.parquet

        self._arrow: Any = pa
        self._classes = classes
        texts = [(name, pa.string()) for name in columns([])]
        numbers = [(name, pa.float32()) for name in columns(classes)[2:]]
        self._schema = pa.schema([*texts, *numbers])
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)

    def write(self, names: Sequence[str], probabilities: Probabilities) -> None:
        """See `Output`."""
        best = [self._classes[index] for index in probabilities.argmax(axis=1)]
        values = [list(names), best, *probabilities.T]
        self._writer.write_table(self._arrow.table(values, self._schema))

    def close(self) -> None:
        """See `Output`."""
        self._writer.close()


TEXTS: dict[str, Callable[[TextIO, Sequence[str]], Output]] = {
    "table": Table,
    "json": Lines,
    "csv": Csv,
}


def text(form: str, target: TextIO, classes: Sequence[str]) -> Output:
    """An output of one of the formats that are text."""
    return TEXTS[form](target, classes)


@contextmanager
def to_file(form: str, path: Path, classes: Sequence[str]) -> Iterator[Output]:
    """Write a file of one of FORMATS.

    Raises:
        OSError: it can't be written.
    """
    if form == "parquet":
        table = Parquet(path, classes)
        try:
            yield table
        finally:
            table.close()
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        yield text(form, stream, classes)


def columns(classes: Sequence[str]) -> list[str]:
    """The names of the columns of CSV and Parquet."""
    return ["file", "predicted", *(f"probability_{name}" for name in classes)]


def _rounded(probability: np.float32) -> float:
    """As many digits as a float32 has."""
    return float(f"{probability:.7g}")
