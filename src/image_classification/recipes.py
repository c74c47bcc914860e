"""How a model is trained: the order of the examples, the optimizer, its learning rate."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from image_classification.checkpoint import State
from image_classification.config import RecipeConfig
from image_classification.dataset import Examples
from image_classification.models import PREDICTION_BATCH


def fit(
    model: keras.Model,
    recipe: RecipeConfig,
    seed: int,
    jit_compile: bool,
    train: Examples,
    validation: Examples,
    state: State | None,
    keep: Callable[[State], None],
) -> list[dict[str, float]]:
    """Fit a model with Adam on the cross-entropy, from the beginning or from a state on.

    Args:
        model: from models.build; its weights change.
        recipe: epochs, batch size and learning rate.
        seed: of the order of the examples.
        jit_compile: whether XLA compiles the steps.
        train: what the model is fitted to.
        validation: what it is measured on after each epoch.
        state: that `keep` was given by an earlier call with the same arguments; what comes out
            is, on one machine, what would have come out of that call, bit for bit.
        keep: called with the state after each epoch as soon as it ends.

    Returns:
        The rows of `EpochRecord`.
    """
    groups = BatchGroups(train, recipe.batch_size, recipe.steps_per_execution, seed)
    trainer = ManySteps(model, recipe.batch_size, recipe.precision)
    trainer.compile(
        optimizer=keras.optimizers.Adam(
            learning_rate(recipe, groups.steps_per_epoch * recipe.epochs)
        ),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    trainer.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *trainer.optimizer.variables]
    if state:
        for variable, value in zip(variables, state.variables, strict=True):
            variable.assign(value)
    rows = list(state.rows) if state else []
    if len(rows) == recipe.epochs:
        return rows

    def report(row: dict[str, float]) -> None:
        rows.append(row)
        keep(State(list(rows), [variable.numpy() for variable in variables]))

    trainer.fit(
        groups.dataset(range(len(rows), recipe.epochs)),
        initial_epoch=len(rows),
        epochs=recipe.epochs,
        steps_per_epoch=len(groups),
        shuffle=False,  # it has been
        validation_data=tuple(validation),
        validation_batch_size=PREDICTION_BATCH,
        callbacks=[EpochRecord(report)],
        verbose=0,
    )
    return rows


class BatchGroups:
    """The batches of each epoch, many at a time, in an order drawn from (seed, epoch) alone.

    Keras' own seeded shuffle of arrays repeats one order in every epoch.
    """

    def __init__(self, examples: Examples, batch_size: int, steps: int, seed: int) -> None:
        """Group at most `steps` batches; what is too few for a batch comes alone."""
        self._examples = examples
        self._seed = seed
        count = len(examples.labels)
        whole = count - count % batch_size  # examples that fill batches
        self._bounds = [*range(0, whole, steps * batch_size), whole]
        if whole < count:
            self._bounds.append(count)
        self.steps_per_epoch = -(-count // batch_size)

    def __len__(self) -> int:
        """How many groups an epoch has."""
        return len(self._bounds) - 1

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The indices of the examples in the order of an epoch, counted from 0."""
        generator = np.random.default_rng([self._seed, epoch])
        return generator.permutation(len(self._examples.labels))

    def epoch(self, epoch: int) -> Iterator[Examples]:
        """An epoch's groups, each the examples of its batches one after the other."""
        order = self.order(epoch)
        for start, end in pairwise(self._bounds):
            yield Examples(*(array[order[start:end]] for array in self._examples))

    def dataset(self, epochs: range) -> tf.data.Dataset:
        """The groups of these epochs."""
        signature = tuple(
            tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in self._examples
        )
        groups = tf.data.Dataset.from_generator(
            lambda: (tuple(group) for epoch in epochs for group in self.epoch(epoch)),
            output_signature=signature,
        )
        return groups.prefetch(1)


class ManySteps(keras.Model):
    """A model whose `fit` takes a group of batches at a time and steps through it in TensorFlow.

    Keras goes back to Python between two batches, which takes as long as a small model's step.
    """

    def __init__(self, model: keras.Model, batch_size: int, precision: str) -> None:
        super().__init__()
        self.model = model
        self.batch_size = batch_size
        self.precision = precision

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The model's own output; Keras calls this."""
        return self.model(images, training=training)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of Keras' for each batch of a group; Keras calls this."""
        images, labels = data
        size = tf.minimum(self.batch_size, tf.shape(labels)[0])
        images = tf.reshape(images, tf.concat([[-1, size], tf.shape(images)[1:]], axis=0))
        labels = tf.reshape(labels, tf.stack([-1, size]))
        count = tf.shape(labels)[0]
        one_step = super().train_step

        def step_with(batch: tf.Tensor) -> tuple[tf.Tensor]:
            one_step((images[batch], labels[batch]))
            return (batch + 1,)

        # Neither the scaling of the pixels nor the probabilities bear fewer digits.
        with computing_in(self.precision, self.model.layers[1:-1]):
            tf.while_loop(lambda batch: batch < count, step_with, [tf.constant(0)])
        return dict(self.get_metrics_result())


def usable_precision(wanted: str) -> str:
    """The precision to compute in: bfloat16 where this machine is the faster for it, or float32."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        fast_bfloat16 = details.get("compute_capability", (0, 0)) >= (8, 0)  # Ampere and later
    else:
        processor = Path("/proc/cpuinfo")
        fast_bfloat16 = processor.exists() and "amx_bf16" in processor.read_text()
    return wanted if fast_bfloat16 else "float32"


@contextmanager
def computing_in(precision: str, layers: Sequence[keras.Layer]) -> Iterator[None]:
    """Have layers that are traced meanwhile compute in a precision; weights stay float32.

    Layers that were given another type of their own keep it, and so do layers within layers.
    """
    changed = [layer for layer in layers if layer.dtype_policy.name == "float32"]
    policy = precision if precision == "float32" else f"mixed_{precision}"
    for layer in changed:
        layer.dtype_policy = policy
    try:
        yield
    finally:
        for layer in changed:
            layer.dtype_policy = "float32"


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
    """Reports a row of values for each epoch as soon as it ends.

    A row: epoch (from 0), loss, accuracy, val_loss, val_accuracy, learning_rate (after the epoch),
        epoch_seconds (validation included).
    """

    def __init__(self, report: Callable[[dict[str, float]], None]) -> None:
        super().__init__()
        self._report = report

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock; Keras calls this."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Report the epoch's values; Keras calls this."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        values["learning_rate"] = float(self.model.optimizer.learning_rate)
        values["epoch_seconds"] = time.perf_counter() - self._start
        self._report({"epoch": epoch, **values})
