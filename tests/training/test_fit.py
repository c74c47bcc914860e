import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from conftest import SMALL_RECIPE, Compose, tiny_examples
from numpy.typing import NDArray

from image_classification.core.config import ModelConfig, RecipeConfig
from image_classification.data.arrays import Examples
from image_classification.models import build
from image_classification.training import fit as fitting
from image_classification.training.checkpoint import State
from image_classification.training.fit import EpochReporter, MultiStepTrainer, fit
from image_classification.training.schedules import learning_rate

TRAIN, VALIDATION = tiny_examples(50, seed=0), tiny_examples(20, seed=1)
COMPILED = [False, pytest.param(True, id="xla")]

CONSTANT = replace(SMALL_RECIPE, learning_rate=0.001, schedule="constant", warm_up=0)
ONE_CYCLE = SMALL_RECIPE


def small_model() -> keras.Model:
    hidden = {"type": "Dense", "units": 8, "activation": "relu"}
    config = ModelConfig("small", {"flatten": {"type": "Flatten"}, "hidden": hidden}, "small")
    keras.utils.set_random_seed(1)
    return build.build(config, (28, 28, 1), classes=10)


@dataclass(frozen=True)
class Fitted:
    """What came of a fit without XLA."""

    rows: list[dict[str, float]]
    saved: list[State]
    weights: list[NDArray[np.float32]]


def fitted(
    recipe: RecipeConfig, validation: Examples = VALIDATION, state: State | None = None
) -> Fitted:
    model, saved = small_model(), list[State]()
    rows = fit(model, recipe, 5, False, TRAIN, validation, state, saved.append)
    return Fitted(rows, saved, model.get_weights())


@pytest.fixture(scope="module")
def cycle() -> Fitted:
    return fitted(ONE_CYCLE)


def assert_same(one: list[NDArray[Any]], other: list[NDArray[Any]]) -> None:
    for first, second in zip(one, other, strict=True):
        assert np.array_equal(first, second)


def test_a_row_is_what_keras_measured_the_rate_and_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[dict[str, float]] = []
    reporter = EpochReporter(rows.append)
    reporter.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.5)))
    times = iter([10.0, 12.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))

    reporter.on_epoch_begin(3)
    reporter.on_epoch_end(3, {"loss": np.float32(0.25), "val_loss": np.float32(0.75)})

    assert rows == [
        {"epoch": 3, "loss": 0.25, "val_loss": 0.75, "learning_rate": 0.5, "epoch_seconds": 2.5}
    ]


@pytest.mark.parametrize("jit_compile", [True, False], ids=["compiled", "traced"])
def test_the_caller_decides_whether_the_steps_are_compiled(
    monkeypatch: pytest.MonkeyPatch, jit_compile: bool
) -> None:
    given: list[bool] = []
    compile_model = MultiStepTrainer.compile

    def compile_without(self: keras.Model, *, jit_compile: bool, **options: Any) -> None:
        given.append(jit_compile)
        compile_model(self, jit_compile=False, **options)

    monkeypatch.setattr(MultiStepTrainer, "compile", compile_without)
    monkeypatch.setattr(MultiStepTrainer, "fit", lambda *_, **__: None)
    fit(small_model(), CONSTANT, 5, jit_compile, TRAIN, VALIDATION, None, lambda _: None)

    assert given == [jit_compile]


def test_a_step_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[bool] = []
    loss = MultiStepTrainer.compute_loss

    def noted(self: MultiStepTrainer, x: Any, y: Any, z: Any, weight: Any, training: bool) -> Any:
        traced.append(training)
        return loss(self, x, y, z, weight, training)

    monkeypatch.setattr(MultiStepTrainer, "compute_loss", noted)
    fitted(CONSTANT)

    assert sorted(traced) == [False, True]


def test_bars_are_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def bars(steps: int, steps_per_group: int) -> Iterator[list[Any]]:
        yield [(steps, steps_per_group)]

    callbacks: list[list[Any]] = []
    monkeypatch.setattr(fitting, "epoch_bars", bars)
    monkeypatch.setattr(
        MultiStepTrainer, "fit", lambda *_, **options: callbacks.append(options["callbacks"])
    )
    for progress in ([], [False], [True]):
        fit(
            *(small_model(), CONSTANT, 5, False, TRAIN, VALIDATION, None, lambda _: None),
            *progress,
        )

    assert [before for *before, _ in callbacks] == [[], [], [(7, 3)]]
    assert all(isinstance(last, EpochReporter) for *_, last in callbacks)


