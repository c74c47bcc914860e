"""What a request's body may hold, and what is said of one that can't be used."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_classification.serving.artifact import Artifact
from image_classification.web import bodies, limits
from image_classification.web.errors import HTTPError

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3, 1)  # two images


def served(shape: tuple[int, int, int] = (4, 3, 1)) -> Artifact:
    values: dict[str, Any] = {
        **{"name": "tiny", "model": "m", "run": "m-0", "key": "k", "version": None},
        **{"classes": ["a", "b"], "image_shape": shape, "resize": "pad", "normalise": False},
        **{"engine": "litert", "weights_sha256": "", "sha256": "", "checked": {}, "folder": Path()},
    }
    return Artifact(**values)


def read_json(value: Any) -> Any:
    return bodies.read(bodies.JSON, json.dumps(value).encode(), served())


def refused(kind: str, body: bytes) -> HTTPError:
    with pytest.raises(HTTPError) as caught:
        bodies.read(kind, body, served())
    assert "\n" not in str(caught.value)
    return caught.value


ROWS = PIXELS.reshape(2, 12).tolist()
COLUMNS = [f"pixel{number}" for number in range(12)]


@pytest.mark.parametrize(
    "value",
    [
        {"images": PIXELS.tolist()},
        {"images": PIXELS[..., 0].tolist()},
        {"images": ROWS},
        {"images": PIXELS.astype(float).tolist()},
        {"inputs": PIXELS.tolist()},
        {"inputs": {"images": PIXELS.tolist()}},
        {"instances": PIXELS.tolist()},
        {"instances": [{"image": image} for image in PIXELS.tolist()]},
        {"dataframe_split": {"columns": COLUMNS, "data": ROWS}},
        {"dataframe_split": {"columns": ["image"], "data": [[row] for row in ROWS]}},
        {"dataframe_records": [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]},
    ],
)
def test_every_form_of_json_gives_the_same_images(value: Any) -> None:
    assert np.array_equal(read_json(value), PIXELS)


def test_one_image_needs_no_list_around_it() -> None:
    for image in (PIXELS[0], PIXELS[0, ..., 0], PIXELS[0].ravel()):
        assert np.array_equal(read_json({"image": image.tolist()}), PIXELS[:1])


def test_the_bytes_of_several_images_are_told_apart() -> None:
    assert np.array_equal(bodies.read(bodies.RAW, PIXELS.tobytes(), served()), PIXELS)


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "tiff", "webp"])
def test_image_files_of_the_size_keep_their_pixels(kind: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[0, ..., 0]).save(stream, kind, lossless=True)

    assert np.array_equal(bodies.read(f"image/{kind}", stream.getvalue(), served()), PIXELS[:1])


@pytest.mark.parametrize(
    "pixels", [[0.5] * 12, [0.0] * 11 + [1.0], [0] * 11 + [1], [0.001] * 12, [1] * 12]
)
def test_fractions_from_0_to_1_are_refused_and_not_answered_with_nonsense(pixels: Any) -> None:
    error = refused(bodies.JSON, json.dumps({"image": pixels}).encode())

    assert error.status == 422
    assert "fractions from 0 to 1" in str(error)
    assert "multiply by 255" in str(error)


def test_a_black_image_is_an_image() -> None:
    assert not read_json({"image": [0.0] * 12}).any()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"image": [256] * 12}, "not a whole number from 0 to 255"),
        ({"image": [-1] * 12}, "not a whole number from 0 to 255"),
        ({"image": [2.5] * 12}, "not a whole number from 0 to 255"),
        ({"image": ["7"] * 12}, "not a number"),
        ({"image": [None] * 12}, "not a number"),
        ({"image": [True] * 12}, "not a number"),
        ({"image": [7] * 11}, "has the shape 11; an image has 4 x 3 x 1"),
        ({"images": [[7] * 12, [7] * 11]}, "differ in shape"),
        ({"images": []}, "no image"),
        ({}, "one of the keys image, images, inputs"),
        ({"image": 1, "images": 2}, "one of the keys"),
        ([1, 2], "one of the keys"),
        ({"inputs": {"a": [], "b": []}}, "must name one input"),
        ({"dataframe_split": [1]}, "columns and data"),
        ({"dataframe_records": [{"a": 1}, {"b": 1}]}, "the same keys"),
        ({"dataframe_records": [1]}, "list of mappings"),
        ({"instances": [{"a": 1}, 2]}, "list of mappings"),
    ],
)
def test_json_that_holds_no_image_is_refused_in_one_line(value: Any, said: str) -> None:
    error = refused(bodies.JSON, json.dumps(value).encode())

    assert error.status == 422
    assert said in str(error).replace("have the shape", "has the shape")


@pytest.mark.parametrize(
    ("kind", "body", "status", "said"),
    [
        (bodies.JSON, b"{", 422, "not valid JSON"),
        (bodies.JSON, b'{"image": NaN}', 422, "not valid JSON"),
        (bodies.JSON, b'{"image": ' + b"[" * 500 + b"]" * 500 + b"}", 422, ""),
        (bodies.JSON, b" " * (limits.LARGEST_JSON + 1), 413, "JSON of more than"),
        (
            bodies.RAW,
            b"123",
            422,
            "3 bytes are not a whole number of images of 4 x 3 x 1 = 12 bytes",
        ),
        (bodies.RAW, b"1" * 12 * (limits.MOST_IMAGES + 1), 413, "1,001 images are too many"),
        (bodies.RAW, b"", 422, "empty"),
        ("image/png", b"no image", 422, "not an image"),
        ("image/png", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, 422, "image"),
        ("text/html", b"x", 415, "Content-Type 'text/html': give one of image/png"),
        ("", b"x", 415, "no Content-Type"),
    ],
)
def test_what_can_not_be_read_is_refused_in_one_line(
    kind: str, body: bytes, status: int, said: str
) -> None:
    error = refused(kind, body)

    assert error.status == status
    assert said in str(error)


def test_a_small_file_that_unpacks_to_too_many_pixels_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limits.MOST_PIXELS)  # as `serve` does
    stream = io.BytesIO()
    Image.new("1", (5000, 4001)).save(stream, "png")
    assert len(stream.getvalue()) < 10_000

    error = refused("image/png", stream.getvalue())

    assert error.status == 413
    assert "more than 20,000,000 pixels" in str(error)
