"""Fitting on a backbone: features that are kept, phases, and resuming in each of them."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from conftest import SMALL_RECIPE, tiny_examples
from numpy.typing import NDArray

from image_classification.core.config import BackboneConfig
from image_classification.core.errors import UserError
from image_classification.training import features, phases
from image_classification.training.checkpoint import State
from image_classification.training.fit import fit
from image_classification.training.phases import fit_in_phases

TRAIN, VALIDATION = tiny_examples(50, seed=0), tiny_examples(20, seed=1)
RECIPE = replace(SMALL_RECIPE, epochs=4)
FROZEN = BackboneConfig("own", "own", 32)
TUNED = replace(FROZEN, trainable=True, head_epochs=2)
SAME = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]


def small_model(learns: bool) -> keras.Model:
    """As build.build makes them, on a backbone of one convolution."""
    keras.utils.set_random_seed(1)
    image = keras.Input((28, 28, 1), dtype="uint8", name="image")
    scaled = keras.layers.Rescaling(1 / 255, name="scaling")(image)
    maps = keras.layers.Conv2D(8, 5, strides=4, activation="relu", name="body")(scaled)
    maps = keras.layers.Flatten(name="features")(maps)
    dropped = keras.layers.Dropout(0.25, name="dropout")(maps)
    model = keras.Model(image, keras.layers.Dense(10, "softmax", name="probabilities")(dropped))
    model.get_layer("body").trainable = learns
    return model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Fitted(NamedTuple):
    """What came of a run; `bodies` are the backbone's weights after each epoch."""

    model: keras.Model
    rows: list[dict[str, float]]
    saved: list[State]
    bodies: list[NDArray[Any]]


class Tuned(NamedTuple):
    augmented: bool
    model: keras.Model
    rows: list[dict[str, float]]
    saved: list[State]
    bodies: list[NDArray[Any]]
    said: str


def fitted(
    backbone: BackboneConfig | None, state: State | None = None, augmented: bool = False
) -> Fitted:
    model = small_model(learns=backbone is None or bool(backbone.trainable))
    saved, bodies = list[State](), list[NDArray[Any]]()

    def save(state: State) -> None:
        saved.append(state)
        bodies.append(weights(model, "body")[0])

    rows = fit_in_phases(
        *(fit, model, RECIPE, backbone, augmented, TRAIN, VALIDATION, state, save),
        seed=5,
        jit_compile=False,
    )
    return Fitted(model, rows, saved, bodies)


def weights(model: keras.Model, name: str) -> list[NDArray[Any]]:
    return list(model.get_layer(name).get_weights())


def assert_same(one: list[NDArray[Any]], other: list[NDArray[Any]]) -> None:
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)


def test_without_a_backbone_nothing_changes() -> None:
    plain, saved = small_model(learns=True), list[State]()
    rows = fit(plain, RECIPE, 5, False, TRAIN, VALIDATION, None, saved.append)

    model, same_rows, same, _ = fitted(None)

    assert_same(model.get_weights(), plain.get_weights())
    assert [[row[key] for key in SAME] for row in same_rows] == [
        [row[key] for key in SAME] for row in rows
    ]
    assert [len(state.rows) for state in same] == [1, 2, 3, 4]
    assert_same(same[-1].variables, saved[-1].variables)


@pytest.mark.slow
def test_a_head_on_kept_features_is_what_it_would_be_on_the_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_graph, saved = small_model(learns=False), list[State]()
    rows = fit(in_graph, RECIPE, 5, False, TRAIN, VALIDATION, None, saved.append)

    model, kept_rows, *_ = fitted(FROZEN)

    for name in ("loss", "val_loss", "val_accuracy"):
        assert [row[name] for row in kept_rows] == pytest.approx(
            [row[name] for row in rows], rel=1e-4
        )
    np.testing.assert_allclose(
        weights(model, "probabilities")[0], weights(in_graph, "probabilities")[0], atol=1e-5
    )
    assert_same(weights(model, "body"), weights(small_model(learns=False), "body"))
    monkeypatch.setattr(features, "predict", None)  # the features of the run before are taken
    again, *_ = fitted(FROZEN)
    assert_same(again.get_weights(), model.get_weights())


