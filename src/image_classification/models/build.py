"""Keras models from their configuration."""

from collections.abc import Sequence
from typing import Any

import keras

from image_classification.core.config import BackboneConfig, ModelConfig
from image_classification.core.errors import UserError
from image_classification.models import backbones
from image_classification.models.graph import IMAGE, connect, wiring
from image_classification.models.safety import allocate, error_text, is_safe

# Layers that only prepare the image; steps in a lower precision leave these in float32.
PREPARING = (
    keras.layers.InputLayer,
    keras.layers.Normalization,
    keras.layers.Rescaling,
    keras.layers.Resizing,
)


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
        UserError: Keras has no such layer, or refuses its arguments or its input; an input names
            no earlier layer; or the model is too large (see LARGEST), which is found before its
            weights are allocated.
    """
    place = f"conf/model/{config.name}.yaml"
    backbone = config.backbone
    network = _network(place, backbone)
    inputs = wiring(config, before=[backbones.FEATURES] if network else [IMAGE])
    branches = network or any("inputs" in layer for layer in config.layers.values())
    between = {name: _layer(config, name) for name in config.layers}

    def assemble() -> keras.Model:
        image = keras.Input(tuple(image_shape), dtype="uint8", name="image")
        scaling = keras.layers.Rescaling(1 / 255, name="scaling")
        probabilities = keras.layers.Dense(classes, activation="softmax", name="probabilities")
        if not branches:
            layers = [image, scaling, *between.values(), probabilities]
            return keras.Sequential(layers, name=config.name)
        if backbone:
            scaled = backbones.scaling(backbone)(image)
            before = {backbones.FEATURES: backbones.attach(backbone, network, scaled)}
        else:
            before = {IMAGE: scaling(image)}
        last = connect(between, inputs, before)
        return keras.Model(image, probabilities(last), name=config.name)

    try:
        model = allocate(assemble)
    except Exception as error:  # Keras and TensorFlow have no common one for bad arguments
        raise UserError(f"{place}: {error_text(error)}") from error
    if network:
        backbones.copy_weights(network, model)
    if model.output_shape != (None, classes):
        raise UserError(
            f"{place}: the output has the shape {model.output_shape[1:]} "
            f"for an image, not ({classes},): the last layers should begin with a Flatten"
        )
    return model


def layer_table(model: keras.Model) -> list[dict[str, Any]]:
    """One row per layer: its name, type, output shape without the batch, and parameters."""
    return [
        {
            "layer": layer.name,
            "type": type(layer).__name__,
            "output_shape": " x ".join(str(size) for size in layer.output.shape[1:]),
            "parameters": layer.count_params(),
        }
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)  # a Sequential does not list it either
    ]


def inner_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers between the scaled image and the probabilities."""
    return [layer for layer in model.layers[:-1] if not isinstance(layer, PREPARING)]


def _network(place: str, backbone: BackboneConfig | None) -> keras.Model | None:
    try:
        return backbones.load(backbone) if backbone else None
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _layer(config: ModelConfig, name: str) -> keras.Layer:
    place = f"conf/model/{config.name}.yaml: layers.{name}"
    arguments = {key: value for key, value in config.layers[name].items() if key != "inputs"}
    type_name = str(arguments.pop("type"))
    if type_name == "Dropout":
        arguments.setdefault("rate", config.dropout)
    if not is_safe("layers", type_name):
        raise UserError(f"{place}: Keras has no layer {type_name} that a saved model may hold")
    try:
        layer = getattr(keras.layers, type_name)(name=name, **arguments)
    except Exception as error:  # Keras and TensorFlow have no common one for bad arguments
        raise UserError(f"{place}: {error_text(error)}") from error
    return layer
