"""Keras models from their configuration, and from the files that trainings leave."""

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from image_classification.config import ModelConfig
from image_classification.errors import UserError

PREDICTION_BATCH = 1000  # images at once; any number gives the same results
LARGEST = 2**30  # numbers in all weights, or in a layer's output for one image: 4 GiB as float32
LARGEST_DESCRIPTION = 2**24  # bytes of config.json in a saved model

# Layers that run code, or read files, that the saved model brings along or names.
UNSAFE_LAYERS = (
    "Lambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
    "StringLookup",
    "IntegerLookup",
    "TextVectorization",
)
# The modules of Keras whose classes a saved model may name, besides a Sequential of layers.
PARTS = ("layers", "initializers", "regularizers", "constraints", "dtype_policies")


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
        UserError: Keras has no such layer, or refuses its arguments or its input; or the model
            is too large (see LARGEST), which is found before its weights are allocated.
    """
    where = f"conf/model/{config.name}.yaml"
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
        model = _allocated(stack)
    except Exception as error:  # Keras and TensorFlow have no common one for bad arguments
        raise UserError(f"{where}: {_one_line(error)}") from error
    if model.output_shape != (None, classes):
        raise UserError(
            f"{where}: the output has the shape {model.output_shape[1:]} "
            f"for an image, not ({classes},): the last layers should begin with a Flatten"
        )
    return model


def load(path: Path, sha256: str) -> keras.Model:
    """Load the model that a training left.

    Nothing is parsed before the checksum has been compared, and nothing is made of the archive
    before its description names Keras' own layers only, none of which brings code along.

    Args:
        path: the file, in Keras' format `.keras`; its folder bears the training's name.
        sha256: of the file, in hexadecimal.

    Returns:
        An uncompiled model, as `build` makes them.

    Raises:
        UserError: the file is missing, has other contents, or is no such model.
    """
    way_out = f"train it anew: `dvc repro --force --single-item train@{path.parent.name}`"
    if path.suffix != ".keras" or not path.is_file():
        raise UserError(f"{path} is no model in the format .keras: {way_out}")
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            raise UserError(f"{path} has SHA-256 {found}, expected {sha256}: {way_out}")
        description = _description(path)
        _require_safe(description)
        model = _allocated(lambda: keras.Sequential.from_config(description["config"]))
        model.load_weights(path)
    except UserError:
        raise
    except Exception as error:  # the readers of archives, JSON, HDF5 and layers raise anything
        raise UserError(f"{path} can't be read ({_one_line(error)}): {way_out}") from error
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
    type_name = str(arguments.pop("type"))
    if type_name == "Dropout":
        arguments.setdefault("rate", config.dropout)
    if not _is_safe("layers", type_name):
        raise UserError(f"{where}: Keras has no layer {type_name} that a saved model may hold")
    try:
        layer = getattr(keras.layers, type_name)(name=name, **arguments)
    except Exception as error:  # Keras and TensorFlow have no common one for bad arguments
        raise UserError(f"{where}: {_one_line(error)}") from error
    return layer


def _is_safe(module: object, name: object) -> bool:
    """Whether a saved model may hold objects of this class in this module of Keras."""
    found = getattr(getattr(keras, module), str(name), None) if module in PARTS else None
    base = keras.Layer if module == "layers" else object
    return isinstance(found, type) and issubclass(found, base) and name not in UNSAFE_LAYERS


def _allocated(make: Callable[[], keras.Model]) -> keras.Model:
    """The model that `make` makes, if it is not too large: else its weights take no memory.

    Raises:
        ValueError: names the layer that is.
    """
    try:
        # In this scope weights get their shapes, but no values yet.
        with keras.StatelessScope(initialize_variables=False):
            model = make()
            sizes = {f"layers.{layer.name}": _size(layer.output.shape) for layer in model.layers}
            sizes["the weights"] = sum(_size(weight.shape) for weight in model.variables)
        for name, size in sizes.items():
            if size > LARGEST:
                raise ValueError(f"{name}: {size:,} numbers, {LARGEST:,} are the most")
    except BaseException:
        keras.utils.clear_session()  # forgets the weights that were to get values
        raise
    with keras.StatelessScope():
        pass  # on the way out they get them
    return model


def _description(path: Path) -> dict[str, Any]:
    """What a saved model says of its layers; any exception if it is none."""
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > LARGEST_DESCRIPTION:
            raise ValueError(f"its description is larger than {LARGEST_DESCRIPTION} bytes")
        description: dict[str, Any] = json.loads(archive.read("config.json"))
    return description


def _require_safe(description: dict[str, Any]) -> None:
    """Refuse the description of a model that names other classes than Keras' own.

    Raises:
        ValueError: names the class.
    """
    if description["class_name"] != "Sequential":
        raise ValueError("it is no Sequential of layers")
    for named in _named_classes(description):
        module, name = str(named.get("module")), named["class_name"]
        registered = named.get("registered_name") in (None, name)  # else one of another package
        of_keras = (module, name) in (("keras", "Sequential"), ("keras", "DTypePolicy"))
        if not registered or not (of_keras or _is_safe(module.removeprefix("keras."), name)):
            raise ValueError(f"it holds {module}.{name}, no layer of Keras that is free of code")


def _named_classes(description: object) -> Iterator[dict[str, Any]]:
    """Every mapping in the nested lists and mappings that Keras would make an object from."""
    if isinstance(description, dict):
        if "class_name" in description:
            yield description
        description = list(description.values())
    if isinstance(description, list):
        for part in description:
            yield from _named_classes(part)


def _size(shape: Sequence[int | None]) -> int:
    return math.prod(int(size) for size in shape if size is not None)


def _one_line(error: Exception) -> str:
    text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras prints parts in bold
    return " ".join(text.split())[:200] or type(error).__name__
