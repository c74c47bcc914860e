"""Polls the records, and switches to a new champion once it has been tested."""

import ctypes
import gc
import logging
import sys
import threading
import time
from pathlib import Path

from image_classification.core import paths
from image_classification.core.errors import UserError, explain
from image_classification.serving.artifact import DESCRIPTION_FILE, ENGINES
from image_classification.web import limits, served_runs
from image_classification.web.loading import load_models

log = logging.getLogger(__name__)

State = tuple[tuple[int, int], ...]


class Watcher:
    """Holds the models that are served; its thread replaces them.

    Attributes:
        models: those served now; replaced as a whole.
        loads: how many champions have been loaded since the start.
        failures: how many failed to load.
        is_current: whether the last promoted one is served.
    """

    def __init__(self, name: str) -> None:
        """Load the models of a data set.

        Args:
            name: of the data set.

        Raises:
            UserError: there is no champion, or it can't be used.
        """
        self.name = name
        self.loads = self.failures = 0
        self.is_current = True
        self._seen = self._state()  # before what may take minutes
        self.models = load_models(name)
        self._retry_at = float("inf")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Watch no longer."""
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(limits.WATCH_SECONDS):
            state = self._state()
            if state != self._seen or time.monotonic() >= self._retry_at:
                self._seen, self._retry_at = state, float("inf")
                self._reload()
                # Jobs of the old models may still run: their memory is freed one poll later.
                self._end.wait(limits.WATCH_SECONDS)
                give_memory_back()

    def _reload(self) -> None:
        old = self.models
        try:
            self.models = load_models(self.name, old)
        except Exception as error:  # whatever it is, the old models stay in service
            self.failures += 1
            self.is_current = False
            self._retry_at = time.monotonic() + limits.RETRY_SECONDS
            text = explain(error) or f"{type(error).__name__}: {error}"
            log.error("%s stays in service: %s", old.champion.title, text)
            return
        self.is_current = True
        self.loads += self.models.champion is not old.champion
        log.info("%s is served", self.models.champion.title)

    def _state(self) -> State:
        """What changes when a record is added or an artifact replaced."""
        try:
            wanted = served_runs.champion(self.name)
            keys = [*([wanted.key] if wanted else []), *served_runs.best_runs()]
        except (UserError, OSError):  # of the disk: seen again at the next poll
            keys = []
        names = (DESCRIPTION_FILE, *ENGINES.values())
        artifacts = [paths.EXPORTED / key / name for key in keys for name in names]
        files = [paths.PROMOTIONS / f"{self.name}.jsonl", paths.LEADERBOARD, *artifacts]
        return tuple(map(_state_of, files))


def _state_of(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def give_memory_back() -> None:
    """Return the memory of replaced models to the system; glibc would keep it."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)
