"""Augmentation: training images that are changed at random, anew in every step."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from image_classification.core.config import AugmentationConfig

GRID = 4  # points, either way, at which the distances of a distortion are drawn


class Augmentation(keras.layers.Pipeline):
    """Keras' own layers for images, one after the other.

    The seeds among its `variables` move on with every batch: with those of a checkpoint, the same
    draws follow.
    """

    def __init__(self, layers: Sequence[keras.Layer]) -> None:
        super().__init__(layers)
        self.supports_jit = all(layer.supports_jit for layer in layers)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """From and to uint8 (n, height, width, channels), 0 to 255; Keras calls this."""
        changed = super().call(tf.cast(inputs, tf.float32), training=True)
        return tf.cast(tf.round(tf.clip_by_value(changed, 0, 255)), tf.uint8)


class RandomWarp(keras.layers.Layer):
    """Turns, zooms, shifts and distorts each image, and reads its pixels once, between the pixels.

    A layer of Keras' for each would blur the image each time. What distorts is after Simard,
    Steinkraus and Platt, "Best practices for convolutional neural networks applied to visual
    document analysis" (2003), but smooth since it is drawn on a coarse grid.
    """

    def __init__(self, config: AugmentationConfig, seeds: Sequence[int]) -> None:
        """Take how far, and a seed for the draws of an image and one for those within it."""
        super().__init__()
        self.config = config
        self.supports_jit = False
        self.generators = [keras.random.SeedGenerator(seed) for seed in seeds]

    def call(self, images: tf.Tensor, training: bool = True) -> tf.Tensor:
        """From and to float32 (n, height, width, channels); Keras calls this."""
        shape = tf.shape(images)
        size = tf.cast(shape[1:3], tf.float32)
        places = self._places(shape[0], shape[1], shape[2])
        places = tf.clip_by_value(places, 0.0, size - 1)
        low = tf.floor(places)
        pixels = tf.reshape(images, [shape[0], -1, shape[3]])

        def corner(down: float, right: float) -> tf.Tensor:
            offset = tf.constant([down, right])
            places_there = tf.cast(tf.minimum(tf.add(low, offset), size - 1), tf.int32)
            numbers = places_there[..., 0] * shape[2] + places_there[..., 1]
            found = tf.gather(pixels, tf.reshape(numbers, [shape[0], -1]), batch_dims=1)
            near = tf.abs(1 - offset - (places - low))
            return near[..., :1] * near[..., 1:] * tf.reshape(found, shape)

        return corner(0.0, 0.0) + corner(0.0, 1.0) + corner(1.0, 0.0) + corner(1.0, 1.0)

    def _places(self, count: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """Where each pixel comes from: rows and columns, (n, height, width, 2)."""
        size = tf.cast(tf.stack([height, width]), tf.float32)
        drawn = keras.random.uniform((count, 4, 1, 1), -1, 1, seed=self.generators[0])
        angle = drawn[:, 0] * (self.config.rotate * np.pi / 180)
        sine, cosine = tf.sin(angle), tf.cos(angle)
        rows, columns = tf.meshgrid(
            tf.range(size[0]) - (size[0] - 1) / 2,
            tf.range(size[1]) - (size[1] - 1) / 2,
            indexing="ij",
        )
        turned = tf.stack([cosine * rows - sine * columns, sine * rows + cosine * columns], axis=-1)
        shift = tf.reshape(drawn[:, 2:], [-1, 1, 1, 2]) * self.config.shift * size
        places = turned * (1 + drawn[:, 1:2] * self.config.zoom) + (size - 1) / 2 + shift
        if self.config.elastic:
            moved = keras.random.normal((count, GRID, GRID, 2), seed=self.generators[1])
            moved = tf.image.resize(moved, tf.stack([height, width]), "bicubic")
            places += moved * self.config.elastic * size
        return places


def augmentation(config: AugmentationConfig, seed: int) -> Augmentation | None:
    """The random changes that a file of conf/augmentation/ describes; None where it says none.

    Each image is changed on its own. What comes in from outside of it repeats its edge.

    Args:
        config: what is changed, and how far.
        seed: of all draws; those of one setting do not depend on the other settings.
    """
    seeds = [int(one) for one in np.random.SeedSequence(seed).generate_state(5)]
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
    return Augmentation(layers) if layers else None
