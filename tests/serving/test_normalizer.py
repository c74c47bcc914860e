import json

import numpy as np
import pytest
from conftest import ROOT
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from image_classification.core import paths
from image_classification.formats.decode import DecodeError
from image_classification.serving import normalizer


def seven(size: int, at: tuple[int, int], scale: int, ink: int, paper: int) -> NDArray[np.uint8]:
    """A 7 drawn by two strokes."""
    picture = Image.new("L", (size, size), paper)
    points = [(at[0] + scale * x, at[1] + scale * y) for x, y in ((0, 0), (10, 0), (4, 16))]
    ImageDraw.Draw(picture).line(points, fill=ink, width=2 * scale)
    return np.asarray(picture)


def middle(image: NDArray[np.uint8], axis: int) -> float:
    sums = image.astype(float).sum(axis=1 - axis)
    return float(sums @ np.arange(len(sums)) / sums.sum())


@pytest.mark.parametrize(
    ("size", "at", "scale"), [(280, (90, 60), 10), (280, (5, 200), 4), (900, (300, 100), 20)]
)
@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0), (90, 180), (200, 30)])
def test_a_drawing_gets_the_form_of_mnist(
    size: int, at: tuple[int, int], scale: int, ink: int, paper: int
) -> None:
    image = normalizer.normalise(seven(size, at, scale, ink, paper))

    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    assert image.shape == (28, 28)
    assert image.dtype == np.uint8
    assert rows[-1] - rows[0] + 1 == 20
    assert 10 <= columns[-1] - columns[0] + 1 <= 16
    assert middle(image, 0) == pytest.approx(14, abs=0.5)
    assert middle(image, 1) == pytest.approx(14, abs=0.5)
    assert image.max() > 240  # as strong as MNIST's
    assert np.array_equal(normalizer.normalise(image), image)


def test_where_and_how_large_it_is_drawn_matters_little() -> None:
    large = normalizer.normalise(seven(280, (90, 60), 10, 0, 255)).astype(int)
    small = normalizer.normalise(seven(280, (200, 10), 4, 0, 255)).astype(int)

    assert np.abs(large - small).mean() < 6


def test_noise_and_uneven_light_are_paper() -> None:
    generator = np.random.default_rng(0)
    clean = seven(280, (90, 60), 10, 40, 200).astype(float)
    noisy = clean + generator.normal(0, 6, clean.shape) + np.linspace(-20, 20, 280)

    image = normalizer.normalise(np.clip(noisy, 0, 255).astype(np.uint8))

    expected = normalizer.normalise(clean.astype(np.uint8)).astype(int)
    assert np.abs(image.astype(int) - expected).mean() < 6


def test_the_test_images_of_mnist_stay_as_they_are() -> None:
    """All 10,000, bit for bit; they are here once `make repro` has run."""
    split = ROOT / paths.SPLIT
    known = split / "origin.json"
    if not known.exists() or json.loads(known.read_text())["name"] != "mnist":
        pytest.skip(f"{split} does not hold MNIST: make repro")
    images = np.load(split / "test_images.npy")[..., 0]

    assert len(images) == 10_000
    for image in images:
        assert np.array_equal(normalizer.normalise(image), image)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_picture_is_none(level: int) -> None:
    with pytest.raises(DecodeError, match="blank"):
        normalizer.normalise(np.full((50, 60), level, np.uint8))
