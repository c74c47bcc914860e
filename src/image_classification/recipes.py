"""How a model is trained: the optimizer, its learning rate, and the order of the examples."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from image_classification.config import RecipeConfig
from image_classification.dataset import Examples
from image_classification.models import PREDICTION_BATCH


class ShuffledBatches(keras.utils.PyDataset):
    """Batches of the examples in an order drawn anew for each epoch, from (seed, epoch) alone.

    Keras' own seeded shuffle of arrays repeats one order in every epoch. `fit_in_order` has Keras
    take the batches as they come.
    """

    def __init__(self, examples: Examples, batch_size: int, seed: int) -> None:
        super().__init__()
        self._examples = examples
        self._batch_size = batch_size
        self._seed = seed
        self.start_epoch(0)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The indices of the examples in the order of an epoch, counted from 0."""
        generator = np.random.default_rng([self._seed, epoch])
        return generator.permutation(len(self._examples.labels))

    def __len__(self) -> int:
        """How many batches an epoch has; the last may be smaller."""
        return math.ceil(len(self._examples.labels) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """One batch: images and labels."""
        batch = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return self._examples.images[batch], self._examples.labels[batch]

    def start_epoch(self, epoch: int) -> None:
        """Draw an epoch's order. PyDataset's own hook is called once too often to count by."""
        self._order = self.order(epoch)


def compile_model(model: keras.Model, recipe: RecipeConfig, steps_per_epoch: int) -> None:
    """Give the model its loss, accuracy, and Adam with the recipe's learning rate."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate(recipe, steps_per_epoch * recipe.epochs)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=recipe.steps_per_execution,
    )


def learning_rate(
    recipe: RecipeConfig, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over the `steps` of a whole training.

    `one_cycle`: linearly up from 0 in the first part (`warm_up`), then down to 0 along half a
    cosine, after Smith and Topin, "Super-Convergence" (2018), where the way down is linear.
    """
    if recipe.schedule == "constant":
        return recipe.learning_rate
    warm_up = int(recipe.warm_up * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=recipe.learning_rate,
        warmup_steps=warm_up,
        decay_steps=max(1, steps - warm_up),
    )


class EpochRecord(keras.callbacks.Callback):
    """Keeps one row of values an epoch, and reports it as soon as it is there.

    rows: epoch (from 0), loss, accuracy, val_loss, val_accuracy, learning_rate (after the epoch),
        epoch_seconds (validation included).
    """

    def __init__(self, report: Callable[[int, dict[str, float]], None]) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self._report = report

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock; Keras calls this."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep and report the epoch's values; Keras calls this."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        values["learning_rate"] = float(self.model.optimizer.learning_rate)
        values["epoch_seconds"] = time.perf_counter() - self._start
        self.rows.append({"epoch": epoch, **values})
        self._report(epoch, values)


def fit_in_order(
    model: keras.Model,
    batches: ShuffledBatches,
    epochs: int,
    validation: Examples,
    report: Callable[[int, dict[str, float]], None],
) -> list[dict[str, float]]:
    """Fit a compiled model to each epoch's batches in the order drawn for that epoch.

    Args:
        model: compiled.
        batches: what to fit it to.
        epochs: how often.
        validation: what to measure it on after each epoch.
        report: called with the epoch (from 0) and its values as soon as they are there.

    Returns:
        The rows of `EpochRecord`.
    """
    record = EpochRecord(report)
    new_order = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: batches.start_epoch(epoch)
    )
    model.fit(
        batches,
        epochs=epochs,
        validation_data=tuple(validation),
        validation_batch_size=PREDICTION_BATCH,
        callbacks=[new_order, record],
        shuffle=False,  # else Keras shuffles the batches of a PyDataset among themselves
        verbose=2,
    )
    return record.rows
