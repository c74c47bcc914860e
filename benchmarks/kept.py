"""What an unfinished benchmark has measured, on disk, so that a killed one resumes where it was."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from image_classification.core.files import atomic_folder, remove_empty

FILE = "measured.json"
T = TypeVar("T")


class Kept:
    """The measurements of one benchmark, by key; nothing else writes their file.

    Each is on disk as soon as it is made, and is not made again: neither by a later part that
    needs it as well, nor by a later call after a kill.
    """

    def __init__(self, folder: Path, stamp: Mapping[str, str]) -> None:
        """Take over what is in the folder, if it has the same stamp.

        Args:
            folder: for this benchmark alone.
            stamp: what measurements depend on, by name.
        """
        self.folder = folder
        self._stamp = dict(stamp)
        self._measured: dict[str, Any] = {}  # the seconds that each took, and its value
        self._used: set[str] = set()
        self.origin = self._take_over()  # a line that says what was taken over, or why nothing

    def _take_over(self) -> str:
        try:
            found = json.loads((self.folder / FILE).read_text())
            changed = [
                f"{name} ({found['stamp'].get(name)} to {value})"
                for name, value in self._stamp.items()
                if found["stamp"].get(name) != value
            ]
            measured = found["measured"]
        except FileNotFoundError:
            changed, measured = [], {}
        except (ValueError, KeyError, TypeError, AttributeError):
            changed, measured = [f"{self.folder / FILE}, which can't be read"], {}
        if measured and not changed:
            self._measured = measured
            spent = tqdm.format_interval(self.waiting)
            return f"resumes: {len(measured)} measurement(s) reused, {spent} of work"
        shutil.rmtree(self.folder, ignore_errors=True)
        if changed:
            return "starts afresh: since the last measurement changed " + ", ".join(changed)
        return "starts: nothing is kept of an earlier call"

    def once(self, key: str, measure: Callable[[], T]) -> T:
        """What is kept under the key; else measure it and keep it.

        Args:
            key: which measurement it is, the round included.
            measure: returns what JSON can hold.
        """
        if key not in self._measured:
            start = time.monotonic()
            value = measure()
            seconds = time.monotonic() - start
            self._measured[key] = {"seconds": seconds, "value": value}
            contents = {"stamp": self._stamp, "measured": self._measured}
            with atomic_folder(self.folder) as part:
                (part / FILE).write_text(json.dumps(contents, indent=1))
        self._used.add(key)
        kept: T = self._measured[key]["value"]
        return kept

    @property
    def spent(self) -> float:
        """Seconds that all measurements used so far took, made by this call or an earlier one."""
        return sum(float(self._measured[key]["seconds"]) for key in self._used)

    @property
    def waiting(self) -> float:
        """Seconds that those took that an earlier call made and that are not used yet."""
        return sum(float(one["seconds"]) for one in self._measured.values()) - self.spent

    def remove(self) -> None:
        """Remove everything: the benchmark is finished."""
        shutil.rmtree(self.folder)
        remove_empty(self.folder.parent)
