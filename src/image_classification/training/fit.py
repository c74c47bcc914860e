"""Fitting a model to the training examples, epoch by epoch."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from image_classification.core.backend import backend
from image_classification.core.config import RecipeConfig
from image_classification.data.arrays import Examples
from image_classification.models.build import inner_layers
from image_classification.models.prediction import prediction_batch
from image_classification.training.augmentation import Augmentation
from image_classification.training.batches import BatchGroups, batches
from image_classification.training.checkpoint import State
from image_classification.training.class_weights import class_weights
from image_classification.training.optimizers import optimizer
from image_classification.training.precision import computing_in
from image_classification.training.progress import epoch_bars


def fit(
    model: keras.Model,
    recipe: RecipeConfig,
    seed: int,
    jit_compile: bool,
    train: Examples,
    validation: Examples,
    state: State | None,
    save: Callable[[State], None],
    progress: bool = False,
    *,
    augment: Augmentation | None = None,
) -> list[dict[str, float]]:
    """Fit a model by a recipe, on the cross-entropy, from the start or from a state.

    Args:
        model: from build.build; its weights change.
        recipe: epochs, batch size, optimizer, and what the loss counts.
        seed: of the order of the examples.
        jit_compile: whether XLA compiles the steps, unless they hold what it can't compile. On
            JAX it always does.
        train: what the model is fitted to.
        validation: what it is measured on after each epoch.
        state: that `save` was given in an earlier call with the same arguments; the result is, on
            one machine, bit for bit what that call would have returned.
        save: called with the state as soon as an epoch ends.
        progress: whether to show the steps of each epoch on stderr, which is a terminal.
        augment: what changes the training images, if anything does.

    Returns:
        The rows of `EpochReporter`.
    """
    on_jax = backend() == "jax"
    steps = 1 if on_jax else recipe.steps_per_execution
    groups = BatchGroups(train, recipe.batch_size, steps, seed)
    trainer = (Trainer if on_jax else MultiStepTrainer)(
        model,
        recipe.batch_size,
        recipe.precision,
        class_weights(recipe.class_weights, train.labels, model.output_shape[-1]),
        recipe.label_smoothing,
        augment,
    )
    trainer.compile(
        optimizer=optimizer(
            recipe, groups.steps_per_epoch * recipe.epochs, model.trainable_variables
        ),
        loss="sparse_categorical_crossentropy",
        # By name it would make its variables in the first step, and TensorFlow would trace twice.
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=on_jax or (jit_compile and (augment is None or augment.supports_jit)),
    )
    seeds = augment.variables if augment else []
    variables = [*model.variables, *trainer.optimizer.variables, *seeds]
    if state:
        for variable, value in zip(variables, state.variables, strict=True):
            variable.assign(value)
    rows = list(state.rows) if state else []
    if len(rows) == recipe.epochs:
        return rows

    def report(row: dict[str, float]) -> None:
        rows.append(row)
        save(State(list(rows), [variable.numpy() for variable in variables]))

    shown: AbstractContextManager[list[keras.callbacks.Callback]] = nullcontext([])
    if progress:
        shown = epoch_bars(groups.steps_per_epoch, steps)
    with shown as bars:
        trainer.fit(
            groups.dataset(range(len(rows), recipe.epochs)),
            initial_epoch=len(rows),
            epochs=recipe.epochs,
            steps_per_epoch=len(groups),
            shuffle=False,  # the groups are in order
            validation_data=batches(validation, prediction_batch(model)),
            callbacks=[*bars, EpochReporter(report)],
            verbose=0,
        )
    return rows


class Trainer(keras.Model):
    """A model whose `fit` takes Keras' own steps, a batch each, as a recipe says."""

    def __init__(
        self,
        model: keras.Model,
        batch_size: int,
        precision: str,
        weights: NDArray[np.float32] | None = None,
        label_smoothing: float = 0.0,
        augment: Augmentation | None = None,
    ) -> None:
        """Take steps of `precision` on a loss with these weights of the classes, if any."""
        super().__init__()
        self.model = model
        self.batch_size = batch_size
        self.precision = precision
        self.class_weights = weights
        self.label_smoothing = label_smoothing
        self.augment = augment

    def call(self, images: Any, training: bool = False) -> Any:
        """The model's output; in a training step, for augmented images; Keras calls this."""
        devices = keras.distribution.distribution()
        if devices:
            images = devices.divided(images)
        if training and self.augment:
            images = self.augment(images)
        return self.model(images, training=training)

    def train_step(self, *state_and_batch: Any) -> Any:
        """Keras' step; Keras calls this, on TensorFlow with a batch alone."""
        # The scaling of the pixels and the probabilities need all digits.
        with computing_in(self.precision, inner_layers(self.model)):
            return super().train_step(*state_and_batch)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The compiled loss; in a step, with class weights and smoothed labels; Keras calls this.

        Szegedy et al., "Rethinking the Inception architecture for computer vision" (2016).
        """
        if training and self.class_weights is not None:
            sample_weight = keras.ops.take(self.class_weights, keras.ops.cast(y, "int32"))
        if not (training and self.label_smoothing):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=self.label_smoothing)
        labels = keras.ops.one_hot(y, y_pred.shape[-1])
        return keras.ops.sum([loss(labels, y_pred, sample_weight), *self.losses])


class MultiStepTrainer(Trainer):
    """Takes a group of batches at a time and steps through it in TensorFlow.

    Keras returns to Python between two batches, which takes as long as a small model's step.
    """

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step for each batch of a group; Keras calls this."""
        images, labels = data
        size = tf.minimum(self.batch_size, tf.shape(labels)[0])
        images = tf.reshape(images, tf.concat([[-1, size], tf.shape(images)[1:]], axis=0))
        labels = tf.reshape(labels, tf.stack([-1, size]))
        count = tf.shape(labels)[0]
        one_step = super().train_step

        def step_with(batch: tf.Tensor) -> tuple[tf.Tensor]:
            one_step((images[batch], labels[batch]))
            return (batch + 1,)

        tf.while_loop(lambda batch: batch < count, step_with, [tf.constant(0)])
        return dict(self.get_metrics_result())


class EpochReporter(keras.callbacks.Callback):
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
