from dataclasses import replace

import keras
import numpy as np
import pytest
import scipy.stats
from conftest import ROOT, Compose, tiny_examples
from numpy.typing import NDArray
from test_fit import COMPILED, ONE_CYCLE, TRAIN, VALIDATION, Fitted, assert_same, small_model

from image_classification.core.config import AugmentationConfig
from image_classification.core.errors import UserError
from image_classification.training.augmentation import Augmentation, augmentation
from image_classification.training.checkpoint import State
from image_classification.training.fit import fit

NONE = AugmentationConfig(
    "none", flip="none", shift=0, rotate=0, zoom=0, elastic=0, contrast=0, noise=0
)
LIGHT = replace(NONE, name="light", shift=0.1, rotate=10, zoom=0.1, contrast=0.1, noise=0.1)
IMAGES = tiny_examples(200, seed=0).images


def changed(config: AugmentationConfig, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    augment = augmentation(config, seed=5)
    assert augment is not None
    return np.asarray(augment(images))


def augmented(
    config: AugmentationConfig, seed: int = 5, state: State | None = None, compiled: bool = False
) -> Fitted:
    """A fit with augmentation, the order of the examples always that of one seed."""
    model, saved = small_model(), list[State]()
    rows = fit(
        *(model, ONE_CYCLE, 5, compiled, TRAIN, VALIDATION, state, saved.append),
        augment=augmentation(config, seed),
    )
    return Fitted(rows, saved, model.get_weights())


FILES = sorted(path.stem for path in (ROOT / "conf/augmentation").glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_every_file_composes_and_leaves_uint8_images(compose: Compose, name: str) -> None:
    config = compose(f"augmentation={name}", "model=best").augmentation
    augment = augmentation(config, 0)

    assert config.name == name
    if augment is not None:
        images = np.asarray(augment(IMAGES))
        assert (images.dtype, images.shape) == (IMAGES.dtype, IMAGES.shape)
        assert not np.array_equal(images, IMAGES)


def test_images_are_changed_only_where_a_model_asks_for_it(compose: Compose) -> None:
    assert augmentation(compose("model=tiny_cnn").augmentation, 0) is None
    asking = ["model=tiny_cnn", "+model.augmentation={rotate: 12, shift: 0.08}"]
    changed = compose(*asking).augmentation
    assert (changed.rotate, changed.shift, changed.zoom, changed.flip) == (12, 0.08, 0, "none")
    assert augmentation(compose(*asking, "augmentation=none").augmentation, 0) is None
    assert compose(*asking, "augmentation.rotate=5").augmentation.rotate == 5


def test_a_model_that_asks_for_an_unknown_change_is_refused(compose: Compose) -> None:
    with pytest.raises(UserError, match=r"model\.augmentation: must be settings among flip, "):
        compose("+model.augmentation.rotation=12")


def test_digits_are_not_mirrored_by_the_light_one(compose: Compose) -> None:
    assert compose("augmentation=light").augmentation.flip == "none"


def test_each_image_is_flipped_on_its_own_and_in_each_direction_on_its_own() -> None:
    views = {
        "horizontal": [IMAGES, IMAGES[:, :, ::-1]],
        "vertical": [IMAGES, IMAGES[:, ::-1]],
        "both": [IMAGES, IMAGES[:, :, ::-1], IMAGES[:, ::-1], IMAGES[:, ::-1, ::-1]],
    }
    for flip, expected in views.items():
        found = changed(replace(NONE, flip=flip), IMAGES)
        counts = [sum(map(np.array_equal, found, view)) for view in expected]

        assert sum(counts) == len(IMAGES)
        assert min(counts) > len(IMAGES) / len(expected) / 2


def test_contrast_is_lowered_and_raised_within_its_bounds() -> None:
    images = np.clip(IMAGES, 80, 160)  # so that nothing is cut off
    found = changed(replace(NONE, contrast=0.2), images)
    factors = np.std(found, axis=(1, 2, 3)) / np.std(images, axis=(1, 2, 3))

    assert 0.79 < factors.min() < 0.85
    assert 1.15 < factors.max() < 1.21


def test_noise_is_normal_and_of_another_deviation_for_each_image() -> None:
    images = np.full((200, 28, 28, 1), 128, np.uint8)
    added = changed(replace(NONE, noise=0.1), images) - 128.0
    deviations = added.std(axis=(1, 2, 3))

    assert deviations.min() < 2
    assert 23 < deviations.max() < 27
    assert np.abs(added.mean(axis=(1, 2, 3)) / np.maximum(deviations, 1)).max() < 0.2
    assert scipy.stats.kurtosis(added[deviations.argmax()], axis=None) == pytest.approx(0, abs=0.6)


@pytest.mark.parametrize(("setting", "most"), [("shift", 0.2), ("rotate", 30), ("zoom", 0.4)])
def test_a_bright_square_moves_either_way_and_no_further_than_it_may(
    setting: str, most: float
) -> None:
    """The square's middle is 6 pixels to the right of the image's, so that it stays inside."""
    images = np.full((200, 28, 28, 1), 20, np.uint8)
    images[:, 12:16, 18:22] = 220
    config = replace(NONE)
    setattr(config, setting, most)
    found = changed(config, images)[..., 0].astype(float) - 20
    weight, places = found.sum(axis=(1, 2)), np.arange(28) - 13.5
    down = found.sum(axis=2) @ places / weight
    right = found.sum(axis=1) @ places / weight
    measured = {
        "shift": down / 28,
        "rotate": np.degrees(np.arctan2(down, right)),
        "zoom": 6 / right - 1,
    }

    assert np.abs(measured[setting]).max() < 1.1 * most
    assert measured[setting].min() < -most / 2
    assert measured[setting].max() > most / 2
    assert found.min() > -1  # no black edge came in


def test_parts_of_an_image_move_smoothly_and_as_far_as_the_setting_says() -> None:
    """Bright squares, 12 pixels apart, of which each goes its own way."""
    images = np.full((400, 28, 28, 1), 20, np.uint8)
    for row in (6, 18):
        for column in (6, 18):
            images[:, row : row + 4, column : column + 4] = 220
    found = changed(replace(NONE, elastic=0.04), images)[..., 0].astype(float) - 20
    places = np.arange(12)
    moved = []
    for row in (2, 14):
        for column in (2, 14):
            part = found[:, row : row + 12, column : column + 12]
            weight = part.sum(axis=(1, 2))
            moved.append(part.sum(axis=2) @ places / weight - 5.5)
    down = np.array(moved)

    assert 0.5 < down.std() < 1.4  # 0.04 of 28 is 1.1, less where it is drawn between two points
    assert abs(down.mean()) < 0.2
    assert np.abs(np.corrcoef(down)[np.triu_indices(4, 1)]).max() < 0.6


def test_pixels_are_read_once_however_much_changes() -> None:
    """A layer for each change would blur an edge each time."""
    images = np.zeros((100, 28, 28, 1), np.uint8)
    images[:, :, 14:] = 255
    once = changed(replace(NONE, shift=0.1), images)
    often = changed(replace(NONE, shift=0.1, zoom=0.01, rotate=0.1, elastic=0.001), images)

    def grey(found: NDArray[np.uint8]) -> float:
        return float(np.mean((found > 25) & (found < 230)))

    assert grey(often) < 1.3 * grey(once)


def test_what_two_settings_draw_is_independent() -> None:
    """With one seed for all, a flip would always come with a low contrast."""
    flip = replace(NONE, flip="horizontal")
    views = zip(changed(flip, IMAGES), IMAGES, strict=True)
    flipped = [not np.array_equal(found, image) for found, image in views]
    both = changed(replace(flip, contrast=1), IMAGES)
    raised = np.std(both, axis=(1, 2, 3)) > np.std(IMAGES, axis=(1, 2, 3))

    assert abs(np.corrcoef(flipped, raised)[0, 1]) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", COMPILED)
def test_a_state_resumes_bit_for_bit(jit_compile: bool) -> None:
    whole = augmented(LIGHT, compiled=jit_compile)
    resumed = augmented(LIGHT, state=whole.saved[0], compiled=jit_compile)

    assert_same(resumed.saved[0].variables, whole.saved[1].variables)
    assert resumed.rows[1]["loss"] == whole.rows[1]["loss"]


@pytest.mark.slow
def test_other_seeds_and_epochs_draw_other_changes() -> None:
    first, other = augmented(LIGHT, seed=5), augmented(LIGHT, seed=6)
    augment = augmentation(LIGHT, 5)
    assert augment is not None

    assert first.rows[0]["loss"] != other.rows[0]["loss"]
    assert not np.array_equal(augment(IMAGES), augment(IMAGES))
    assert np.array_equal(changed(LIGHT, IMAGES), changed(LIGHT, IMAGES))


class Blackened(Augmentation):
    """Leaves no image anything to be told by."""

    def __init__(self) -> None:
        super().__init__([keras.layers.Rescaling(0)])


def test_validation_images_and_what_is_saved_are_never_changed() -> None:
    model = small_model()
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    layers = [layer.name for layer in model.layers]

    (*_, row) = fit(
        *(model, ONE_CYCLE, 5, False, TRAIN, VALIDATION, None, lambda _: None), augment=Blackened()
    )

    assert [row["val_loss"], row["val_accuracy"]] == pytest.approx(
        model.evaluate(*VALIDATION, verbose=0), rel=1e-5
    )
    assert [layer.name for layer in model.layers] == layers
    assert model.layers[2].kernel.numpy().std() == small_model().layers[2].kernel.numpy().std()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("flip=x", "flip: must be none or horizontal or vertical or both, got x"),
        ("shift=1", "shift: must be from 0 to below 1, got 1.0"),
        ("rotate=181", "rotate: must be from 0 to 180, got 181.0"),
        ("zoom=-0.1", "zoom: must be from 0 to below 1, got -0.1"),
        ("elastic=1", "elastic: must be from 0 to below 1, got 1.0"),
        ("contrast=nan", "contrast: must be from 0 to 1, got nan"),
        ("noise=2", "noise: must be from 0 to 1, got 2.0"),
    ],
)
def test_values_out_of_bounds_are_refused(compose: Compose, override: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        compose(f"augmentation.{override}")

    assert f"augmentation.{said}" in str(error.value)
