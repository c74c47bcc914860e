"""The event log of a run: what happened, as JSON objects, one a line, in order.

A run writes its event log to disk first; MLflow's database is a view of these files, which can be
uploaded again and again. Times are milliseconds since 1970. What each type of event holds:

run        key, experiment; and, where the run begins: name, start, tags, parent (an event like
           this one, or null), mlflow_run (its id, if `mlflow run` has opened it, or null)
resume     tags: the run resumes in another process
params     values
data       name, hash, source, examples, shape (of an image): what was trained on
metrics    values, step, time, of_model: whether they belong to the run's model as well
artifacts  path: where in the run the files beside this one go, or only those in `inside`, if given
tables     path: where in the run those artifacts are that MLflow's pages show and compare as tables
model      name, sha256 (of the file beside this one), image_shape, classes: the run's model
inputs     runs: the keys of the runs whose models were compared
versions   name, description, cards: descriptions of versions by the keys of their runs, in order
aliases    name, values: alias to key
note       text: Markdown; its links `(run:KEY…)`, `(runs:)` and `(compare:KEY,KEY…)` lead to a run,
           to the table of all runs, and to runs side by side; so in cards
end        status, time
"""

import errno
import hashlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from image_classification.core import paths
from image_classification.core.errors import UserError

FIELDS: dict[str, dict[str, type]] = {  # that an event of each type must have
    "run": {"key": str, "experiment": str},
    "resume": {"tags": dict},
    "params": {"values": dict},
    "data": {"name": str, "hash": str, "source": str, "examples": int, "shape": list},
    "metrics": {"values": dict, "step": int, "time": int, "of_model": bool},
    "artifacts": {"path": str},
    "tables": {"path": str},
    "model": {"name": str, "sha256": str, "image_shape": list, "classes": int},
    "inputs": {"runs": list},
    "versions": {"name": str, "description": str, "cards": dict},
    "aliases": {"name": str, "values": dict},
    "note": {"text": str},
    "end": {"status": str, "time": int},
}

TIMES = ("start", "time")  # fields that hold one

LARGEST = 2**28  # bytes of a file: weeks of system metrics, sampled every two seconds

Event = dict[str, Any]


def now(after: Iterable[Event] = ()) -> int:
    """Milliseconds since 1970; not before these events, even if the clock has been set back."""
    return max(time.time_ns() // 1_000_000, _latest(after))


def _latest(events: Iterable[Event]) -> int:
    return max((event[key] for event in events for key in TIMES if key in event), default=0)


def new_key() -> str:
    """A new key of a run: what it is found by in any MLflow store, whose own ids differ."""
    return uuid.uuid4().hex


def read(path: Path) -> list[Event]:
    """The events of a file; a last one that was cut short does not count.

    Raises:
        UserError: there is no such file, or a line of it is not an event.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST} bytes")
        whole, _, _ = path.read_text().rpartition("\n")
        found = [json.loads(line) for line in whole.split("\n") if line]
        for event in found:
            for name, kind in FIELDS[event["type"]].items():
                if not isinstance(event[name], kind):
                    raise ValueError(f"{name} must be a {kind.__name__}")
            if not isinstance(event.get("tags", {}), dict):
                raise ValueError("tags must be a dict")
            if not isinstance(event.get("start", 0), int):
                raise ValueError("start must be an int")
        if found and found[0]["type"] != "run":
            raise ValueError("its first line is not a run")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run `dvc repro`") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not an event log ({error}): run `dvc repro`") from error
    return found


def digest(folder: Path) -> str:
    """The SHA-256, in hexadecimal, of the event log in a folder."""
    return hashlib.sha256((folder / paths.EVENTS_FILE).read_bytes()).hexdigest()


def write(folder: Path, events: list[Event]) -> None:
    """Write a whole event log into a folder."""
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (folder / paths.EVENTS_FILE).write_text(lines)


class EventLog:
    """An event log that grows; what has been appended survives a loss of power."""

    def __init__(self, path: Path) -> None:
        """Open a file or begin one; what a kill left of a last line is cut off.

        A file that holds something else is quarantined, with a message.
        """
        self._path = path
        try:
            read(path)
        except UserError as error:
            if path.exists():
                moved = path.rename(path.with_name(f"quarantined-{path.name}-{time.time_ns()}"))
                print(f"{error}; it is now {moved}, and a new run begins", file=sys.stderr)
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)
        self._file.seek(0, os.SEEK_END)  # `append` takes the position for the end
        self._lock = threading.Lock()
        self.all = read(path)
        self._latest = _latest(self.all)

    def append(self, event_type: str, **fields: Any) -> Event:
        """Append an event; threads may do so at the same time.

        Raises:
            UserError: the disk is full, or can't be written.
        """
        event = {"type": event_type, **fields}
        with self._lock:
            for key in TIMES:
                if key in event:  # the clock may have been set back
                    event[key] = self._latest = max(event[key], self._latest)
            line = json.dumps(event).encode() + b"\n"
            before = self._file.tell()
            try:
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except OSError as error:
                with suppress(OSError):
                    self._file.truncate(before)
                raise UserError(f"{self._path} can't be written: {error.strerror}") from error
            self.all.append(event)
        return event

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def metrics(
    values: Mapping[str, float], step: int, at: int, of_model: bool = False
) -> dict[str, Any]:
    """The fields of an event of metrics."""
    return {"values": dict(values), "step": step, "time": at, "of_model": of_model}
