"""The numbers that are kept of an image."""

import numpy as np
import pytest
from numpy.typing import NDArray

from image_classification.monitoring.statistics import NAMES, describe

SIDE = 11


def of(image: NDArray[np.uint8]) -> dict[str, float]:
    shaped = image.reshape(1, *image.shape[:2], -1)
    values, _ = describe(shaped, np.array([[0.25, 0.75]], np.float32))
    return dict(zip(NAMES, map(float, values[0]), strict=True))


def blank() -> NDArray[np.uint8]:
    return np.zeros((SIDE, SIDE), np.uint8)


def test_a_dot_right_of_the_middle() -> None:
    image = blank()
    image[5, 8] = 255

    numbers = of(image)

    assert numbers["confidence"] == 0.75
    assert numbers["brightness"] == pytest.approx(1 / 121, abs=1e-4)
    assert numbers["lit"] == pytest.approx(1 / 121, abs=1e-4)
    assert numbers["off_centre"] == pytest.approx(3 / 11, abs=1e-4)
    assert numbers["spread"] == 0
    assert numbers["sharpness"] == pytest.approx(4 / 110, abs=1e-4)


@pytest.mark.parametrize(("flip", "slant"), [(False, 1), (True, -1)])
def test_a_diagonal_has_a_slant_below_0_where_it_leans_to_the_right(flip: bool, slant: int) -> None:
    image = blank()
    np.fill_diagonal(image[:, ::-1] if flip else image, 200)

    numbers = of(image)

    assert numbers["slant"] == pytest.approx(slant, abs=1e-3)
    assert numbers["off_centre"] == 0
    assert numbers["spread"] == pytest.approx(np.sqrt(2 * 10) / 11, abs=1e-3)


def test_the_classes_are_those_answered() -> None:
    images = np.zeros((3, 4, 4, 1), np.uint8)

    _, classes = describe(images, np.eye(3, dtype=np.float32)[[2, 0, 1]])

    assert classes.tolist() == [2, 0, 1]


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(1, 1, 1), (28, 28, 1), (200, 131, 3), (5, 70, 4)])
def test_images_of_one_colour_and_any_shape_have_finite_numbers(
    value: int, shape: tuple[int, int, int]
) -> None:
    images = np.full((2, *shape), value, np.uint8)

    values, _ = describe(images, np.full((2, 2), 0.5, np.float32))

    assert np.isfinite(values).all()
    numbers = dict(zip(NAMES, values[0], strict=True))
    assert numbers["brightness"] == numbers["lit"] == value / 255
    assert numbers["sharpness"] == numbers["slant"] == 0


def test_a_batch_gives_what_its_images_give_one_by_one() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (70, 28, 28, 3), np.uint8)
    probabilities = random.dirichlet(np.ones(10), 70).astype(np.float32)

    together, _ = describe(images, probabilities)

    alone = [describe(images[i : i + 1], probabilities[i : i + 1])[0] for i in range(70)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1.1e-4)
