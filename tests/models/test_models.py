import hashlib
import json
import resource
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import Compose

from image_classification.core.errors import UserError
from image_classification.models import build, prediction, saved
from image_classification.models.prediction import predict


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
    model = build.build(compose(f"model={name}").model, (28, 28, 1), classes=10)

    assert model.count_params() == parameters
    assert sum(row["parameters"] for row in build.layer_table(model)) == parameters


def test_a_model_takes_raw_pixels_and_gives_probabilities(compose: Compose) -> None:
    model = build.build(compose("model=cnn").model, (28, 28, 1), classes=10)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)

    probabilities = np.asarray(model(images))

    assert probabilities.dtype == np.float32
    assert probabilities.shape == (3, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_more_images_than_are_read_at_once_are_predicted_as_in_one_piece(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build.build(compose("model=lm").model, (4, 4, 1), classes=3)
    images = np.random.default_rng(0).integers(0, 256, (25, 4, 4, 1), dtype=np.uint8)
    whole = predict(model, images)
    monkeypatch.setattr(prediction, "PREDICTION_BATCH", 5)
    read: list[int] = []

    class Recorded(np.ndarray):
        def __getitem__(self, rows: Any) -> Any:
            read.append(rows.stop - rows.start)
            return super().__getitem__(rows)

    parts = predict(model, images.view(Recorded))

    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    assert read == [5] * 5


def test_pixels_are_divided_by_255(compose: Compose) -> None:
    model = build.build(compose("model=lm").model, (2, 2, 1), classes=2)
    weights, _ = model.get_layer("probabilities").get_weights()
    image = np.array([0, 51, 102, 255], np.uint8).reshape(1, 2, 2, 1)

    scores = np.array([0, 0.2, 0.4, 1]) @ weights

    expected = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(np.asarray(model(image))[0], expected, rtol=1e-5)


def test_one_setting_sets_the_rate_of_every_dropout_layer(compose: Compose) -> None:
    model = build.build(compose("model=dcnn", "model.dropout=0.5").model, (28, 28, 1), classes=10)

    assert [model.get_layer(f"dropout_{i}").rate for i in (1, 2)] == [0.5, 0.5]


def test_a_model_that_forgets_to_flatten_is_named(compose: Compose) -> None:
    config = compose("model=nn", "~model.layers.flatten").model

    with pytest.raises(UserError, match=r"conf/model/nn\.yaml: the output has the shape"):
        build.build(config, (28, 28, 1), classes=10)


def test_other_images_and_classes_fit_the_same_description(compose: Compose) -> None:
    model = build.build(compose("model=cnn").model, (32, 48, 3), classes=4)

    assert model.output_shape == (None, 4)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"type": "Denze", "units": 3}, "layers.wrong: Keras has no layer Denze"),
        (
            {"type": "Lambda"},
            "layers.wrong: Keras has no layer Lambda that a saved model may hold",
        ),
        ({"type": "TFSMLayer", "filepath": "x"}, "layers.wrong: Keras has no layer TFSMLayer"),
        ({"type": "__class__"}, "layers.wrong: Keras has no layer __class__"),
        ({"type": "Dense", "unitz": 3}, "layers.wrong:"),
        ({"type": "Dropout", "rate": 7}, "layers.wrong:"),
    ],
)
def test_a_wrong_layer_is_named(compose: Compose, layer: dict[str, object], said: str) -> None:
    config = replace(compose("model=nn").model, layers={"wrong": layer})

    with pytest.raises(UserError, match=r"conf/model/nn\.yaml: layers\.wrong") as error:
        build.build(config, (28, 28, 1), classes=10)

    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"type": "Conv2D", "filters": 1_500_000, "kernel_size": 28}, "the weights: 1,192,"),
        ({"type": "Dense", "units": 10**12}, "layers.wrong: 784,000,000,000,000 numbers"),
        ({"type": "Dense", "units": 10**30}, "layers.wrong: 784,000,"),
        ({"type": "ZeroPadding2D", "padding": 10**9}, "layers.wrong: 4,000,000,"),
        (
            {"type": "Conv2D", "filters": 8, "kernel_size": 10**5, "padding": "same"},
            "the weights: 80,",
        ),
        ({"type": "Embedding", "input_dim": 10**12, "output_dim": 8}, "the weights: 8,000,"),
        ({"type": "MaxPooling2D", "pool_size": 50}, "Computed output size would be zero"),
        ({"type": "Layer"}, "The layer wrong has never been called"),
    ],
)
def test_a_layer_that_does_not_fit_costs_a_line_and_no_memory(
    compose: Compose, layer: dict[str, object], said: str
) -> None:
    config = replace(compose("model=nn").model, layers={"wrong": layer})

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, the most until now
    with pytest.raises(UserError, match=r"conf/model/nn\.yaml: ") as error:
        build.build(config, (28, 28, 1), classes=10)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert after - before < 2**18
    # What was refused is forgotten: the next model gets weights, and only its own.
    assert build.build(compose("model=lm").model, (28, 28, 1), classes=10).count_params() == 7_850


