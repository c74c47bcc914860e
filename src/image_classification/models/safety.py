"""What a model may safely hold: which layers, and how many numbers."""

import math
import re
from collections.abc import Callable, Sequence

import keras

LARGEST = 2**30  # numbers in all weights, or in a layer's output for one image: 4 GiB as float32

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
KERAS_MODULES = ("layers", "initializers", "regularizers", "constraints", "dtype_policies")


def is_safe(module: object, name: object) -> bool:
    """Whether a saved model may hold objects of this class in this module of Keras."""
    found = getattr(getattr(keras, module), str(name), None) if module in KERAS_MODULES else None
    base = keras.Layer if module == "layers" else object
    return isinstance(found, type) and issubclass(found, base) and name not in UNSAFE_LAYERS


def allocate(make: Callable[[], keras.Model]) -> keras.Model:
    """The model that `make` makes; if it is too large, no weights are allocated.

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
                raise ValueError(f"{name}: {size:,} numbers, at most {LARGEST:,} are allowed")
    except BaseException:
        keras.utils.clear_session()  # forgets the weights that were to get values
        raise
    with keras.StatelessScope():
        pass  # leaving this scope gives them their values
    return model


def error_text(error: Exception) -> str:
    """The text of an error of Keras, in one line."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras prints parts in bold
    return " ".join(text.split())[:200] or type(error).__name__


def _size(shape: Sequence[int | None]) -> int:
    return math.prod(int(size) for size in shape if size is not None)
