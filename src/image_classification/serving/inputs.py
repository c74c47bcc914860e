"""From an image to a model's input: by the code of the split, then the normaliser."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification.core.errors import UserError
from image_classification.formats.decode import DecodeError, decode, decode_grey
from image_classification.serving import normalizer
from image_classification.serving.artifact import Artifact

Pixels = NDArray[np.uint8]


def prepare(data: bytes, artifact: Artifact) -> Pixels:
    """Decode the bytes of an image file to the input of a model.

    Returns:
        uint8 (height, width, channels), of the artifact's shape.

    Raises:
        UserError: they are not a usable image; says why.
    """
    try:
        return of_source(data, artifact)
    except DecodeError as error:
        raise UserError(f"the image can't be used: {error}") from error


def of_source(source: Path | bytes | NDArray[Any], artifact: Artifact) -> Pixels:
    """The input that an image file, its bytes, or an array of pixels makes.

    Args:
        source: as `decode` takes them; bytes are those of a file.
        artifact: the model that takes it.

    Returns:
        uint8 (height, width, channels), of the artifact's shape.

    Raises:
        DecodeError: it is not a usable image.
        OSError: the file can't be read.
    """
    if isinstance(source, bytes) and not source:
        raise DecodeError("empty")
    if not artifact.normalise:
        return decode(_opened(source), artifact.image_shape, artifact.resize)
    # At its own size: if scaled down first, a small drawing on it would become a blot.
    grey = decode_grey(_opened(source), normalizer.LARGEST)
    return normalizer.normalise(grey)[..., np.newaxis]


def _opened(source: Path | bytes | NDArray[Any]) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else source
