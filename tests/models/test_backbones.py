"""Models that begin with a pretrained network; its weights are random here, but real files."""

import hashlib
import pickle
import struct
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import Compose, tiny_examples
from numpy.typing import NDArray

from image_classification.core.config import BackboneConfig, ModelConfig
from image_classification.core.errors import UserError
from image_classification.evaluate import evaluate
from image_classification.models import backbones, build, efficientnet_lite, saved, torch_file
from image_classification.models.prediction import predict, prediction_batch
from image_classification.train import train

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
DROPOUT: dict[str, dict[str, Any]] = {"dropout": {"type": "Dropout", "rate": 0.25}}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lively(network: keras.Model) -> None:
    """Give batch normalisation weights that do something."""
    generator = np.random.default_rng(1)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])


def written(path: Path, name: str, size: int = 32, **options: Any) -> BackboneConfig:
    """A file of random weights for a network, and what conf/model/ says of it."""
    keras.utils.set_random_seed(1)
    if name == backbones.LITE0:
        network = efficientnet_lite.build(size)
    else:
        make = getattr(keras.applications, name)
        network = make(include_top=False, weights=None, input_shape=(size, size, 3))
    lively(network)
    network.save_weights(path)
    return BackboneConfig(name, str(path), size, sha256(path), **options)


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> BackboneConfig:
    return written(tmp_path_factory.mktemp("mobile") / "mobile.weights.h5", "MobileNetV2")


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> BackboneConfig:
    return written(tmp_path_factory.mktemp("lite") / "lite.weights.h5", backbones.LITE0)


def built(
    backbone: BackboneConfig, image_shape: tuple[int, ...] = (32, 32, 3), **change: Any
) -> keras.Model:
    config = ModelConfig("own", DROPOUT, "own", backbone=replace(backbone, **change))
    return build.build(config, image_shape, classes=10)


