"""The latest predictions of a server, each of which may be corrected once."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus

import numpy as np
from numpy.typing import NDArray

from image_classification.core.errors import UserError

MOST_PREDICTIONS = 10_000  # predictions that are remembered
MOST_BYTES = 2**24  # of their images
SECONDS = 3600  # that a prediction is remembered
ID_BYTES = 16  # of an id, at random: nobody guesses one


class FeedbackError(UserError):
    """Feedback that is rejected; `status` is that of HTTP."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class ServedPrediction:
    """A prediction that a server made.

    image: uint8 (height, width, channels), as the model saw it.
    label: the name of the predicted class.
    probability: of that class, 0 to 1.
    key: of the run whose model predicted it.
    version: of the registered model; None while MLflow does not know the run.
    classes: all names that it can predict.
    """

    image: NDArray[np.uint8]
    label: str
    probability: float
    key: str
    version: int | None
    classes: Sequence[str]


@dataclass
class _Entry:
    prediction: ServedPrediction | None  # None once it has been corrected
    time: float
    size: int


class RecentPredictions:
    """A bounded memory of predictions by their ids, for several threads; never on disk."""

    def __init__(
        self,
        most: int = MOST_PREDICTIONS,
        most_bytes: int = MOST_BYTES,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember so many predictions, bytes of images and seconds, and then forget the oldest."""
        self._most, self._most_bytes, self._seconds = most, most_bytes, seconds
        self._clock, self._lock = clock, threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def remember(self, prediction: ServedPrediction) -> str:
        """Remember a prediction; the id by which it can be corrected."""
        name = secrets.token_hex(ID_BYTES)
        # A view would hold its whole batch.
        own = replace(prediction, image=prediction.image.copy())
        with self._lock:
            self._entries[name] = _Entry(own, self._clock(), prediction.image.nbytes)
            self._bytes += prediction.image.nbytes
            self._forget()
        return name

    @contextmanager
    def correction(self, name: str) -> Iterator[ServedPrediction]:
        """Yield a prediction to correct, which has been corrected when the block succeeds.

        Raises:
            FeedbackError: there is no such prediction, or it has been corrected.
        """
        with self._lock:
            self._forget()
            entry = self._entries.get(name)
            if entry is None:
                raise FeedbackError(HTTPStatus.NOT_FOUND, "no such answer: too old, or never given")
            prediction, entry.prediction = entry.prediction, None
        if prediction is None:
            raise FeedbackError(HTTPStatus.CONFLICT, "this answer has been corrected before")
        try:
            yield prediction
        except BaseException:
            entry.prediction = prediction
            raise

    def _forget(self) -> None:
        oldest = self._clock() - self._seconds
        while self._entries:
            first = next(iter(self._entries.values()))
            if (
                len(self._entries) <= self._most
                and self._bytes <= self._most_bytes
                and first.time > oldest
            ):
                return
            self._bytes -= self._entries.popitem(last=False)[1].size
