from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import Compose

from image_classification.core.errors import UserError
from image_classification.training.optimizers import optimizer


def trained_variables() -> list[keras.Variable]:
    """Ones that are called what Keras' layers call them, in a layer that is called otherwise."""
    layers = [keras.layers.Dense(2, name="gamma"), keras.layers.BatchNormalization(name="kernel")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    return list(model.trainable_variables)


@pytest.mark.parametrize(
    ("name", "decay", "kept"),
    [("adam", 0, 1), ("adamw", 0, 1), ("adamw", 0.5, 0.95), ("sgd", 0, 1), ("sgd", 0.5, 0.95)],
)
def test_weights_decay_without_a_gradient_but_biases_and_normalisation_do_not(
    compose: Compose, name: str, decay: float, kept: float
) -> None:
    recipe = compose("recipe=notebook", "recipe.learning_rate=0.1").recipe
    variables = trained_variables()
    made = optimizer(replace(recipe, optimizer=name, weight_decay=decay), 10, variables)

    made.apply([np.zeros(variable.shape, np.float32) for variable in variables])

    found = {variable.name: float(np.mean(variable)) for variable in variables}
    assert found == pytest.approx({"kernel": kept, "bias": 1, "gamma": 1, "beta": 1})


@pytest.mark.parametrize(
    ("name", "second"),
    # By hand: momentum v = 0.9 v - 0.1 g, the step looks ahead to 0.9 v - 0.1 g.
    [("sgd", 1 - 0.19 - 0.271), ("adam", 0.8), ("adamw", 0.8)],
)
def test_two_steps_along_one_gradient(compose: Compose, name: str, second: float) -> None:
    recipe = compose("recipe=notebook", "recipe.learning_rate=0.1").recipe
    variables = trained_variables()
    made = optimizer(replace(recipe, optimizer=name), 10, variables)

    for _ in range(2):
        made.apply([np.ones(variable.shape, np.float32) for variable in variables])

    assert [float(np.mean(variable)) for variable in variables] == pytest.approx([second] * 4, 1e-5)


def test_adam_decays_no_weights_and_says_who_does(compose: Compose) -> None:
    with pytest.raises(UserError, match=r"recipe\.weight_decay: must be 0 with adam \(adamw and"):
        compose("recipe.weight_decay=0.01")
