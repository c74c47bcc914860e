"""Saved models, loaded without running any code in them."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from image_classification.core import files
from image_classification.core.errors import UserError
from image_classification.models.safety import allocate, error_text, is_safe

LARGEST_DESCRIPTION = 2**24  # bytes of config.json in a saved model
# What a saved model may be: layers one after the other, or wired as `inputs` in conf/model/ says.
KINDS: dict[tuple[object, object], type[keras.Model]] = {
    ("keras", "Sequential"): keras.Sequential,
    ("keras.src.models.functional", "Functional"): keras.Model,
}


def load(path: Path, sha256: str) -> keras.Model:
    """Load the model that a run saved.

    The checksum is compared before anything is parsed. Objects are made only after the description
    proves to name Keras' own layers alone, none of which carries code.

    Args:
        path: the file, in Keras' format `.keras`; its folder has the name of the run.
        sha256: of the file, in hexadecimal.

    Returns:
        An uncompiled model, as `build` makes them.

    Raises:
        UserError: the file is missing, has other contents, or is no such model.
    """
    hint = f"train it again: `dvc repro --force --single-item train@{path.parent.name}`"
    if path.suffix != ".keras" or not path.is_file():
        raise UserError(f"{path} is not a model in the format .keras: {hint}")
    try:
        found = files.sha256(path)
        if found != sha256:
            raise UserError(f"{path} has SHA-256 {found}, expected {sha256}: {hint}")
        description = _description(path)
        kind = _require_safe(description)
        model = allocate(lambda: kind.from_config(description["config"]))
        model.load_weights(path)
    except UserError:
        raise
    except Exception as error:  # the readers of archives, JSON, HDF5 and layers raise anything
        raise UserError(f"{path} can't be read ({error_text(error)}): {hint}") from error
    return model


def _description(path: Path) -> dict[str, Any]:
    """The description of a saved model's layers; raises anything if it is not one."""
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > LARGEST_DESCRIPTION:
            raise ValueError(f"its description is larger than {LARGEST_DESCRIPTION} bytes")
        description: dict[str, Any] = json.loads(archive.read("config.json"))
    return description


def _require_safe(description: dict[str, Any]) -> type[keras.Model]:
    """Refuse the description of a model that names other classes than Keras' own.

    Returns:
        What kind of model it describes.

    Raises:
        ValueError: names the class.
    """
    kind = KINDS.get((description.get("module"), description["class_name"]))
    if kind is None:
        raise ValueError("it is neither a Sequential of layers nor a Functional")
    is_sequential = kind is keras.Sequential
    parts = description if is_sequential else _without_calls(description["config"])
    for named in _named_classes(parts):
        module, name = str(named.get("module")), named["class_name"]
        registered = named.get("registered_name") in (None, name)  # else one of another package
        of_keras = (module, name) in (("keras", "Sequential"), ("keras", "DTypePolicy"))
        if not registered or not (of_keras or is_safe(module.removeprefix("keras."), name)):
            raise ValueError(f"it holds {module}.{name}, which is not a safe layer of Keras")
    return kind


def _without_calls(functional: dict[str, Any]) -> dict[str, Any]:
    """What else a Functional holds, once its layers prove to be called as `connect` does it.

    That is once each, on outputs of earlier layers, and on nothing else that Keras would make an
    object from.

    Raises:
        ValueError: names the layer that is not.
    """
    earlier: set[str] = set()
    for layer in functional["layers"]:
        calls = layer["inbound_nodes"]
        if len(calls) > 1 or not all(_is_call(call, earlier) for call in calls):
            raise ValueError(f"its layer {layer['name']} takes more than outputs of earlier layers")
        earlier.add(layer["name"])
    kept = [
        {key: value for key, value in layer.items() if key != "inbound_nodes"}
        for layer in functional["layers"]
    ]
    return {**functional, "layers": kept}


def _is_call(call: dict[str, Any], earlier: set[str]) -> bool:
    """Whether a layer is called on one output or a list of them, each the only one of its layer."""
    (given,) = call["args"]
    tensors = given if isinstance(given, list) else [given]
    histories = [one["config"]["keras_history"] for one in tensors]
    options = call["kwargs"].values()  # of Keras: mask, training
    return (
        all(one["class_name"] == "__keras_tensor__" for one in tensors)
        and all(name in earlier and rest == [0, 0] for name, *rest in histories)
        and all(value is None or isinstance(value, bool) for value in options)
    )


def _named_classes(description: object) -> Iterator[dict[str, Any]]:
    """Every mapping in the nested lists and mappings that Keras would make an object from."""
    if isinstance(description, dict):
        if "class_name" in description:
            yield description
        description = list(description.values())
    if isinstance(description, list):
        for part in description:
            yield from _named_classes(part)
