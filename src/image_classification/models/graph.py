"""How the layers of a model are wired: one after the other, or as they name their inputs."""

from collections.abc import Mapping

import keras

from image_classification.core.config import ModelConfig
from image_classification.core.errors import UserError
from image_classification.models.safety import error_text

IMAGE = "image"  # the name of the scaled image in the inputs of layers

Wiring = dict[str, list[str]]
"""For each layer the names of its inputs: earlier layers, or what was there before them."""


def wiring(config: ModelConfig, before: list[str]) -> Wiring:
    """The inputs of each layer; those that name none take the one before.

    Args:
        config: of the model.
        before: what layers can name besides earlier layers; the first one takes the last of these.

    Raises:
        UserError: an input is not an earlier layer, or the output of a layer is not used.
    """
    found: Wiring = {}
    earlier = list(before)
    for name, layer in config.layers.items():
        place = f"conf/model/{config.name}.yaml: layers.{name}"
        inputs = layer.get("inputs", earlier[-1])
        names = inputs if isinstance(inputs, list) else [inputs]
        if not names or not all(isinstance(one, str) for one in names):
            raise UserError(f"{place}.inputs: must be a name or a list of names, got {inputs}")
        for one in names:
            if one not in earlier:
                raise UserError(
                    f"{place}.inputs: {one} is not an earlier layer; there are {', '.join(earlier)}"
                )
        found[name] = names
        earlier.append(name)
    taken = {one for names in found.values() for one in names}
    for name in list(found)[:-1]:
        if name not in taken:
            raise UserError(
                f"conf/model/{config.name}.yaml: layers.{name}: no later layer takes its output"
            )
    return found


def connect(
    layers: Mapping[str, keras.Layer],
    inputs: Wiring,
    tensors: Mapping[str, keras.KerasTensor],
) -> keras.KerasTensor:
    """Call each layer once, on its inputs.

    Args:
        layers: by their names, earlier ones first.
        inputs: from `wiring`.
        tensors: what was there before them.

    Returns:
        The output of the last layer, or the last of `tensors` where there are no layers.

    Raises:
        ValueError: names the layer whose inputs do not fit.
    """
    given = dict(tensors)
    for name, layer in layers.items():
        values = [given[one] for one in inputs[name]]
        try:
            given[name] = layer(values[0] if len(values) == 1 else values)
        except Exception as error:  # Keras and TensorFlow have no common one for bad inputs
            raise ValueError(f"layers.{name}: {error_text(error)}") from error
    return list(given.values())[-1]
