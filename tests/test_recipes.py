from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import Compose, tiny_examples

from image_classification import recipes


def test_each_epoch_holds_every_example_once_in_a_new_order() -> None:
    examples = tiny_examples(50, seed=0)
    batches = recipes.ShuffledBatches(examples, batch_size=16, seed=3)
    epochs = []
    for epoch in range(3):
        batches.start_epoch(epoch)
        epochs.append(np.concatenate([batches[i][0] for i in range(len(batches))]))

    assert len(batches) == 4
    assert [len(batches[i][1]) for i in range(4)] == [16, 16, 16, 2]
    for images in epochs:
        assert sorted(map(bytes, images)) == sorted(map(bytes, examples.images))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_images_keep_their_labels() -> None:
    examples = tiny_examples(50, seed=0)
    batches = recipes.ShuffledBatches(examples, batch_size=7, seed=3)
    label_of = dict(zip(map(bytes, examples.images), examples.labels, strict=True))

    for index in range(len(batches)):
        images, labels = batches[index]
        assert [label_of[bytes(image)] for image in images] == list(labels)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    examples = tiny_examples(50, seed=0)
    one, same, other = (recipes.ShuffledBatches(examples, 8, seed) for seed in (1, 1, 2))

    assert np.array_equal(one.order(4), same.order(4))
    assert not np.array_equal(one.order(4), other.order(4))


def test_keras_walks_through_the_epochs_in_these_orders() -> None:
    import keras

    class Recorder(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []

        def train_step(self, data: Any) -> dict[str, float]:
            self.seen += list(np.asarray(data[1]))
            return {"loss": 0.0}

        def test_step(self, data: Any) -> dict[str, float]:
            return {"loss": 0.0}

        def call(self, inputs: Any) -> Any:
            return inputs

    examples = tiny_examples(30, seed=0)
    examples = examples._replace(labels=np.arange(30, dtype=np.uint8))
    batches = recipes.ShuffledBatches(examples, batch_size=8, seed=5)
    model = Recorder()
    model.compile(run_eagerly=True)
    recipes.fit_in_order(model, batches, 3, examples, report=lambda epoch, values: None)

    assert model.seen == [int(i) for epoch in range(3) for i in batches.order(epoch)]


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
