"""The server's metrics in Prometheus' text format (version 0.0.4)."""

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

import psutil

from image_classification.web.predictor import Predictor
from image_classification.web.watcher import Watcher

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
PREFIX = "image_classification"
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """Counts responses, and how long they took."""

    def __init__(self) -> None:
        self._responses: Counter[tuple[str, int]] = Counter()
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a response.

        Args:
            path: one that the server knows, or "other".
            status: of HTTP.
            seconds: from the request's header to the answer.
        """
        self._responses[path, status] += 1
        self._buckets[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def page(self, predictor: Predictor, watcher: Watcher) -> bytes:
        """All metrics of the server as text."""
        return "\n".join([*self._lines(predictor, watcher), ""]).encode()

    def _lines(self, predictor: Predictor, watcher: Watcher) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Responses by path and status.")
        for (path, status), count in sorted(self._responses.items()):
            yield f'{PREFIX}_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from self._durations()
        yield from _one("images_total", "counter", "Images classified.", predictor.images)
        yield from _one(
            "batches_total",
            "counter",
            "Batches passed to the engine.",
            predictor.batches,
        )
        yield from _one("queued_images", "gauge", "Images in the queue.", predictor.queued)
        text = "Champions loaded since the start."
        yield from _one("champion_loads_total", "counter", text, watcher.loads)
        text = "Champions that failed to load."
        yield from _one("champion_load_failures_total", "counter", text, watcher.failures)
        text = "1 if the last promoted champion is served."
        yield from _one("champion_is_current", "gauge", text, int(watcher.is_current))
        yield from _head("model_info", "gauge", "The models served.")
        for served in watcher.models.all():
            labels = {
                "role": "champion" if served is watcher.models.champion else "other",
                **{"model": served.artifact.model, "run": served.artifact.run},
                "version": served.version,
            }
            shown = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
            yield f"{PREFIX}_model_info{{{shown}}} 1"
        memory = psutil.Process(os.getpid()).memory_info().rss
        yield "# HELP process_resident_memory_bytes Memory of the process."
        yield "# TYPE process_resident_memory_bytes gauge"
        yield f"process_resident_memory_bytes {memory}"

    def _durations(self) -> Iterator[str]:
        name = "request_seconds"
        yield from _head(name, "histogram", "From a request's header to its answer.")
        total = 0
        for bound, count in zip((*BOUNDS, "+Inf"), self._buckets, strict=True):
            total += count
            yield f'{PREFIX}_{name}_bucket{{le="{bound}"}} {total}'
        yield f"{PREFIX}_{name}_sum {self._seconds:.6f}"
        yield f"{PREFIX}_{name}_count {total}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{name} {text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"


def _one(name: str, kind: str, text: str, value: int) -> Iterator[str]:
    yield from _head(name, kind, text)
    yield f"{PREFIX}_{name} {value}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
