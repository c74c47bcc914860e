"""The one thread that runs the engine; what arrives while it is busy is its next batch.

Nothing waits for a batch to fill up: an engine that is idle answers one image at once.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification.serving.engine import BATCH
from image_classification.web import limits
from image_classification.web.errors import HTTPError
from image_classification.web.models import Served

RETRY = (b"retry-after", str(limits.RETRY_AFTER).encode())
log = logging.getLogger(__name__)

Probabilities = NDArray[np.float32]
Observe = Callable[[Served, NDArray[np.uint8], Probabilities], None]


@dataclass(eq=False, slots=True)
class Job:
    """Images for one model: uint8 (n, height, width, channels)."""

    served: Served
    images: NDArray[np.uint8]
    deadline: float  # by time.monotonic
    is_observed: bool  # whether it counts for drift
    answer: "asyncio.Future[Probabilities]"


class Predictor:
    """Answers jobs in order. Its public methods belong to the event loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, observe: Observe) -> None:
        """Start the thread.

        Args:
            loop: of the requests.
            observe: called by the thread with images that count for drift, once they are answered.
        """
        self._observe = observe
        self.queued = 0  # images
        self.images = self.batches = 0  # answered so far
        self._loop = loop
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._pending: set[Job] = set()
        self._thread = threading.Thread(target=self._run, name="predictor", daemon=True)
        self._thread.start()

    def submit(
        self, served: Served, images: NDArray[np.uint8], is_observed: bool = False
    ) -> "asyncio.Future[Probabilities]":
        """Queue images for a model.

        Args:
            served: the model.
            images: uint8 (n, height, width, channels).
            is_observed: whether they count for drift.

        Returns:
            A future of float32 (n, classes), or of an HTTPError (503) if it takes too long.

        Raises:
            HTTPError: 503, too many images wait already.
        """
        if self.queued + len(images) > limits.MOST_QUEUED:
            raise HTTPError(503, f"{self.queued:,} images wait already: try again soon", RETRY)
        self.queued += len(images)
        deadline = time.monotonic() + limits.ANSWER_SECONDS
        job = Job(served, images, deadline, is_observed, self._loop.create_future())
        self._pending.add(job)
        self._jobs.put(job)
        return job.answer

    def is_ready(self) -> bool:
        """Whether the thread lives and nothing has waited too long."""
        now = time.monotonic()
        return self._thread.is_alive() and all(job.deadline > now for job in self._pending)

    def expire(self) -> None:
        """Refuse what has waited too long, whatever the thread is doing."""
        now = time.monotonic()
        for job in self._pending:
            if job.deadline <= now and not job.answer.done():
                job.answer.set_exception(_too_late())

    def close(self) -> None:
        """Let the thread end after the queued jobs."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            count = len(job.images)
            ended = False
            while count < BATCH and not ended:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    ended = True
                else:
                    jobs.append(job)
                    count += len(job.images)
            self._answer(jobs)
            if ended:
                return

    def _answer(self, jobs: list[Job]) -> None:
        now = time.monotonic()
        late = [job for job in jobs if job.deadline <= now]
        outcomes: list[tuple[Job, Any]] = [(job, _too_late()) for job in late]
        by_model: dict[Served, list[Job]] = {}
        for job in jobs:
            if job.deadline > now:
                by_model.setdefault(job.served, []).append(job)
        for served, group in by_model.items():
            outcomes += zip(group, _predict(served, group), strict=True)
        if outcomes:
            self._loop.call_soon_threadsafe(self._deliver, outcomes, len(by_model))
        self._observe_all(outcomes)

    def _observe_all(self, outcomes: list[tuple[Job, Any]]) -> None:
        """Pass on what counts for drift, all of a model at once."""
        by_model: dict[Served, list[tuple[Job, Probabilities]]] = {}
        for job, outcome in outcomes:
            if job.is_observed and not isinstance(outcome, Exception):
                by_model.setdefault(job.served, []).append((job, outcome))
        for served, answered in by_model.items():
            images = np.concatenate([job.images for job, _ in answered])
            self._observe(served, images, np.concatenate([found for _, found in answered]))

    def _deliver(self, outcomes: list[tuple[Job, Any]], batches: int) -> None:
        self.batches += batches
        for job, outcome in outcomes:
            self._pending.discard(job)
            self.queued -= len(job.images)
            if not job.answer.done():
                if isinstance(outcome, Exception):
                    job.answer.set_exception(outcome)
                else:
                    self.images += len(job.images)
                    job.answer.set_result(outcome)


def _predict(served: Served, group: list[Job]) -> list[Any]:
    """What each job gets: its rows of the batch, or the error of it."""
    try:
        if len(group) == 1:
            return [served.predict(group[0].images)]
        together = served.predict(np.concatenate([job.images for job in group]))
    except Exception as error:
        log.exception("%s could not answer", served.artifact.run)
        return [error] * len(group)
    ends = list(accumulate(len(job.images) for job in group))
    return [together[start:end] for start, end in pairwise([0, *ends])]


def _too_late() -> HTTPError:
    text = f"not answered within {limits.ANSWER_SECONDS:g} seconds: try again soon"
    return HTTPError(503, text, RETRY)
