"""The features that a frozen backbone gives: computed once, and kept for later runs."""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from image_classification.core import paths
from image_classification.core.backend import backend
from image_classification.data.arrays import Examples
from image_classification.models.prediction import predict

HASHED = 1000  # images at once


def features(backbone: keras.Model, examples: Examples) -> Examples:
    """The same examples with features, float32 (n, features), in place of images.

    They are kept in the folder of the weights, by a hash of all that they come from.

    Args:
        backbone: from uint8 images to float32 (n, features).
        examples: with images.
    """
    path = paths.home() / paths.WEIGHTS / f"features-{_key(backbone, examples.images)}.npz"
    kept: Any = _read(path)
    if kept is None:
        print(f"computing the features of {len(examples.labels)} images, once", flush=True)
        kept = predict(backbone, examples.images)
        _write(path, kept)
    return Examples(kept, examples.labels)


def _key(backbone: keras.Model, images: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(f"{backend()} {keras.__version__} {images.shape}".encode())
    for layer in backbone.layers:
        settings = layer.get_config() | {"trainable": None}  # it does not change what they give
        digest.update(f"{type(layer).__name__} {sorted(settings.items())}".encode())
    for weights in backbone.get_weights():
        digest.update(np.ascontiguousarray(weights).data)
    for start in range(0, len(images), HASHED):
        digest.update(np.ascontiguousarray(images[start : start + HASHED]).data)
    return digest.hexdigest()


def _read(path: Path) -> NDArray[Any] | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:  # an archive checks what it holds
            found: NDArray[Any] = arrays["features"]
            return found
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # missing or damaged
        return None


def _write(path: Path, values: NDArray[np.float32]) -> None:
    part = path.with_name(f"{os.getpid()}-{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            np.savez(stream, features=values)
        part.replace(path)
    except OSError:  # the run needs no copy: the next one computes them again
        part.unlink(missing_ok=True)
