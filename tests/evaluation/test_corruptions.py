import tracemalloc

import numpy as np
import pytest
from conftest import tiny_examples

from image_classification.evaluation import corruptions
from image_classification.evaluation.corruptions import CORRUPTIONS

IMAGES = tiny_examples(20, 0).images


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_the_same_each_time_and_grows_with_its_strength(kind: str) -> None:
    corruption = CORRUPTIONS[kind]
    assert list(corruption.strengths) == sorted(set(corruption.strengths))
    distances = []
    for strength in corruption.strengths:
        corrupted = corruption.apply(IMAGES, strength)
        assert corrupted.shape == IMAGES.shape
        assert corrupted.dtype == np.uint8
        assert np.array_equal(corrupted, corruption.apply(IMAGES, strength))
        distances.append(np.abs(corrupted.astype(float) - IMAGES).mean())

    assert distances[0] > 0
    assert distances[-1] > distances[0]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_strength_zero_changes_nothing(kind: str) -> None:
    assert np.array_equal(CORRUPTIONS[kind].apply(IMAGES, 0), IMAGES)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corrupting_takes_little_more_memory_than_the_images(kind: str) -> None:
    images = np.resize(IMAGES, (64, 128, 128, 3))
    corruption = CORRUPTIONS[kind]
    tracemalloc.start()

    corruption.apply(images, corruption.strengths[-1])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 3 * images.nbytes


def test_a_shift_moves_the_image_by_the_share_of_its_width() -> None:
    image = np.zeros((1, 20, 20, 1), np.uint8)
    image[0, 10, 10] = 200

    moved = corruptions.shift(image, 0.2)

    assert np.argwhere(moved[0, :, :, 0]).tolist() == [[10, 14]]
    assert moved.max() == 200


def test_a_rotation_turns_neighbours_opposite_ways() -> None:
    images = np.zeros((2, 21, 21, 1), np.uint8)
    images[:, 10, 18] = 200

    turned = corruptions.rotation(images, 90)

    places = [np.unravel_index(image.argmax(), image.shape)[:2] for image in turned]
    assert sorted(places) == [(2, 10), (18, 10)]


def test_contrast_keeps_the_mean_and_blur_the_sum() -> None:
    faded = corruptions.contrast(IMAGES, 0.9)
    assert faded.mean(axis=(1, 2, 3)) == pytest.approx(IMAGES.mean(axis=(1, 2, 3)), abs=0.5)
    assert faded.std() == pytest.approx(0.1 * IMAGES.std(), rel=0.2)

    dot = np.zeros((1, 41, 41, 1), np.uint8)
    dot[0, 20, 20] = 255
    assert corruptions.blur(dot, 0.04).max() < 40


def test_colour_images_keep_their_channels_apart() -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[:, 4:12, 4:12, 0] = 250

    for kind in ("shift", "rotation", "blur"):
        corrupted = CORRUPTIONS[kind].apply(images, CORRUPTIONS[kind].strengths[-1])
        assert corrupted[..., 0].any()
        assert not corrupted[..., 1:].any()


@pytest.mark.parametrize("count", [1, 30, 1000, 10_000])
def test_a_sample_is_of_different_examples_from_first_to_last(count: int) -> None:
    chosen = corruptions.sample(count)

    assert len(set(chosen)) == min(count, corruptions.IMAGES)
    assert chosen[0] == 0
    assert chosen[-1] == count - 1 or count == 1


def test_graded_goes_through_every_kind_from_weak_to_strong() -> None:
    steps = [(kind, strength) for kind, strength, _ in corruptions.graded(IMAGES)]

    assert steps == [(kind, s) for kind, each in CORRUPTIONS.items() for s in each.strengths]
