"""Keras models from their configuration."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from image_classification.config import ModelConfig
from image_classification.errors import UserError

PREDICTION_BATCH = 1000  # images at once; any number gives the same results


def build(config: ModelConfig, image_shape: Sequence[int], classes: int) -> keras.Model:
    """Build the model that a file of conf/model/ describes.

    Pixels are scaled inside the model, so that whoever serves it can hand it images as they are.

    Args:
        config: the layers between input and output.
        image_shape: height, width, channels.
        classes: how many there are to tell apart.

    Returns:
        An uncompiled model from uint8 (n, height, width, channels), 0 to 255,
        to float32 (n, classes), probabilities that sum to 1.

    Raises:
        UserError: Keras has no such layer, or refuses its arguments or its input.
    """
    layers = [
        keras.Input(tuple(image_shape), dtype="uint8", name="image"),
        keras.layers.Rescaling(1 / 255, name="scaling"),
        *(_layer(config, name) for name in config.layers),
        keras.layers.Dense(classes, activation="softmax", name="probabilities"),
    ]
    try:
        model = keras.Sequential(layers, name=config.name)
    except ValueError as error:
        raise UserError(f"conf/model/{config.name}.yaml: {_first_line(error)}") from error
    if model.output_shape != (None, classes):
        raise UserError(
            f"conf/model/{config.name}.yaml: the output has the shape {model.output_shape[1:]} "
            f"for an image, not ({classes},): the last layers should begin with a Flatten"
        )
    return model


def predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The model's probabilities for each image.

    Args:
        model: from `build`.
        images: (n, height, width, channels).

    Returns:
        (n, classes), rows that sum to 1.
    """
    probabilities = model.predict(np.asarray(images), batch_size=PREDICTION_BATCH, verbose=0)
    return np.asarray(probabilities, np.float32)


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
    where = f"conf/model/{config.name}.yaml: layers.{name}"
    arguments = dict(config.layers[name])
    type_name = arguments.pop("type")
    if type_name == "Dropout":
        arguments.setdefault("rate", config.dropout)
    layer_class = getattr(keras.layers, str(type_name), None)
    # A Lambda would carry code in the saved model.
    if not isinstance(layer_class, type) or type_name == "Lambda":
        raise UserError(f"{where}: Keras has no layer {type_name} that a saved model may hold")
    try:
        layer = layer_class(name=name, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {_first_line(error)}") from error
    return layer


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
