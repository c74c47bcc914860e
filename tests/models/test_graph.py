"""Models whose layers name their inputs, and the residual network that comes with the project."""

import copy
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import SMALL_RECIPE, Compose, tiny_examples

from image_classification.core.config import ModelConfig
from image_classification.core.errors import UserError
from image_classification.evaluate import evaluate
from image_classification.models import build, saved
from image_classification.models.prediction import predict
from image_classification.train import train
from image_classification.training.checkpoint import State
from image_classification.training.fit import fit

Layers = dict[str, dict[str, Any]]

RESIDUAL: Layers = {
    "one": {"type": "Conv2D", "filters": 4, "kernel_size": 3, "padding": "same"},
    "normalized": {"type": "BatchNormalization", "momentum": 0.5},
    "other": {"type": "Conv2D", "filters": 4, "kernel_size": 1, "inputs": "image"},
    "sum": {"type": "Add", "inputs": ["normalized", "other"]},
    "pooling": {"type": "GlobalAveragePooling2D"},
    "dropout": {"type": "Dropout", "rate": 0.25},
}


def built(layers: Layers, image_shape: tuple[int, int, int] = (28, 28, 1)) -> keras.Model:
    return build.build(ModelConfig("branching", layers, "residual"), image_shape, classes=10)


def test_layers_take_the_inputs_that_they_name() -> None:
    model = built(RESIDUAL)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), dtype=np.uint8)

    def layer(name: str, values: object) -> Any:
        return model.get_layer(name)(values, training=False)

    scaled = images / np.float32(255)
    summed = layer("normalized", layer("one", scaled)) + layer("other", scaled)
    expected = layer("probabilities", layer("pooling", summed))
    np.testing.assert_allclose(predict(model, images), np.asarray(expected), rtol=1e-4)
    assert [row["layer"] for row in build.layer_table(model)] == [
        *("scaling", "one", "normalized", "other", "sum", "pooling", "dropout", "probabilities")
    ]
    assert {layer.name for layer in build.inner_layers(model)} == set(RESIDUAL)


def test_without_inputs_a_model_is_a_sequential_one() -> None:
    plain: Layers = {"flatten": {"type": "Flatten"}, "hidden": {"type": "Dense", "units": 3}}
    named: Layers = {**plain, "hidden": {"type": "Dense", "units": 3, "inputs": ["flatten"]}}
    models = []
    for layers in (plain, named):
        keras.utils.set_random_seed(1)
        models.append(built(layers))

    assert [type(model) is keras.Sequential for model in models] == [True, False]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "other",
            {"inputs": "imge"},
            "layers.other.inputs: imge is not an earlier layer; there are",
        ),
        (
            "one",
            {"inputs": "other"},
            "layers.one.inputs: other is not an earlier layer; there are im",
        ),
        ("sum", {"inputs": ["sum", "one"]}, "layers.sum.inputs: sum is not an earlier layer"),
        ("sum", {"inputs": []}, "layers.sum.inputs: must be a name or a list of names, got []"),
        ("sum", {"inputs": {"one": 1}}, "layers.sum.inputs: must be a name or a list of names"),
        ("sum", {"inputs": None}, "layers.sum.inputs: must be a name or a list of names"),
        ("sum", {"inputs": ["normalized", "image"], "type": "Subtract"}, "layers.other: no later"),
        ("other", {"filters": 3}, "layers.sum: "),
        ("sum", {"inputs": "other"}, "layers.normalized: no later layer takes its output"),
        ("dropout", {"type": "Dense", "units": 10**12}, "layers.dropout: 1,000,000,000,000 num"),
    ],
)
def test_inputs_that_are_missing_or_do_not_fit_are_named_in_a_line(
    name: str, change: dict[str, Any], said: str
) -> None:
    layer = {**RESIDUAL[name], **change}
    if layer["type"] == "Dense":
        layer.pop("rate", None)

    with pytest.raises(UserError) as error:
        built({**RESIDUAL, name: layer})

    assert str(error.value).startswith(f"conf/model/branching.yaml: {said}")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_moving_averages_are_resumed_bit_for_bit_and_used_for_validation() -> None:
    training, validation = tiny_examples(50, seed=0), tiny_examples(20, seed=1)

    def fitted(state: State | None) -> tuple[keras.Model, list[State]]:
        keras.utils.set_random_seed(1)
        model, states = built(RESIDUAL), list[State]()
        fit(model, SMALL_RECIPE, 5, False, training, validation, state, states.append)
        return model, states

    model, states = fitted(None)
    _, resumed = fitted(states[0])

    for one, other in zip(states[-1].variables, resumed[-1].variables, strict=True):
        np.testing.assert_array_equal(one, other)
    averages = model.get_layer("normalized").get_weights()[2]
    assert any(np.array_equal(averages, value) for value in states[-1].variables)
    assert np.abs(averages).max() > 0.001
    model.compile(loss="sparse_categorical_crossentropy")
    loss = model.evaluate(*validation, verbose=0)
    assert states[-1].rows[-1]["val_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_the_residual_network_is_trained_evaluated_and_loaded(
    workspace: Path, compose: Compose
) -> None:
    layers = compose("model=resnet").model.layers
    small = [f"model.layers.{name}.filters=2" for name in layers if "filters" in layers[name]]
    settings = ["model=resnet", "recipe.epochs=1", "recipe.batch_size=100", *small]
    config = compose(*settings, "output_dir=runs/resnet-0")

    trained = train(config)
    config.output_dir = "evaluations/resnet-0"
    evaluation = evaluate(config)

    history = trained.history.iloc[-1]
    assert evaluation.metrics["validation_accuracy"] == pytest.approx(history["val_accuracy"])
    assert Path("evaluations/resnet-0/figures/layers.png").exists()


