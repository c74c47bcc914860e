"""What a request's body holds: images as files, as raw bytes or as JSON.

Pixels are whole numbers from 0 to 255. Fractions from 0 to 1, which many programs use, are refused:
a model that takes them for pixels sees black, and predicts nonsense.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from image_classification.core.errors import UserError
from image_classification.serving.artifact import Artifact
from image_classification.serving.inputs import prepare
from image_classification.web import limits
from image_classification.web.errors import HTTPError

JSON = "application/json"
RAW = "application/octet-stream"
FILES = tuple(f"image/{name}" for name in ("png", "jpeg", "bmp", "gif", "tiff", "webp"))
MLFLOW = ("inputs", "instances", "dataframe_split", "dataframe_records")
FRACTIONS = (
    "the pixels are fractions from 0 to 1, and this model takes whole numbers from 0 to 255: "
    "multiply by 255 and round"
)

Images = NDArray[np.uint8]


def require_kind(kind: str, accepted: tuple[str, ...]) -> None:
    """Check that a body of this kind can be read at all.

    Raises:
        HTTPError: 415.
    """
    if kind not in accepted:
        said = f"Content-Type {kind!r:.80}" if kind else "no Content-Type"
        raise HTTPError(415, f"{said}: give one of {', '.join(accepted)}")


def read(kind: str, body: bytes, artifact: Artifact) -> Images:
    """The images of a body.

    Args:
        kind: its media type, without parameters, in lower case: one of FILES, RAW or JSON.
        body: a file's bytes; or the bytes of one or more images of the model's shape, without any
            header; or JSON, see `of_json`.
        artifact: of the model that will be asked.

    Returns:
        uint8 (n, height, width, channels), at least one.

    Raises:
        HTTPError: 413, 415 or 422.
    """
    if not body:
        raise HTTPError(422, "the body is empty: send an image")
    if kind == JSON:
        return of_json(body, artifact)
    if kind == RAW:
        return of_bytes(body, artifact)
    require_kind(kind, FILES)
    return of_file(body, artifact)[np.newaxis]


def feedback(body: bytes) -> tuple[str, str]:
    """The id of a prediction, and what the image really was, from JSON.

    Raises:
        HTTPError: 422.
    """
    try:
        value = orjson.loads(body)
        prediction_id, label = value["id"], value["label"]
    except (orjson.JSONDecodeError, TypeError, KeyError, IndexError) as error:
        raise HTTPError(422, "give JSON with the keys id and label") from error
    if not isinstance(prediction_id, str) or not isinstance(label, str):
        raise HTTPError(422, "id and label must be strings")
    return prediction_id, label


def of_file(body: bytes, artifact: Artifact) -> Images:
    """One image from a file's bytes, prepared for the model: (height, width, channels).

    Raises:
        HTTPError: 413 for too many pixels, else 422.
    """
    try:
        return prepare(body, artifact)
    except UserError as error:
        cause: BaseException | None = error
        while cause:
            if isinstance(cause, Image.DecompressionBombWarning | Image.DecompressionBombError):
                text = f"the image has more than {limits.MOST_PIXELS:,} pixels: make it smaller"
                raise HTTPError(413, text) from error
            cause = cause.__cause__
        raise HTTPError(422, str(error)) from error


def of_bytes(body: bytes, artifact: Artifact) -> Images:
    """Images from their pixels, row by row, one byte each.

    Raises:
        HTTPError: 422, not a whole number of images; or 413, too many of them.
    """
    size = math.prod(artifact.image_shape)
    count, rest = divmod(len(body), size)
    if rest or not count:
        shape = " x ".join(map(str, artifact.image_shape))
        text = f"{len(body)} bytes are not a whole number of images of {shape} = {size} bytes"
        raise HTTPError(422, f"{text}: for an image file, give its Content-Type, such as image/png")
    _require_few(count)
    return np.frombuffer(body, np.uint8).reshape(count, *artifact.image_shape)


def of_json(body: bytes, artifact: Artifact) -> Images:
    """Images from JSON: `{"image": ...}`, `{"images": [...]}` or one of MLflow's formats.

    Raises:
        HTTPError: 413 or 422.
    """
    if len(body) > limits.LARGEST_JSON:
        raise HTTPError(413, f"JSON of more than {limits.LARGEST_JSON:,} bytes: send it in parts")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HTTPError(422, f"not valid JSON: {error}") from error
    known = ("image", "images", *MLFLOW)
    given = [key for key in known if key in value] if isinstance(value, dict) else []
    if len(given) != 1:
        raise HTTPError(422, f"the JSON must be a mapping with one of the keys {', '.join(known)}")
    (key,) = given
    return of_numbers(_numbers(key, value[key]), artifact)


def _numbers(key: str, value: Any) -> Any:
    """The contents of one of MLflow's formats, as nested lists."""
    if key == "dataframe_split":
        if not isinstance(value, Mapping) or not isinstance(value.get("data"), list):
            raise HTTPError(422, "dataframe_split must be a mapping with the keys columns and data")
        return _unboxed(value["data"])
    if key == "dataframe_records" or (
        key == "instances" and isinstance(value, list) and value and isinstance(value[0], dict)
    ):
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise HTTPError(422, f"{key} must be a list of mappings")
        if any(row.keys() != value[0].keys() for row in value):
            raise HTTPError(422, f"the rows of {key} must all have the same keys")
        return _unboxed([[row[name] for name in value[0]] for row in value])
    if key in ("inputs", "instances") and isinstance(value, dict):
        if len(value) != 1:
            raise HTTPError(422, f"{key} must name one input, and names {len(value)}")
        return next(iter(value.values()))
    return value


