"""The server's responses, as bytes."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from image_classification.web.models import Models, Served

JSON = b"application/json"
DIGITS = 6  # of a probability, after the point; /invocations has all

Probabilities = NDArray[np.float32]


@dataclass(slots=True)
class Response:
    """A response of the server.

    Attributes:
        kind: its media type.
        headers: besides type, length and version.
        served: the model behind it, if any.
    """

    status: int
    body: bytes
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    served: Served | None = None


def predictions(
    asked: Sequence[Served],
    probabilities: Sequence[Probabilities],
    seen: NDArray[np.uint8] | None = None,
    ids: Sequence[str] | None = None,
) -> Response:
    """The champion's predictions for each image, and the others'.

    Args:
        asked: the champion, then the others.
        probabilities: float32 (n, classes) of each.
        seen: the images as the champion has seen them, uint8 (n, height, width, channels), if they
            are to be returned.
        ids: by which the champion's predictions can be corrected, if they can.
    """
    first, *others = [
        {**served.names(), "predictions": _rows(served.artifact.classes, rows)}
        for served, rows in zip(asked, probabilities, strict=True)
    ]
    for prediction, prediction_id in zip(first["predictions"], ids or (), strict=False):
        prediction["id"] = prediction_id
    if others:
        first["others"] = others
    if seen is not None:
        first["seen"] = [base64.b64encode(image.tobytes()).decode() for image in seen]
    return Response(200, orjson.dumps(first), served=asked[0])


def _rows(classes: list[str], probabilities: Probabilities) -> list[dict[str, Any]]:
    rounded = probabilities.astype(np.float64).round(DIGITS).tolist()
    return [
        {
            "class": classes[index],
            "probability": row[index],
            "probabilities": dict(zip(classes, row, strict=True)),
        }
        for index, row in zip(probabilities.argmax(axis=1).tolist(), rounded, strict=True)
    ]


def mlflow(served: Served, probabilities: Probabilities) -> Response:
    """The response in the format of `mlflow models serve`."""
    rows = {"predictions": np.ascontiguousarray(probabilities)}
    return Response(200, orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY), served=served)


def version(models: Models, is_current: bool) -> Response:
    """Which models are served, and their inputs and outputs."""
    artifact = models.champion.artifact
    return json(
        200,
        {
            "name": artifact.name,
            **models.champion.names(),
            "key": artifact.key,
            "weights_sha256": artifact.weights_sha256,
            "sha256": artifact.sha256,
            "is_current": is_current,
            "image_shape": artifact.image_shape,
            "normalise": artifact.normalise,
            "classes": artifact.classes,
            "others": [served.names() for served in models.others],
        },
    )


def json(status: int, value: Any) -> Response:
    """A value as JSON."""
    return Response(status, orjson.dumps(value))


def error(status: int, line: str, *headers: tuple[bytes, bytes]) -> Response:
    """Why there is no prediction, in one line."""
    return Response(status, orjson.dumps({"error": " ".join(line.split())}), headers=headers)


def text(status: int, line: str, *headers: tuple[bytes, bytes]) -> Response:
    """A line of plain text, for health checks."""
    return Response(status, f"{line}\n".encode(), b"text/plain; charset=utf-8", headers)
