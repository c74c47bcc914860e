from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import described, tiny_examples
from numpy.typing import NDArray

from image_classification.core.errors import UserError
from image_classification.core.files import sha256
from image_classification.models.prediction import predict
from image_classification.serving import conversion
from image_classification.serving.artifact import Artifact
from image_classification.serving.engine import Engine

Images = NDArray[np.uint8]


@pytest.fixture
def images() -> Images:
    return tiny_examples(130, seed=5).images


def test_the_engine_answers_as_keras_does(
    exported: Artifact, tiny_model: keras.Model, images: Images
) -> None:
    found = Engine(exported).predict(images)

    assert exported.engine == "litert"
    assert found.dtype == np.float32
    assert np.allclose(found, predict(tiny_model, images), atol=1e-5)
    assert exported.checked["images"] == exported.checked["labels_equal"] == len(images)
    assert 0 <= exported.checked["largest_difference"] <= 1e-4


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_batches_of_any_size_give_the_same(exported: Artifact, images: Images, count: int) -> None:
    engine = Engine(exported)
    expected = engine.predict(images)[:count]

    assert np.allclose(engine.predict(images[:count]), expected, atol=1e-6)
    assert engine.predict(images[:count]).shape == (count, 10)


def test_an_engine_takes_no_fractions_and_no_other_shape(
    exported: Artifact, images: Images
) -> None:
    with pytest.raises(ValueError, match="float64"):
        Engine(exported).predict(images / 255)  # type: ignore[arg-type]  # as users might
    with pytest.raises(ValueError, match="expected uint8"):
        Engine(exported).predict(images[:, :5])


@pytest.mark.slow
def test_the_same_model_gives_the_same_file(
    exported: Artifact, tiny_model: keras.Model, images: Images, tmp_path: Path
) -> None:
    again = conversion.convert(tiny_model, described(tmp_path), images[:5])

    assert again.sha256 == exported.sha256 == sha256(again.file)


@pytest.mark.slow
def test_what_litert_cannot_do_tensorflow_does(tmp_path: Path) -> None:
    """Resizing with antialiasing is no operation of LiteRT."""
    layers = [
        keras.Input((6, 6, 1), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Resizing(4, 4, antialias=True),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    images = np.random.default_rng(0).integers(0, 256, (70, 6, 6, 1), np.uint8)

    made = conversion.convert(model, described(tmp_path, (6, 6, 1)), images)

    assert made.engine == "tf_function"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved_model.zip"]
    assert np.allclose(Engine(made).predict(images), predict(model, images), atol=1e-6)


def test_a_model_that_answers_otherwise_is_not_taken(
    exported: Artifact, tiny_model: keras.Model, images: Images
) -> None:
    """As a conversion that loses the weights does."""
    tiny_model.set_weights([weights * 1.01 for weights in tiny_model.get_weights()])

    found = conversion.compare(tiny_model, Engine(exported), images)

    assert found.largest_difference > conversion.TOLERANCE
    assert not found.is_small


@pytest.mark.slow
def test_a_model_that_gives_no_numbers_is_not_exported(
    tiny_model: keras.Model, images: Images, tmp_path: Path
) -> None:
    tiny_model.set_weights([weights * np.nan for weights in tiny_model.get_weights()])

    with pytest.raises(UserError, match="tiny_cnn-0 can't be exported"):
        conversion.convert(tiny_model, described(tmp_path), images[:5])
    assert list(tmp_path.iterdir()) == []