def test_the_scaling_and_the_probabilities_keep_all_digits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Seen(Exception):  # noqa: N818  # no error: it ends the fit
        """Raised with the layers that would compute in another precision."""

    def see(precision: str, layers: Sequence[keras.Layer]) -> None:
        raise Seen(precision, [layer.name for layer in layers])

    model = small_model()
    assert [layer.name for layer in model.layers] == [
        "scaling",
        "flatten",
        "hidden",
        "probabilities",
    ]
    monkeypatch.setattr(fitting, "computing_in", see)

    with pytest.raises(Seen) as seen:
        MultiStepTrainer(model, 8, "bfloat16").train_step((TRAIN.images[:8], TRAIN.labels[:8]))
    assert seen.value.args == ("bfloat16", ["flatten", "hidden"])


@pytest.mark.parametrize("jit_compile", COMPILED)
@pytest.mark.parametrize(
    "steps", [3, pytest.param(1, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)]
)
def test_many_steps_at_once_come_to_what_keras_does_batch_by_batch(
    steps: int, jit_compile: bool
) -> None:
    recipe = replace(CONSTANT, steps_per_execution=steps)
    ours = small_model()
    theirs = keras.models.clone_model(ours)
    theirs.set_weights(ours.get_weights())
    saved: list[State] = []
    rows = fit(ours, recipe, 5, jit_compile, TRAIN, VALIDATION, None, saved.append)

    theirs.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    for epoch, row in enumerate(rows):
        order = np.random.default_rng([5, epoch]).permutation(50)
        images, labels = TRAIN.images[order], TRAIN.labels[order]
        history = theirs.fit(
            *(images, labels),
            batch_size=8,
            shuffle=False,
            verbose=0,
            validation_data=tuple(VALIDATION),
        ).history
        for name, (value,) in history.items():
            assert row[name] == pytest.approx(value, rel=1e-4), name
        assert row["epoch"] == epoch
    for one, two in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)
    assert [state.rows for state in saved] == [rows[:1], rows]


def test_a_state_resumes_bit_for_bit(cycle: Fitted, capsys: pytest.CaptureFixture[str]) -> None:
    resumed = fitted(ONE_CYCLE, state=cycle.saved[0])
    assert capsys.readouterr().out == ""  # what is shown is for `save` and the bars to say

    same = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    assert [resumed.rows[1][name] for name in same] == [cycle.rows[1][name] for name in same]
    assert resumed.rows[0] == cycle.rows[0]
    assert [state.rows for state in resumed.saved] == [resumed.rows]
    assert_same(resumed.saved[0].variables, cycle.saved[1].variables)
    assert_same(resumed.weights, cycle.weights)


def test_a_state_after_the_last_epoch_is_the_result(cycle: Fitted) -> None:
    again = fitted(ONE_CYCLE, state=cycle.saved[1])

    assert (again.rows, again.saved) == (cycle.rows, [])
    assert_same(again.weights, cycle.weights)


def test_a_state_of_another_model_is_refused(cycle: Fitted) -> None:
    short = State(cycle.rows, cycle.saved[1].variables[:-1])

    with pytest.raises(ValueError, match="shorter"):
        fitted(ONE_CYCLE, state=short)


def test_the_rate_is_that_of_the_schedule_after_the_steps_of_each_epoch(cycle: Fitted) -> None:
    schedule = learning_rate(ONE_CYCLE, steps=14)
    assert not isinstance(schedule, float)

    rates = [row["learning_rate"] for row in cycle.rows]

    assert rates == pytest.approx([float(schedule(7)), 0], abs=1e-9)
    assert 0.001 < rates[0] < 0.009


def test_fitting_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fitted(CONSTANT)


