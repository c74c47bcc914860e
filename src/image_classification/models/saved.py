"""Saved models, loaded without running code that they bring along."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from image_classification.core import files
from image_classification.core.errors import UserError
from image_classification.models.limits import allocate, is_safe, one_line

LARGEST_DESCRIPTION = 2**24  # bytes of config.json in a saved model


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
        raise UserError(f"{path} is no model in the format .keras: {hint}")
    try:
        found = files.sha256(path)
        if found != sha256:
            raise UserError(f"{path} has SHA-256 {found}, expected {sha256}: {hint}")
        description = _description(path)
        _require_safe(description)
        model = allocate(lambda: keras.Sequential.from_config(description["config"]))
        model.load_weights(path)
    except UserError:
        raise
    except Exception as error:  # the readers of archives, JSON, HDF5 and layers raise anything
        raise UserError(f"{path} can't be read ({one_line(error)}): {hint}") from error
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
        if not registered or not (of_keras or is_safe(module.removeprefix("keras."), name)):
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