@pytest.fixture
def functional(tmp_path: Path) -> Path:
    """A branching model as a run leaves it."""
    path = tmp_path / "branching-0/model.keras"
    path.parent.mkdir()
    built(RESIDUAL, (5, 5, 1)).save(path)
    return path


def load(path: Path) -> keras.Model:
    return saved.load(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_saved_branching_model_loads_as_it_was(functional: Path) -> None:
    model = load(functional)

    theirs = keras.saving.load_model(functional, compile=False)
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 5, 1), dtype=np.uint8)
    np.testing.assert_array_equal(predict(model, images), predict(theirs, images))
    assert model.get_config() == theirs.get_config()


LAMBDA = {"class_name": "__lambda__", "config": {"value": "eA=="}}


def in_config(description: dict[str, Any]) -> None:
    description["config"]["layers"][2]["config"]["activation"] = LAMBDA


def in_options(description: dict[str, Any]) -> None:
    description["config"]["layers"][2]["inbound_nodes"][0]["kwargs"]["mask"] = LAMBDA


def beside_tensors(description: dict[str, Any]) -> None:
    description["config"]["layers"][2]["inbound_nodes"][0]["args"].append(LAMBDA)


def as_tensor(description: dict[str, Any]) -> None:
    (tensor,) = description["config"]["layers"][2]["inbound_nodes"][0]["args"]
    tensor["class_name"] = "__lambda__"


def in_a_circle(description: dict[str, Any]) -> None:
    (tensor,) = description["config"]["layers"][2]["inbound_nodes"][0]["args"]
    tensor["config"]["keras_history"] = ["sum", 0, 0]


def called_twice(description: dict[str, Any]) -> None:
    description["config"]["layers"][2]["inbound_nodes"] *= 2


def with_a_model_in_it(description: dict[str, Any]) -> None:
    inner = {**copy.deepcopy(description), "inbound_nodes": [], "name": "inner"}
    description["config"]["layers"] = [*description["config"]["layers"], inner]


def of_its_own_kind(description: dict[str, Any]) -> None:
    description["module"], description["class_name"] = "own", "Model"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_config, "it holds None.__lambda__"),
        (in_options, "takes more than outputs of earlier layers"),
        (beside_tensors, "can't be read"),
        (as_tensor, "takes more than outputs of earlier layers"),
        (in_a_circle, "takes more than outputs of earlier layers"),
        (called_twice, "takes more than outputs of earlier layers"),
        (with_a_model_in_it, "it holds keras.src.models.functional.Functional"),
        (of_its_own_kind, "neither a Sequential of layers nor a Functional"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_saved_branching_model_may_hold_no_code(
    functional: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    with zipfile.ZipFile(functional) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(members["config.json"])
    change(description)
    members["config.json"] = json.dumps(description).encode()
    with zipfile.ZipFile(functional, "w") as archive:
        for name, contents in members.items():
            archive.writestr(name, contents)

    with pytest.raises(UserError, match=said):
        load(functional)