def test_validation_examples_are_measured_and_not_learned(cycle: Fitted) -> None:
    other = fitted(ONE_CYCLE, tiny_examples(30, seed=2))

    assert other.rows[0]["val_loss"] != cycle.rows[0]["val_loss"]
    assert_same(other.weights, cycle.weights)


def imbalanced(count: int, seed: int) -> Examples:
    """Of the classes 0 to 3 alone, half of the examples of class 0."""
    images, labels = tiny_examples(count, seed)
    return Examples(images, np.where(np.arange(count) % 2, labels % 3 + 1, 0).astype(np.uint8))


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, id="xla", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", ["none", "balanced"])
@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_the_loss_of_a_step_is_the_formula_and_that_of_validation_is_plain(
    kind: str, smoothing: float, jit_compile: bool
) -> None:
    """In one step of all examples, the loss is that of the first weights."""
    train, validation = imbalanced(60, seed=3), imbalanced(20, seed=4)
    recipe = replace(CONSTANT, epochs=1, batch_size=60, learning_rate=0.01)
    recipe = replace(recipe, class_weights=kind, label_smoothing=smoothing)
    model = small_model()
    before = model.predict(train.images, verbose=0)
    surprise = -np.log(before)  # of each class, by example
    at_label = surprise[np.arange(60), train.labels]
    counts = np.bincount(train.labels)
    weights = 60 / (4 * counts[train.labels]) if kind == "balanced" else np.ones(60)

    (row,) = fit(model, recipe, 5, jit_compile, train, validation, None, lambda _: None)

    expected = weights * ((1 - smoothing) * at_label + smoothing * surprise.mean(axis=1))
    assert len(set(counts)) > 2
    assert row["loss"] == pytest.approx(expected.mean(), rel=1e-5)
    assert row["accuracy"] == pytest.approx((before.argmax(1) == train.labels).mean())
    after = model.predict(validation.images, verbose=0)
    plain = -np.log(after[np.arange(20), validation.labels]).mean()
    assert row["val_loss"] == pytest.approx(plain, rel=1e-5)
    assert row["val_accuracy"] == pytest.approx((after.argmax(1) == validation.labels).mean())


def test_smoothing_keeps_the_losses_that_layers_add() -> None:
    recipe = replace(CONSTANT, epochs=1, batch_size=50)
    losses = []
    for factor in (0.0, 0.5):
        model = small_model()
        kernel = model.layers[2].kernel
        kernel.regularizer = keras.regularizers.L2(factor)
        added = factor * float(np.square(kernel.numpy()).sum())
        smoothed = replace(recipe, label_smoothing=0.2)
        (row,) = fit(model, smoothed, 5, False, TRAIN, VALIDATION, None, lambda _: None)
        losses.append(row["loss"] - added)

    assert added > 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_weights_change_what_is_learned_and_resume_bit_for_bit() -> None:
    recipe = replace(ONE_CYCLE, class_weights="balanced", optimizer="sgd", weight_decay=0.01)
    whole = fitted(recipe)

    assert_same(fitted(recipe, state=whole.saved[0]).weights, whole.weights)
    unweighted = fitted(replace(recipe, class_weights="none"))
    assert not np.array_equal(unweighted.weights[0], whole.weights[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, id="xla", marks=pytest.mark.slow)]
)
def test_only_the_training_computes_in_bfloat16(compose: Compose, jit_compile: bool) -> None:
    config = compose("recipe=fast", "model=cnn", "model.layers.convolution_1.filters=4")
    train = tiny_examples(64, seed=0)
    losses = {}
    for precision in ("float32", "bfloat16"):
        recipe = replace(config.recipe, epochs=1, batch_size=8, precision=precision)
        keras.utils.set_random_seed(1)
        model = build.build(config.model, (28, 28, 1), classes=10)
        (row,) = fit(model, recipe, 5, jit_compile, train, VALIDATION, None, lambda _: None)
        losses[precision] = row["loss"]
        model.compile(loss="sparse_categorical_crossentropy")

        assert row["val_loss"] == pytest.approx(model.evaluate(*VALIDATION, verbose=0), rel=1e-5)
        assert {weights.dtype for weights in model.weights} == {"float32"}
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != pytest.approx(losses["float32"], rel=1e-5)
