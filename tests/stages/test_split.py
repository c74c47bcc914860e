import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Compose, Mirror, tiny_examples, write_idx
from sklearn.model_selection import train_test_split

from image_classification.core import paths
from image_classification.core.config import Config
from image_classification.core.errors import UserError
from image_classification.data import arrays, splits
from image_classification.data.arrays import Examples
from image_classification.formats import idx
from image_classification.split import split


@pytest.fixture
def config(
    compose: Compose, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Config:
    """The tiny data set, downloaded."""
    monkeypatch.chdir(tmp_path)
    paths.RAW.mkdir(parents=True)
    config = compose("data.validation_examples=100")
    for file in config.data.files.values():
        contents = (mirror.folder / file.name).read_bytes()
        (paths.RAW / file.name).write_bytes(contents)
        file.sha256 = hashlib.sha256(contents).hexdigest()
    return config


def test_the_default_split_is_the_studys(compose: Compose) -> None:
    # Each image says which one it is; the study's own call is the reference.
    indices = np.arange(60_000, dtype=">u4").view(np.uint8).reshape(-1, 2, 2, 1)
    labels = np.arange(60_000) % 10

    data = compose().data
    assert data.validation_examples is not None
    parts = splits.hold_out(
        Examples(indices, labels.astype(np.uint8)), data.validation_examples, data.split_seed
    )

    train, validation = train_test_split(indices, test_size=1 / 6, random_state=42)
    assert len(train) == 50_000
    assert np.array_equal(parts["train"].images, train)
    assert np.array_equal(parts["validation"].images, validation)


def test_every_training_image_is_in_one_part_with_its_label(config: Config) -> None:
    parts = split(config)

    raw = idx.read_idx(paths.RAW / config.data.files["train_images"].name)
    labels = idx.read_idx(paths.RAW / config.data.files["train_labels"].name)
    label_of = dict(zip(map(bytes, raw), labels, strict=True))
    both = [*parts["train"].images, *parts["validation"].images]
    assert sorted(map(bytes, both)) == sorted(map(bytes, raw))
    for part in ("train", "validation"):
        found = [label_of[bytes(image)] for image in parts[part].images]
        assert found == list(parts[part].labels)


def test_the_test_images_stay_as_they_are(config: Config) -> None:
    split(config)

    raw = idx.read_idx(paths.RAW / config.data.files["test_images"].name)
    assert np.array_equal(arrays.load_split(paths.SPLIT).test.images[..., 0], raw)


def test_another_seed_gives_another_split(config: Config) -> None:
    first = split(config)
    config.data.split_seed = 1
    second = split(config)

    assert not np.array_equal(first["validation"].images, second["validation"].images)


def test_labels_and_images_that_do_not_match_are_refused(config: Config) -> None:
    write_idx(paths.RAW / config.data.files["train_labels"].name, tiny_examples(3, 0).labels)

    with pytest.raises(UserError, match=r"600 images, .* 3 labels"):
        split(config)


def test_a_label_without_a_class_is_refused(config: Config) -> None:
    config.data.classes = ["0", "1"]

    with pytest.raises(UserError, match="label 9, but 2 classes"):
        split(config)


def test_images_of_another_size_are_refused(config: Config) -> None:
    config.data.image_shape = [32, 32, 1]

    with pytest.raises(UserError, match=r"images of \(28, 28\), expected \[32, 32, 1\]"):
        split(config)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((600, 14, 56), [28, 28, 1]), ((600, 1, 28, 28), [28, 28, 1]), ((600, 784), [28, 28, 1])],
)
def test_images_of_as_many_pixels_in_another_order_are_refused(
    config: Config, shape: tuple[int, ...], expected: list[int]
) -> None:
    file = paths.RAW / config.data.files["train_images"].name
    write_idx(file, idx.read_idx(file).reshape(shape))

    with pytest.raises(UserError, match=re.escape(f"images of {shape[1:]}, expected {expected}")):
        split(config)


def test_validation_must_leave_images_to_train_with(config: Config) -> None:
    config.data.validation_examples = 600

    with pytest.raises(UserError, match="leave none to train with"):
        split(config)


def test_a_seed_can_draw_its_own_split_of_what_is_not_test(config: Config) -> None:
    def images(seed: int) -> tuple[list[bytes], list[bytes]]:
        found = splits.split_for_run(paths.SPLIT, config.data, seed)
        assert np.array_equal(found.test.images, parts["test"].images)
        assert len(found.validation.labels) == config.data.validation_examples
        return list(map(bytes, found.train.images)), list(map(bytes, found.validation.images))

    parts = split(config)
    before = images(seed=0)
    assert images(seed=1) == before
    config.data.split_per_seed = True

    first, second = images(seed=0), images(seed=1)

    assert images(seed=0) == first
    assert not set(first[1]) & set(first[0])
    for train, validation in (first, second):
        assert sorted(train + validation) == sorted(before[0] + before[1])
    assert set(first[1]) != set(second[1]) != set(before[1]) != set(first[1])


def test_a_raw_file_of_other_contents_is_refused(config: Config) -> None:
    images = paths.RAW / config.data.files["train_images"].name
    contents = bytearray(images.read_bytes())
    contents[-1] ^= 1
    images.write_bytes(contents)

    with pytest.raises(UserError, match=f"{images} does not have the SHA-256"):
        split(config)
    assert not paths.SPLIT.exists()