def _unboxed(rows: list[Any]) -> list[Any]:
    """Rows of one column that holds whole images, as these images."""
    boxed = all(
        isinstance(row, list) and len(row) == 1 and isinstance(row[0], list) for row in rows
    )
    return [row[0] for row in rows] if boxed else rows


def of_numbers(value: Any, artifact: Artifact) -> Images:
    """Images from nested lists: one or several, each in the model's shape or flat.

    Raises:
        HTTPError: 413 or 422.
    """
    try:
        if b'"' in orjson.dumps(value):  # NumPy would give each string the room of the longest
            raise HTTPError(422, "a pixel is not a number")
        array = np.asarray(value)
    except (ValueError, TypeError) as error:  # lists of different lengths, or nested too deeply
        raise HTTPError(422, "the images differ in shape, or are cut short") from error
    if not array.size:
        raise HTTPError(422, "there is no image")
    if array.dtype.kind not in "iuf":
        raise HTTPError(422, "a pixel is not a number")
    _require_pixels(array)
    return _in_shape(array.astype(np.uint8), artifact)


def _require_pixels(array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise HTTPError(422, "a pixel is not a finite number")
    low, high = array.min(), array.max()
    # 1 at most, and not all black: black and white as 0 and 1.
    if low >= 0 and 0 < high <= 1:
        raise HTTPError(422, FRACTIONS)
    if low < 0 or high > 255 or (array.dtype.kind == "f" and (array % 1 != 0).any()):
        raise HTTPError(422, "a pixel is not a whole number from 0 to 255")


def _in_shape(array: Images, artifact: Artifact) -> Images:
    height, width, channels = shape = tuple(artifact.image_shape)
    forms = [shape, (math.prod(shape),), *([(height, width)] if channels == 1 else [])]
    for form in forms:
        if array.shape == form or array.shape[1:] == form:
            _require_few(array.size // math.prod(shape))
            return array.reshape(-1, *shape)
    given, wanted = (" x ".join(map(str, sizes)) for sizes in (array.shape, shape))
    raise HTTPError(422, f"the numbers have the shape {given}; an image has {wanted}")


def _require_few(count: int) -> None:
    if count > limits.MOST_IMAGES:
        raise HTTPError(413, f"{count:,} images are too many: send {limits.MOST_IMAGES:,} at most")
