"""What is told of many images beside their pixels."""

import numpy as np
import pytest

from image_classification.formats.bulk_decode import perceptual_hashes


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 3), (5, 7, 3)])
def test_an_outline_tells_which_fields_are_brighter_than_their_right_neighbour(
    shape: tuple[int, int, int],
) -> None:
    height, width, _ = shape
    left_half = np.zeros(shape, np.uint8)
    left_half[:, : width // 2] = 200
    upper_left = left_half.copy()
    upper_left[height // 2 :] = 0

    flat, left, upper = perceptual_hashes(
        np.stack([np.full(shape, 90, np.uint8), left_half, upper_left])
    )

    assert flat == 0  # equal fields are no edge
    assert left.bit_count() in (8, 16)  # one edge, or a field that lies across it, in each row
    assert 0 < upper.bit_count() <= left.bit_count()
    assert upper & ~left == 0


def test_brightness_and_a_little_noise_leave_the_outline_as_it_is() -> None:
    generator = np.random.default_rng(0)
    fields = generator.permuted(np.tile(np.arange(0, 216, 24), (8, 1)), axis=1)
    image = np.kron(fields, np.ones((8, 8)))[..., None] + 20
    noisy = image + generator.normal(0, 2, image.shape) - 10

    first, second = perceptual_hashes(np.stack([image, noisy]).astype(np.uint8))

    assert first == second
    assert first.bit_count() > 8
