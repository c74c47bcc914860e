"""Augmentation: training images that are changed at random, anew in every step."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from image_classification.core.backend import backend
from image_classification.core.config import AugmentationConfig

GRID = 4  # points per side at which the displacements of a distortion are drawn


class Augmentation(keras.layers.Pipeline):
    """Keras' own layers for images, one after the other.

    The seeds among its `variables` move on with every batch: with those of a checkpoint, the same
    draws follow.
    """

    def __init__(self, layers: Sequence[keras.Layer]) -> None:
        super().__init__(layers)
        self.supports_jit = all(layer.supports_jit for layer in layers)
        self.built = True  # there are no weights to make

    def call(self, inputs: Any) -> Any:
        """From and to uint8 (n, height, width, channels), 0 to 255; Keras calls this."""
        changed = super().call(ops.cast(inputs, "float32"), training=True)
        return ops.cast(ops.round(ops.clip(changed, 0, 255)), "uint8")


class RandomWarp(keras.layers.Layer):
    """Rotates, zooms, shifts and distorts each image with a single interpolation.

    One Keras layer for each would blur the image each time. The distortion is that of Simard,
    Steinkraus and Platt, "Best practices for convolutional neural networks applied to visual
    document analysis" (2003), but smooth since it is drawn on a coarse grid.
    """

    def __init__(self, config: AugmentationConfig, seeds: Sequence[int]) -> None:
        """Take the ranges, and two seeds: for the draws per image, and for those within it."""
        super().__init__()
        self.config = config
        self.supports_jit = backend() == "jax"  # TensorFlow's XLA lacks the resizing
        self.generators = [keras.random.SeedGenerator(seed) for seed in seeds]

    def call(self, images: Any, training: bool = True) -> Any:
        """From and to float32 (n, height, width, channels); Keras calls this."""
        count, height, width, channels = ops.shape(images)
        size = ops.cast(ops.stack([height, width]), "float32")
        coordinates = self._source_coordinates(count, height, width)
        coordinates = ops.clip(coordinates, 0.0, size - 1)
        low = ops.floor(coordinates)
        pixels = ops.reshape(images, [-1, channels])
        firsts = ops.reshape(ops.arange(count) * (height * width), [-1, 1, 1])  # of the images

        def corner(down: float, right: float) -> Any:
            offset = ops.convert_to_tensor([down, right])
            corner_coordinates = ops.cast(ops.minimum(ops.add(low, offset), size - 1), "int32")
            numbers = corner_coordinates[..., 0] * width + corner_coordinates[..., 1]
            found = ops.take(pixels, firsts + numbers, axis=0)
            near = ops.abs(1 - offset - (coordinates - low))
            return near[..., :1] * near[..., 1:] * found

        return corner(0.0, 0.0) + corner(0.0, 1.0) + corner(1.0, 0.0) + corner(1.0, 1.0)

    def _source_coordinates(self, count: Any, height: Any, width: Any) -> Any:
        """Where each pixel comes from: rows and columns, (n, height, width, 2)."""
        size = ops.cast(ops.stack([height, width]), "float32")
        drawn = keras.random.uniform((count, 4, 1, 1), -1, 1, seed=self.generators[0])
        angle = drawn[:, 0] * (self.config.rotate * np.pi / 180)
        sine, cosine = ops.sin(angle), ops.cos(angle)
        rows, columns = ops.meshgrid(
            ops.arange(height, dtype="float32") - (size[0] - 1) / 2,
            ops.arange(width, dtype="float32") - (size[1] - 1) / 2,
            indexing="ij",
        )
        turned = ops.stack(
            [cosine * rows - sine * columns, sine * rows + cosine * columns], axis=-1
        )
        shift = ops.reshape(drawn[:, 2:], [-1, 1, 1, 2]) * self.config.shift * size
        coordinates = turned * (1 + drawn[:, 1:2] * self.config.zoom) + (size - 1) / 2 + shift
        if self.config.elastic:
            moved = keras.random.normal((count, GRID, GRID, 2), seed=self.generators[1])
            moved = ops.image.resize(moved, (height, width), "bicubic")
            coordinates += moved * self.config.elastic * size
        return coordinates


class RandomNoise(keras.layers.Layer):
    """Adds normal noise whose standard deviation is drawn for each image, from 0 to `most`.

    Keras' GaussianNoise has one deviation for all, so the model would never see a clean image.
    """

    def __init__(self, most: float, seed: int) -> None:
        super().__init__()
        self.most = most
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = True) -> Any:
        """From and to float32 (n, height, width, channels); Keras calls this."""
        shape = ops.shape(images)
        deviations = keras.random.uniform((shape[0], 1, 1, 1), 0, self.most, seed=self.generator)
        return images + deviations * keras.random.normal(shape, seed=self.generator)


def augmentation(config: AugmentationConfig, seed: int) -> Augmentation | None:
    """The random changes that a file of conf/augmentation/ describes; None where it says none.

    Each image is changed on its own. Beyond its border, its edge is repeated.

    Args:
        config: what is changed, and how far.
        seed: of all draws; those of one setting do not depend on the other settings.
    """
    seeds = [int(one) for one in np.random.SeedSequence(seed).generate_state(6)]
    layers: list[keras.Layer] = []
    # Keras draws once for both directions of one layer.
    if config.flip in ("horizontal", "both"):
        layers.append(keras.layers.RandomFlip("horizontal", seed=seeds[0]))
    if config.flip in ("vertical", "both"):
        layers.append(keras.layers.RandomFlip("vertical", seed=seeds[1]))
    if config.rotate or config.zoom or config.shift or config.elastic:
        layers.append(RandomWarp(config, seeds[2:4]))
    if config.contrast:
        # With a single number, Keras only ever raises the contrast.
        factor = (config.contrast, config.contrast)
        layers.append(keras.layers.RandomContrast(factor, seed=seeds[4]))
    if config.noise:
        layers.append(RandomNoise(255 * config.noise, seeds[5]))
    return Augmentation(layers) if layers else None
