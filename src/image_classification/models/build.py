"""Keras models from their configuration."""

from collections.abc import Sequence
from typing import Any

import keras

from image_classification.core.config import ModelConfig
from image_classification.core.errors import UserError
from image_classification.models.limits import allocate, is_safe, one_line


def build(config: ModelConfig, image_shape: Sequence[int], classes: int) -> keras.Model:
    """Build the model that a file of conf/model/ describes.

    Pixels are scaled inside the model: it takes images as they are.

    Args:
        config: the layers between input and output.
        image_shape: height, width, channels.
        classes: how many there are.

    Returns:
        An uncompiled model from uint8 (n, height, width, channels), 0 to 255,
        to float32 (n, classes), probabilities that sum to 1.

    Raises:
        UserError: Keras has no such layer, or refuses its arguments or its input; or the model
            is too large (see LARGEST), which is found before its weights are allocated.
    """
    place = f"conf/model/{config.name}.yaml"
    between = [_layer(config, name) for name in config.layers]

    def stack() -> keras.Model:
        layers = [
            keras.Input(tuple(image_shape), dtype="uint8", name="image"),
            keras.layers.Rescaling(1 / 255, name="scaling"),
            *between,
            keras.layers.Dense(classes, activation="softmax", name="probabilities"),
        ]
        return keras.Sequential(layers, name=config.name)

    try:
        model = allocate(stack)
    except Exception as error:  # Keras and TensorFlow have no common one for bad arguments
        raise UserError(f"{place}: {one_line(error)}") from error
    if model.output_shape != (None, classes):
        raise UserError(
            f"{place}: the output has the shape {model.output_shape[1:]} "
            f"for an image, not ({classes},): the last layers should begin with a Flatten"
        )
    return model


def layer_table(model: keras.Model) -> list[dict[str, Any]]:
    """One row a layer: its name, type, output shape without the batch, and parameters."""
    return [
        {
            "layer": layer.name,
            "type": type(layer).__name__,
            "output_shape": " x ".join(str(size) for size in layer.output.shape[1:]),
            "parameters": layer.count_params(),
        }
        for layer in model.layers
    ]


def _layer(config: ModelConfig, name: str) -> keras.Layer:
    place = f"conf/model/{config.name}.yaml: layers.{name}"
    arguments = dict(config.layers[name])
    type_name = str(arguments.pop("type"))
    if type_name == "Dropout":
        arguments.setdefault("rate", config.dropout)
    if not is_safe("layers", type_name):
        raise UserError(f"{place}: Keras has no layer {type_name} that a saved model may hold")
    try:
        layer = getattr(keras.layers, type_name)(name=name, **arguments)
    except Exception as error:  # Keras and TensorFlow have no common one for bad arguments
        raise UserError(f"{place}: {one_line(error)}") from error
    return layer
