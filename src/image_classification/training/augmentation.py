"""Augmentation: training images that are changed at random, anew in every step."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from image_classification.core.config import AugmentationConfig


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


def augmentation(config: AugmentationConfig, seed: int) -> Augmentation | None:
    """The random changes that a file of conf/augmentation/ describes; None where it says none.

    Each image is changed on its own. What comes in from outside of it repeats its edge.

    Args:
        config: what is changed, and how far.
        seed: of all draws; those of one setting do not depend on the other settings.
    """
    # Each layer its own: with one seed, a large turn would always come with a large zoom.
    seeds = [int(one) for one in np.random.SeedSequence(seed).generate_state(6)]
    inside = {"fill_mode": "nearest"}
    layers: list[keras.Layer] = []
    # Keras draws once for both directions of one layer.
    if config.flip in ("horizontal", "both"):
        layers.append(keras.layers.RandomFlip("horizontal", seed=seeds[0]))
    if config.flip in ("vertical", "both"):
        layers.append(keras.layers.RandomFlip("vertical", seed=seeds[1]))
    if config.rotate:
        layers.append(keras.layers.RandomRotation(config.rotate / 360, seed=seeds[2], **inside))
    if config.zoom:
        layers.append(keras.layers.RandomZoom(config.zoom, seed=seeds[3], **inside))
    if config.shift:
        shift = keras.layers.RandomTranslation(config.shift, config.shift, seed=seeds[4], **inside)
        layers.append(shift)
    if config.contrast:
        # With a single number, Keras only ever raises the contrast.
        factor = (config.contrast, config.contrast)
        layers.append(keras.layers.RandomContrast(factor, seed=seeds[5]))
    return Augmentation(layers) if layers else None
