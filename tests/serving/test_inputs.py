"""An image becomes what the model takes, the same way as in the split."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import described
from numpy.typing import NDArray
from PIL import Image

from image_classification.core.errors import UserError
from image_classification.formats.decode import decode
from image_classification.serving import inputs


def png(pixels: NDArray[np.uint8], **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def photograph() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (90, 50, 3), np.uint8)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
def test_an_image_is_decoded_as_the_split_decodes_it(
    shape: tuple[int, int, int], resize: str, tmp_path: Path
) -> None:
    artifact = replace(described(tmp_path, shape), resize=resize)
    data = png(photograph())

    image = inputs.prepare(data, artifact)

    assert image.shape == shape
    assert np.array_equal(image, decode(io.BytesIO(data), shape, resize))


def test_a_drawing_is_normalised_at_its_own_size(tmp_path: Path) -> None:
    """Made smaller first, a small drawing on a large sheet would be gone."""
    sheet = np.full((600, 400), 255, np.uint8)
    sheet[500:540, 300:306] = 0
    artifact = replace(described(tmp_path), normalise=True)

    image = inputs.prepare(png(sheet), artifact)[..., 0]

    rows, columns = np.nonzero(image)
    assert rows.max() - rows.min() + 1 == 20
    assert columns.max() - columns.min() + 1 == 3
    assert image.max() == 255


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "empty"),
        (b"no image", "not an image"),
        (png(photograph())[:200], "damaged"),
    ],
)
@pytest.mark.parametrize("normalise", [False, True])
def test_a_bad_image_is_an_error_in_one_line(
    data: bytes, cause: str, normalise: bool, tmp_path: Path
) -> None:
    artifact = replace(described(tmp_path), normalise=normalise)

    with pytest.raises(UserError, match=f"the image can't be used: .*{cause}") as raised:
        inputs.prepare(data, artifact)
    assert "\n" not in str(raised.value)