def features(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return predict(keras.Model(model.input, model.get_layer("features").output), images)


@pytest.mark.slow
def test_a_model_computes_what_its_backbone_does_with_pixels_scaled_as_for_its_training(
    mobile: BackboneConfig,
) -> None:
    model = built(mobile)
    theirs = keras.applications.MobileNetV2(
        include_top=False, weights=mobile.weights, input_shape=(32, 32, 3), pooling="avg"
    )
    scaled = keras.applications.mobilenet_v2.preprocess_input(IMAGES.astype(np.float32))

    expected = theirs.predict(scaled, verbose=0)

    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(features(model, IMAGES), expected, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    rows = build.layer_table(model)
    assert sum(row["parameters"] for row in rows) == model.count_params()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetB0", "EfficientNetV2B0", "ResNet50V2", "Xception"])
def test_each_kind_of_backbone_is_inlined_and_saved(name: str, tmp_path: Path) -> None:
    backbone = written(tmp_path / "own.weights.h5", name, size=72)
    model = built(backbone, (72, 72, 3))
    images = np.resize(IMAGES, (2, 72, 72, 3))
    theirs = getattr(keras.applications, name)(
        include_top=False, weights=backbone.weights, input_shape=(72, 72, 3), pooling="avg"
    )
    pretrained = backbones.PRETRAINED[name]
    scaled = images * np.float32(pretrained.scale) + np.float32(pretrained.offset)
    np.testing.assert_allclose(
        features(model, images), theirs.predict(scaled, verbose=0), rtol=1e-3, atol=1e-4
    )
    model.save(tmp_path / "model.keras")
    loaded = saved.load(tmp_path / "model.keras", sha256(tmp_path / "model.keras"))
    np.testing.assert_array_equal(predict(loaded, images), predict(model, images))


def test_keras_knows_every_name() -> None:
    for name in set(backbones.PRETRAINED) - {backbones.LITE0}:
        assert callable(getattr(keras.applications, name))


def test_grey_images_of_another_size_are_made_fit_in_the_model(lite: BackboneConfig) -> None:
    model = built(lite, (28, 28, 1))
    grey = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    resized = keras.ops.image.resize(grey.astype(np.float32), (32, 32), antialias=True)
    colours = np.repeat((np.asarray(resized) - 127) / 128, 3, axis=3)

    network = backbones.load(lite)

    expected = np.asarray(network(colours)).mean(axis=(1, 2))
    np.testing.assert_allclose(features(model, grey), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match=r"own\.yaml: a backbone takes images of 1 or 3 channels"):
        built(lite, (28, 28, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainable", "learning"),
    [
        (False, 0),
        pytest.param(2, 2, marks=pytest.mark.slow),
        pytest.param(True, 49, marks=pytest.mark.slow),
        pytest.param(1000, 49, marks=pytest.mark.slow),
    ],
)
def test_the_last_layers_learn_and_batch_normalisation_never_does(
    lite: BackboneConfig, trainable: bool | int, learning: int
) -> None:
    model = built(lite, trainable=trainable)

    weights = [weight.path for weight in model.trainable_weights]
    assert len(weights) == learning + 2  # and the probabilities
    assert weights[-2:] == ["probabilities/kernel", "probabilities/bias"]
    assert learning == 0 or weights[-3] == "_conv_head/kernel"
    before = features(model, IMAGES)
    model(IMAGES, training=True)
    np.testing.assert_array_equal(features(model, IMAGES), before)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "ResNet50"}, "backbone.name: must be one of EfficientNetLite0, "),
        ({"name": "MobileNetV3Small"}, "backbone.name: must be one of"),
        ({"name": "__doc__"}, "backbone.name: must be one of"),
        ({"weights": "gone.weights.h5"}, "backbone.weights: there is no file "),
        ({"weights": "imagenet"}, "backbone.weights: Keras has none for EfficientNetLite0"),
        ({"weights": "pypi:own"}, "weights: pypi:own does not give efficientnet-lite0-"),
        ({"weights": "pypi:own", "name": "MobileNetV2"}, "packages are read for EfficientNetLite0"),
        ({"sha256": "0" * 64}, "backbone.sha256: "),
        ({"sha256": ""}, "expected one: remove the file, or write down its SHA-256"),
        ({"name": "MobileNetV2"}, "does not fit MobileNetV2"),
    ],
)
def test_weights_that_are_not_there_or_not_the_right_ones_cost_a_line(
    lite: BackboneConfig,
    change: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError) as error:
        built(lite, **change)

    assert str(error.value).startswith("conf/model/own.yaml: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "give its path" not in str(error.value)  # from a path, Keras builds some otherwise


@pytest.mark.slow
def test_weights_called_imagenet_are_those_in_keras_own_folder(
    mobile: BackboneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    (tmp_path / "models").mkdir()
    network = keras.applications.MobileNetV2(
        include_top=False, weights=mobile.weights, input_shape=(32, 32, 3)
    )
    network.save(tmp_path / "models" / name)  # in the older format that Keras' own files have
    digest = sha256(tmp_path / "models" / name)

    model = built(mobile, weights="imagenet", sha256=digest)

    np.testing.assert_array_equal(features(model, IMAGES), features(built(mobile), IMAGES))
    with pytest.raises(UserError, match=rf"{name} has {digest}, expected"):
        built(mobile, weights="imagenet")


def torch_state(arrays: dict[str, NDArray[np.float32]], extra: bytes = b"") -> bytes:
    """What PyTorch before its 1.6 saved: opcodes by hand, since its classes are not here."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    body = b"\x80\x02" + b"ccollections\nOrderedDict\n)R("
    for name, array in arrays.items():
        strides = tuple(stride // array.itemsize for stride in array.strides)
        stored = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(name) + text("cpu")
        stored += b"J" + struct.pack("<i", array.size) + b"NtQ"
        given = b"(" + stored + b"K\0" + numbers(array.shape) + numbers(strides) + b"\x89Nt"
        body += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + given + b"R"
    body += b"u" + extra + b"."
    head = [torch_file.MAGIC, torch_file.PROTOCOL, {"little_endian": True}]
    parts = [pickle.dumps(value, 2) for value in head] + [body, pickle.dumps(list(arrays), 2)]
    for array in arrays.values():
        flat = np.lib.stride_tricks.as_strided(array, (array.size,), (array.itemsize,))
        parts.append(struct.pack("<q", array.size) + flat.astype("<f4").tobytes())
    return b"".join(parts)


@pytest.mark.slow
def test_weights_of_pytorch_become_those_of_keras(lite: BackboneConfig, tmp_path: Path) -> None:
    network = backbones.load(lite)
    arrays: dict[str, NDArray[np.float32]] = OrderedDict()
    for layer in network.layers:
        values = layer.get_weights()
        if isinstance(layer, keras.layers.BatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            arrays |= {f"{layer.name}.{p}": v for p, v in zip(parts, values, strict=True)}
        elif values:
            axes = (2, 3, 0, 1) if "depthwise" in layer.name else (3, 2, 0, 1)
            arrays[f"{layer.name}.weight"] = np.transpose(values[0], axes)  # not contiguous
    path = tmp_path / "lite.pth"
    path.write_bytes(torch_state(arrays))

    model = built(lite, weights=str(path), sha256=sha256(path))

    np.testing.assert_array_equal(features(model, IMAGES), features(built(lite), IMAGES))


SOME = {"one": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        torch_state(SOME, b"cos\nsystem\n(X\x04\0\0\0trueltR0"),
        torch_state(SOME, b"c__builtin__\neval\n0"),
        torch_state(SOME)[:-4],
        torch_state(SOME).replace(struct.pack("<i", 6) + b"Nt", struct.pack("<i", 2**30) + b"Nt"),
        torch_state(SOME).replace(b"J" + struct.pack("<i", 3), b"J" + struct.pack("<i", 99)),
        pickle.dumps({"one": 1}),
    ],
    ids=["empty", "system", "eval", "short", "terabytes", "beyond", "plain"],
)
def test_a_file_of_pytorch_may_hold_nothing_but_tensors(contents: bytes, tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(torch_state(SOME))
    (tmp_path / "bad").write_bytes(contents)

    np.testing.assert_array_equal(torch_file.read(tmp_path / "whole")["one"], SOME["one"])
    with pytest.raises((ValueError, pickle.UnpicklingError, EOFError)):
        torch_file.read(tmp_path / "bad")


def test_few_images_at_once_go_through_a_model_with_large_outputs(compose: Compose) -> None:
    layer = {"type": "Conv2D", "filters": 64, "kernel_size": 3, "padding": "same"}
    layers: dict[str, dict[str, Any]] = {
        "large": layer,
        "pooling": {"type": "GlobalAveragePooling2D"},
    }
    large = build.build(ModelConfig("large", layers, "large"), (256, 256, 1), classes=2)

    assert prediction_batch(large) == 2**26 // (256 * 256 * 64)
    small = build.build(compose("model=dcnn").model, (28, 28, 1), classes=10)
    assert prediction_batch(small) == 1000


@pytest.mark.slow
def test_a_frozen_backbone_is_trained_on_evaluated_and_loaded(
    workspace: Path, compose: Compose, lite: BackboneConfig
) -> None:
    settings = [f"model.backbone.weights={lite.weights}", f"model.backbone.sha256={lite.sha256}"]
    size = "model.backbone.image_size=32"
    config = compose("model=lite0_frozen", "recipe.epochs=2", size, *settings)
    config.output_dir = "runs/lite0_frozen-0"

    trained = train(config)
    config.output_dir = "evaluations/lite0_frozen-0"
    evaluation = evaluate(config)

    history = trained.history.iloc[-1]
    assert list(trained.history["epoch"]) == [0, 1]
    assert evaluation.metrics["validation_accuracy"] == pytest.approx(history["val_accuracy"])
    loaded = keras.saving.load_model("runs/lite0_frozen-0/model.keras", compile=False)
    images = tiny_examples(5, 3).images
    np.testing.assert_array_equal(predict(loaded, images), predict(trained.model, images))
    assert len(list((workspace / "weights").glob("features-*.npz"))) == 2
