"""A progress bar for each epoch, on a terminal, while a model is fitted."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO, cast

import keras
from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile


@contextmanager
def epoch_bars(steps: int, steps_per_group: int) -> Iterator[list[keras.callbacks.Callback]]:
    """Yield the callback that shows each epoch on stderr; the bar is cleared when the epoch ends.

    What else is printed on stderr meanwhile appears above the bar.

    Args:
        steps: of an epoch.
        steps_per_group: that `fit` takes at once; the last group of an epoch may have fewer.
    """
    bars = EpochBars(steps, steps_per_group, sys.stderr)
    with redirect_stderr(cast(TextIO, DummyTqdmFile(sys.stderr))):
        try:
            yield [bars]
        finally:
            bars.close()


class EpochBars(keras.callbacks.Callback):
    """A bar for each epoch: the steps done, the time left, the loss so far."""

    # Keras then reads the loss in its own threads, as it does without such a callback, and the
    # training does not wait for it.
    async_safe = True

    def __init__(self, steps: int, steps_per_group: int, terminal: TextIO) -> None:
        super().__init__()
        self._steps = steps
        self._steps_per_group = steps_per_group
        self._terminal = terminal
        self._lock = threading.Lock()  # groups may be reported by several threads, in any order
        self._bar: tqdm[Any] | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start a bar; Keras calls this."""
        self._name = f"epoch {epoch + 1} of {self.params['epochs']}"
        self._bar = tqdm(
            desc=self._name,
            total=self._steps,
            unit=" steps",
            file=self._terminal,
            dynamic_ncols=True,
            miniters=1,
            leave=False,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar; Keras calls this with the number of a group, from 0."""
        # Only the last group can be short.
        is_last = batch + 1 == self.params["steps"]
        done = self._steps if is_last else min((batch + 1) * self._steps_per_group, self._steps - 1)
        with self._lock:
            if self._bar is not None and done > self._bar.n:
                self._bar.set_postfix(loss=(logs or {}).get("loss"), refresh=False)
                self._bar.update(done - self._bar.n)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Say that the validation has begun; Keras calls this."""
        if self._bar is not None:
            self._bar.set_description(f"{self._name}, validation")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Clear the bar; Keras calls this."""
        self.close()

    def close(self) -> None:
        """Clear the bar, if there is one."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
            self._bar = None