def test_a_seed_gives_the_weights_that_keras_alone_would_give(compose: Compose) -> None:
    config = compose("model=nn").model
    keras.utils.set_random_seed(7)
    built = build.build(config, (28, 28, 1), classes=10)
    keras.utils.set_random_seed(7)
    plain = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            *(build._layer(config, name) for name in config.layers),
            keras.layers.Dense(10),
        ]
    )

    for ours, theirs in zip(built.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def saved_model(compose: Compose, tmp_path: Path) -> Path:
    """A small model as a run leaves it."""
    path = tmp_path / "cnn-0/model.keras"
    path.parent.mkdir()
    layers: dict[str, dict[str, Any]] = {
        "convolution": {"type": "Conv2D", "filters": 2, "kernel_size": 3, "activation": "relu"},
        "flatten": {"type": "Flatten"},
        "dropout": {"type": "Dropout"},
        "hidden": {"type": "Dense", "units": 3, "kernel_regularizer": "l2"},
    }
    config = replace(compose("model=cnn").model, layers=layers)
    build.build(config, (5, 5, 1), classes=2).save(path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the description of the layers in a saved model, and nothing else."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(members["config.json"])
    change(description)
    members["config.json"] = json.dumps(description).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, contents in members.items():
            archive.writestr(name, contents)


def test_a_saved_model_loads_as_it_was(saved_model: Path) -> None:
    model = saved.load(saved_model, sha256(saved_model))

    theirs = keras.saving.load_model(saved_model, compile=False)
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 5, 1), dtype=np.uint8)
    np.testing.assert_array_equal(predict(model, images), predict(theirs, images))
    assert model.get_config() == theirs.get_config()


def test_a_model_with_another_checksum_is_not_parsed(
    saved_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = sha256(saved_model)
    contents = bytearray(saved_model.read_bytes())
    contents[len(contents) // 2] ^= 1
    saved_model.write_bytes(contents)
    monkeypatch.setattr(zipfile, "ZipFile", None)

    with pytest.raises(UserError) as error:
        saved.load(saved_model, right)

    assert f"{saved_model} has SHA-256 {sha256(saved_model)}, expected {right}" in str(error.value)
    assert "`dvc repro --force --single-item train@cnn-0`" in str(error.value)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model"])
def test_a_missing_model_or_one_of_another_format_is_named(saved_model: Path, name: str) -> None:
    other = saved_model.parent / name
    digest = sha256(saved_model)
    saved_model.rename(saved_model.parent / "away")
    if not name.endswith(".keras"):
        (saved_model.parent / "away").rename(other)

    with pytest.raises(UserError, match="is not a model in the format") as error:
        saved.load(other, digest)

    assert str(other) in str(error.value)
    assert "train@cnn-0" in str(error.value)


@pytest.mark.parametrize("contents", [b"", b"not an archive", b"PK\5\6" + bytes(18)])
def test_a_file_that_is_no_saved_model_costs_a_line(saved_model: Path, contents: bytes) -> None:
    saved_model.write_bytes(contents)

    with pytest.raises(UserError, match="can't be read") as error:
        saved.load(saved_model, sha256(saved_model))

    assert "\n" not in str(error.value)


LAMBDA = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "config": {"name": "x", "function": {"class_name": "__lambda__", "config": {"value": "eA=="}}},
    "registered_name": None,
}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (LAMBDA, "keras.layers.Lambda"),
        ({**LAMBDA, "class_name": "TFSMLayer"}, "keras.layers.TFSMLayer"),
        ({**LAMBDA, "class_name": "deserialize"}, "keras.layers.deserialize"),
        ({**LAMBDA, "module": "os", "class_name": "system"}, "os.system"),
        ({**LAMBDA, "module": "keras.utils", "class_name": "get_file"}, "keras.utils.get_file"),
        ({**LAMBDA, "module": None, "class_name": "Own", "registered_name": "x>Own"}, "None.Own"),
        ({**LAMBDA, "class_name": "Dense", "registered_name": "x>Own"}, "keras.layers.Dense"),
        ({"class_name": "__lambda__", "config": {"value": "eA=="}}, "None.__lambda__"),
        ({"class_name": ["Dense"], "config": {}}, "None.['Dense']"),
    ],
)
@pytest.mark.parametrize("place", ["layer", "activation", "nested"])
def test_a_saved_model_may_hold_no_code(
    saved_model: Path, part: dict[str, object], said: str, place: str
) -> None:
    def change(description: dict[str, Any]) -> None:
        layers = description["config"]["layers"]
        if place == "layer":
            layers.insert(2, part)
        elif place == "activation":
            layers[-1]["config"]["activation"] = part
        else:
            layers[-1]["config"]["more"] = [{"wrapped": {"layers": [part]}}]

    rewrite(saved_model, change)

    with pytest.raises(UserError) as error:
        saved.load(saved_model, sha256(saved_model))

    assert f"it holds {said}, which is not a safe layer of Keras" in str(error.value)


def test_a_saved_model_that_promises_terabytes_takes_no_memory(saved_model: Path) -> None:
    def change(description: dict[str, Any]) -> None:
        description["config"]["layers"][-1]["config"]["units"] = 10**12

    rewrite(saved_model, change)

    with pytest.raises(UserError, match="1,000,000,000,000 numbers"):
        saved.load(saved_model, sha256(saved_model))


def test_a_saved_model_with_a_bomb_for_a_description_is_refused(saved_model: Path) -> None:
    with zipfile.ZipFile(saved_model, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(saved.LARGEST_DESCRIPTION + 1))

    with pytest.raises(UserError, match="its description is larger than"):
        saved.load(saved_model, sha256(saved_model))


def test_a_saved_model_with_weights_of_another_shape_is_refused(saved_model: Path) -> None:
    def change(description: dict[str, Any]) -> None:
        description["config"]["layers"][-2]["config"]["units"] = 4

    rewrite(saved_model, change)

    with pytest.raises(UserError, match="can't be read"):
        saved.load(saved_model, sha256(saved_model))