def test_features_of_other_weights_or_images_are_others_and_damaged_ones_are_made_anew(
    home: Path,
) -> None:
    body, _ = phases._divided(small_model(learns=False))
    kept = features.features(body, TRAIN)
    (path,) = (home / "weights").glob("features-*.npz")

    learning, _ = phases._divided(small_model(learns=True))
    assert_same([features.features(learning, TRAIN).images], [kept.images])
    assert list((home / "weights").iterdir()) == [path]
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    assert_same([features.features(body, TRAIN).images], [kept.images])
    assert path.read_bytes() != contents
    body.set_weights([value + 1 for value in body.get_weights()])
    assert np.abs(features.features(body, TRAIN).images - kept.images).max() > 0.1
    features.features(body, VALIDATION)
    assert len(list((home / "weights").iterdir())) == 3


@pytest.fixture(scope="module", params=[False, True], ids=["kept", "augmented"])
def tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A run of two phases, with and without features that are kept."""
    said = io.StringIO()
    with contextlib.chdir(tmp_path_factory.mktemp("tuned")), contextlib.redirect_stdout(said):
        model, rows, saved, bodies = fitted(TUNED, augmented=request.param)
    return Tuned(request.param, model, rows, saved, bodies, said.getvalue())


def test_first_the_head_learns_and_then_all_more_slowly(tuned: Tuned) -> None:
    assert [row["epoch"] for row in tuned.rows] == [0, 1, 2, 3]
    assert [len(state.rows) for state in tuned.saved] == [1, 2, 3, 4]
    assert [row["epoch"] for row in tuned.saved[2].rows] == [0, 1, 2]
    start = weights(small_model(learns=True), "body")[0]
    assert [np.array_equal(one, start) for one in tuned.bodies] == [True, True, False, False]
    # Half a cycle each, whose peaks differ by the factor.
    rates = [row["learning_rate"] for row in tuned.rows]
    assert rates[2] == pytest.approx(0.1 * rates[0])
    assert ("the features are computed in every epoch" in tuned.said) == tuned.augmented
    assert ("computing the features of 50 images, once" in tuned.said) != tuned.augmented


@pytest.mark.parametrize("epoch", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_run_resumes_bit_for_bit_in_each_phase(tuned: Tuned, epoch: int) -> None:
    model, rows, saved, _ = fitted(TUNED, tuned.saved[epoch - 1], tuned.augmented)

    assert_same(model.get_weights(), tuned.model.get_weights())
    assert_same(saved[-1].variables, tuned.saved[-1].variables)
    for one, other in zip(rows, tuned.rows, strict=True):
        assert [one[key] for key in SAME] == [other[key] for key in SAME]
    assert [len(state.rows) for state in saved] == list(range(epoch + 1, 5))


def test_a_frozen_backbone_drops_nothing_and_later_does_as_before() -> None:
    image = keras.Input((8,))
    maps = keras.layers.Dropout(0.5, name="depth")(image)
    maps = keras.layers.Dense(4, name="features")(maps)
    last = keras.layers.Dropout(0.5, name="head")(maps)
    model = keras.Model(image, keras.layers.Dense(2, name="probabilities")(last))
    body, head = phases._divided(model)

    def varies(part: keras.Model, width: int) -> bool:
        given = np.ones((64, width), np.float32)
        return bool(np.ptp(np.asarray(part(given, training=True)), axis=0).any())

    with phases._frozen(model):
        assert [varies(body, 8), varies(head, 4)] == [False, True]
    assert [varies(body, 8), varies(head, 4)] == [True, True]


def test_phases_that_leave_nothing_to_the_second_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.backbone\.head_epochs: 4 of 4 epochs .*: lower"):
        fitted(replace(TUNED, head_epochs=4))
