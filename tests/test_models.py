from dataclasses import replace

import numpy as np
import pytest
from conftest import Compose

from image_classification import models
from image_classification.errors import UserError


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lm", 7_850),
        ("nn", 318_010),
        ("dnn", 355_110),
        ("dnnd", 355_110),
        ("cnn", 650_714),
        ("dcnn", 696_890),
    ],
)
def test_parameter_counts_are_the_studys(compose: Compose, name: str, parameters: int) -> None:
    model = models.build(compose(f"model={name}").model, (28, 28, 1), classes=10)

    assert model.count_params() == parameters
    assert sum(row["parameters"] for row in models.layer_table(model)) == parameters


def test_a_model_takes_raw_pixels_and_gives_probabilities(compose: Compose) -> None:
    model = models.build(compose("model=cnn").model, (28, 28, 1), classes=10)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)

    probabilities = np.asarray(model(images))

    assert probabilities.dtype == np.float32
    assert probabilities.shape == (3, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_pixels_are_divided_by_255(compose: Compose) -> None:
    model = models.build(compose("model=lm").model, (2, 2, 1), classes=2)
    weights, _ = model.get_layer("probabilities").get_weights()
    image = np.array([0, 51, 102, 255], np.uint8).reshape(1, 2, 2, 1)

    scores = np.array([0, 0.2, 0.4, 1]) @ weights

    expected = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(np.asarray(model(image))[0], expected, rtol=1e-5)


def test_one_knob_sets_the_rate_of_every_dropout_layer(compose: Compose) -> None:
    model = models.build(compose("model=dcnn", "model.dropout=0.5").model, (28, 28, 1), classes=10)

    assert [model.get_layer(f"dropout_{i}").rate for i in (1, 2)] == [0.5, 0.5]


def test_a_model_that_forgets_to_flatten_is_named(compose: Compose) -> None:
    config = compose("model=nn", "~model.layers.flatten").model

    with pytest.raises(UserError, match=r"conf/model/nn\.yaml: the output has the shape"):
        models.build(config, (28, 28, 1), classes=10)


def test_other_images_and_classes_fit_the_same_description(compose: Compose) -> None:
    model = models.build(compose("model=cnn").model, (32, 48, 3), classes=4)

    assert model.output_shape == (None, 4)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"type": "Denze", "units": 3}, "layers.wrong: Keras has no layer Denze"),
        ({"type": "Lambda"}, "layers.wrong: Keras has no layer Lambda that a saved model may hold"),
        ({"type": "Dense", "unitz": 3}, "layers.wrong:"),
        ({"type": "Dropout", "rate": 7}, "layers.wrong:"),
    ],
)
def test_a_wrong_layer_is_named(compose: Compose, layer: dict[str, object], said: str) -> None:
    config = replace(compose("model=nn").model, layers={"wrong": layer})

    with pytest.raises(UserError, match=r"conf/model/nn\.yaml: layers\.wrong") as error:
        models.build(config, (28, 28, 1), classes=10)

    assert said in str(error.value)
    assert "\n" not in str(error.value)
