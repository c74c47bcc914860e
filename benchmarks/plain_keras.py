"""The loop that the project replaces: float64 arrays, batches of 32, plain `fit`, nothing tracked.

Written from the facts of the study alone; it shares no code with the project but the split on disk.
Prints one line of JSON: seconds of each epoch, and its training loss.
"""

import argparse
import json
import time

import keras
import numpy as np
from keras import layers

SEED = 0  # the project's default


def build(name: str) -> keras.Model:
    """One of the study's models, compiled as it compiles them."""

    def dense(units: int) -> keras.Layer:
        return layers.Dense(units, activation="relu")

    def convolution(filters: int) -> keras.Layer:
        return layers.Conv2D(filters, 3, padding="same", activation="relu")

    def stack() -> list[keras.Layer]:
        flat = layers.Flatten()
        match name:
            case "lm":
                return [flat]
            case "nn":
                return [flat, dense(400)]
            case "dnn":
                return [flat, dense(400), dense(100)]
            case "dnnd":
                return [flat, dense(400), dense(100), layers.Dropout(0.25)]
            case "cnn":
                return [
                    *(convolution(64), layers.MaxPooling2D(2)),
                    *(convolution(32), layers.MaxPooling2D(2)),
                    *(flat, dense(400), layers.Dropout(0.25)),
                ]
            case "dcnn":
                return [
                    *(convolution(64), convolution(64), layers.MaxPooling2D(2)),
                    layers.Dropout(0.25),
                    *(convolution(32), convolution(32), layers.MaxPooling2D(2)),
                    *(flat, dense(400), layers.Dropout(0.25)),
                ]
        raise SystemExit(f"error: no model {name}")

    # Made in this order, the layers draw the same initial weights as the project's.
    architecture = [*stack(), layers.Dense(10, activation="softmax")]
    model = keras.Sequential([keras.Input((28, 28, 1)), *architecture])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Stopwatch(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Read the clock."""
        self.seconds.append(time.perf_counter() - self._start)


def main() -> None:
    """Train one model on the first examples of the project's split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--examples", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument(
        "--given-order", action="store_true", help="in the project's order, to compare the losses"
    )
    parser.add_argument(
        "--nudge",
        action="store_true",
        help="initial weights off by about 1e-7 of themselves, as by rounding",
    )
    options = parser.parse_args()
    images = np.load("data/split/train_images.npy")[: options.examples] / 255.0
    labels = np.load("data/split/train_labels.npy")[: options.examples]

    keras.utils.set_random_seed(SEED)
    model = build(options.model)
    if options.nudge:
        generator = np.random.default_rng(SEED)
        model.set_weights(
            [
                weights * (1 + 1e-7 * generator.standard_normal(weights.shape))
                for weights in model.get_weights()
            ]
        )
    stopwatch, losses = Stopwatch(), []
    if options.given_order:
        for epoch in range(options.epochs):
            order = np.random.default_rng([SEED, epoch]).permutation(len(labels))
            history = model.fit(
                *(images[order], labels[order]),
                batch_size=32,
                shuffle=False,
                verbose=0,
                callbacks=[stopwatch],
            )
            losses += history.history["loss"]
    else:
        history = model.fit(
            images,
            labels,
            batch_size=32,
            epochs=options.epochs,
            verbose=0,
            callbacks=[stopwatch],
        )
        losses = history.history["loss"]
    print(json.dumps({"seconds": stopwatch.seconds, "loss": losses}))


if __name__ == "__main__":
    main()
