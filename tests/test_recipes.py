from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import Compose, tiny_examples

from image_classification import models, recipes
from image_classification.checkpoint import State


def test_each_epoch_holds_every_example_once_in_a_new_order() -> None:
    examples = tiny_examples(50, seed=0)
    groups = recipes.BatchGroups(examples, batch_size=8, steps=2, seed=3)
    epochs = [list(groups.epoch(epoch)) for epoch in range(3)]

    assert [len(labels) for _, labels in epochs[0]] == [16, 16, 16, 2]
    assert (len(groups), groups.steps_per_epoch) == (4, 7)
    images = [np.concatenate([group.images for group in epoch]) for epoch in epochs]
    for seen in images:
        assert sorted(map(bytes, seen)) == sorted(map(bytes, examples.images))
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[1], images[2])


def test_images_keep_their_labels() -> None:
    examples = tiny_examples(50, seed=0)
    label_of = dict(zip(map(bytes, examples.images), examples.labels, strict=True))

    for images, labels in recipes.BatchGroups(examples, batch_size=7, steps=3, seed=3).epoch(0):
        assert [label_of[bytes(image)] for image in images] == list(labels)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    examples = tiny_examples(50, seed=0)
    one, same, other = (recipes.BatchGroups(examples, 8, 2, seed) for seed in (1, 1, 2))

    assert np.array_equal(one.order(4), same.order(4))
    assert not np.array_equal(one.order(4), other.order(4))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 100])
def test_many_steps_at_once_come_to_what_keras_does_batch_by_batch(
    compose: Compose, steps: int, jit_compile: bool
) -> None:
    config = compose("recipe=notebook", "model=nn", "model.layers.hidden.units=8")
    recipe = replace(config.recipe, epochs=2, batch_size=8, steps_per_execution=steps)
    train, validation = tiny_examples(50, seed=0), tiny_examples(20, seed=1)
    keras.utils.set_random_seed(1)
    ours = models.build(config.model, (28, 28, 1), classes=10)
    theirs = keras.models.clone_model(ours)
    theirs.set_weights(ours.get_weights())
    kept: list[State] = []
    rows = recipes.fit(ours, recipe, 5, jit_compile, train, validation, None, kept.append)

    theirs.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    for epoch, row in enumerate(rows):
        order = np.random.default_rng([5, epoch]).permutation(50)
        images, labels = train.images[order], train.labels[order]
        history = theirs.fit(
            *(images, labels),
            batch_size=8,
            shuffle=False,
            verbose=0,
            validation_data=tuple(validation),
        ).history
        for name, (value,) in history.items():
            assert row[name] == pytest.approx(value, rel=1e-4), name
    for one, two in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)
    assert [state.rows for state in kept] == [rows[:1], rows]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_only_the_training_computes_in_bfloat16(compose: Compose, jit_compile: bool) -> None:
    config = compose("recipe=fast", "model=cnn", "model.layers.convolution_1.filters=4")
    train, validation = tiny_examples(64, seed=0), tiny_examples(20, seed=1)
    losses = {}
    for precision in ("float32", "bfloat16"):
        recipe = replace(config.recipe, epochs=1, batch_size=8, precision=precision)
        keras.utils.set_random_seed(1)
        model = models.build(config.model, (28, 28, 1), classes=10)
        (row,) = recipes.fit(model, recipe, 5, jit_compile, train, validation, None, lambda _: None)
        losses[precision] = row["loss"]
        model.compile(loss="sparse_categorical_crossentropy")

        assert row["val_loss"] == pytest.approx(model.evaluate(*validation, verbose=0), rel=1e-5)
        assert {weights.dtype for weights in model.weights} == {"float32"}
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != pytest.approx(losses["float32"], rel=1e-5)


def test_a_layer_with_a_type_of_its_own_keeps_it() -> None:
    layers = [keras.layers.Dense(2), keras.layers.Dense(2, dtype="float64")]
    for precision, inside in (("float32", "float32"), ("bfloat16", "bfloat16")):
        with recipes.computing_in(precision, layers):
            assert [layer.compute_dtype for layer in layers] == [inside, "float64"]
        assert [layer.compute_dtype for layer in layers] == ["float32", "float64"]


def test_one_cycle_rises_to_the_highest_rate_and_falls_to_zero(compose: Compose) -> None:
    recipe = replace(
        compose("recipe=fast").recipe, schedule="one_cycle", learning_rate=0.01, warm_up=0.25
    )
    schedule = recipes.learning_rate(recipe, steps=400)
    assert not isinstance(schedule, float)
    rates = [float(schedule(step)) for step in range(401)]

    assert rates[0] == 0
    assert rates[50] == pytest.approx(0.005)
    assert int(np.argmax(rates)) == 100
    assert max(rates) == pytest.approx(0.01)
    assert rates[400] == pytest.approx(0, abs=1e-9)
    assert all(np.diff(rates[100:]) <= 0)


def test_the_notebook_recipe_keeps_its_rate(compose: Compose) -> None:
    assert recipes.learning_rate(compose("recipe=notebook").recipe, steps=400) == 0.001
