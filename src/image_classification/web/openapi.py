"""The description of the server for programs, in OpenAPI 3.1."""

from importlib.metadata import version
from typing import Any

from image_classification.serving.artifact import Artifact
from image_classification.web import bodies, limits

ERROR_RESPONSES = {
    "408": "the body did not arrive in time",
    "413": "the body, the image or the number of images is too large",
    "415": "the Content-Type is not supported",
    "422": "the body holds no image that can be used",
    "503": "overloaded: try again after Retry-After seconds",
}


def description(artifact: Artifact) -> dict[str, Any]:
    """The description of a server whose champion was loaded from this artifact."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{artifact.name}: image classification",
            "version": _version(),
            "description": "Every answer has the header X-Model-Version.",
        },
        "paths": {
            "/predict": {"post": _predict(artifact)},
            "/invocations": {"post": _invocations()},
            "/feedback": {"post": _feedback()},
            **{path: {"get": _get(text, kind)} for path, text, kind in PLAIN},
        },
        "components": {"schemas": _schemas(artifact)},
    }


PLAIN = (
    ("/", "the page to draw on or to upload images", "text/html"),
    ("/live", "200 while the process is alive", "text/plain"),
    ("/ready", "200 while it can predict, else 503", "text/plain"),
    ("/version", "which models are served, their classes and their images' shape", bodies.JSON),
    ("/metrics", "metrics for Prometheus", "text/plain"),
    ("/openapi.json", "this description", bodies.JSON),
)


def _version() -> str:
    try:
        return version("image-classification")
    except ModuleNotFoundError:  # run from its folder, as in the container
        return "0"


def _predict(artifact: Artifact) -> dict[str, Any]:
    shape = " x ".join(map(str, artifact.image_shape))
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "summary": "classify images",
        "description": (
            f"An image file; or the {shape} bytes of one or more images; or JSON. Pixels are whole "
            f"numbers from 0 to 255. At most {limits.MOST_IMAGES:,} images and "
            f"{limits.LARGEST_BODY:,} bytes."
        ),
        "parameters": [
            _query("models", "all", "`all`: the other models' predictions as well"),
            _query("feedback", "true", "`true`: an id by which each prediction can be corrected"),
            _query("seen", "true", "`true`: the pixels that the model saw, in base64"),
        ],
        "requestBody": {
            "required": True,
            "content": {
                **dict.fromkeys((*bodies.FILES, bodies.RAW), binary),
                bodies.JSON: {"schema": {"$ref": "#/components/schemas/Images"}},
            },
        },
        "responses": _responses("Predictions"),
    }


def _invocations() -> dict[str, Any]:
    return {
        "summary": "classify images, in the JSON format of `mlflow models serve`",
        "requestBody": {
            "required": True,
            "content": {bodies.JSON: {"schema": {"$ref": "#/components/schemas/Invocation"}}},
        },
        "responses": _responses("Probabilities"),
    }


def _feedback() -> dict[str, Any]:
    errors = {
        "404": "no such answer: too old, or never given",
        "409": "it has been corrected before",
        **{status: ERROR_RESPONSES[status] for status in ("408", "413", "415", "422")},
        "507": "there is no room for more, or it can't be written",
    }
    return {
        "summary": "say what an image really was: once for each answer that has an id",
        "requestBody": {
            "required": True,
            "content": {bodies.JSON: {"schema": {"$ref": "#/components/schemas/Feedback"}}},
        },
        "responses": {
            "201": {"description": "stored for review by a person"},
            **{
                status: {"description": text, "content": _content("Error")}
                for status, text in errors.items()
            },
        },
    }


def _content(schema: str) -> dict[str, Any]:
    return {bodies.JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _query(name: str, value: str, text: str) -> dict[str, Any]:
    schema = {"type": "string", "enum": [value]}
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _get(text: str, kind: str) -> dict[str, Any]:
    answered = {"200": {"description": text, "content": {kind: {}}}}
    errors = {"503": {"description": "it does not answer"}} if "503" in text else {}
    return {"summary": text, "responses": {**answered, **errors}}


def _responses(schema: str) -> dict[str, Any]:
    errors = {
        status: {"description": text, "content": _content("Error")}
        for status, text in ERROR_RESPONSES.items()
    }
    return {"200": {"description": "answered", "content": _content(schema)}, **errors}


def _schemas(artifact: Artifact) -> dict[str, Any]:
    pixels = {"type": "array", "description": "nested lists of whole numbers from 0 to 255"}
    names = {
        "model": {"type": "string"},
        "run": {"type": "string"},
        "version": {"type": ["integer", "null"]},
    }
    prediction = {
        "class": {"type": "string", "enum": artifact.classes},
        "probability": {"type": "number"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
    }
    predictions = {**names, "predictions": _list_of(_mapping(prediction))}
    seen = {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}}
    return {
        "Images": _mapping({"image": pixels, "images": pixels}, required=False),
        "Invocation": _mapping({key: {} for key in bodies.MLFLOW}, required=False),
        "Predictions": {
            **_mapping(predictions),
            "properties": {**predictions, "others": _list_of(_mapping(predictions)), "seen": seen},
        },
        "Probabilities": _mapping({"predictions": _list_of(_list_of({"type": "number"}))}),
        "Feedback": _mapping({"id": {"type": "string"}, "label": {"type": "string"}}),
        "Error": _mapping({"error": {"type": "string"}}),
    }


def _mapping(properties: dict[str, Any], required: bool = True) -> dict[str, Any]:
    must = {"required": list(properties)} if required else {}
    return {"type": "object", "properties": properties, **must}


def _list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}
