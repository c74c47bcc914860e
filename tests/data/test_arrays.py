from pathlib import Path

import numpy as np
import pytest
from conftest import Compose, Mirror, tiny_examples, write_idx

from image_classification.core.errors import UserError
from image_classification.data import arrays, fingerprint
from image_classification.formats import idx


def test_an_idx_file_reads_as_it_was_written(tmp_path: Path) -> None:
    images = tiny_examples(5, seed=0).images[..., 0]
    write_idx(tmp_path / "images", images)

    assert np.array_equal(idx.read_idx(tmp_path / "images"), images)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (b"GIF89a..", "not an IDX file"),
        (b"\0\0\x0d\x01" + b"\0\0\0\x01" + b"1234", "not an IDX file"),
        (b"\0\0\x08\x03" + b"\0\0\0\x01", "header is cut short"),
        (b"\0\0\x08\x01" + b"\0\0\0\x05" + b"1234", "declares 5 bytes, 4 follow"),
        (b"\0\0\x08\x01" + b"\0\0\0\x03" + b"1234", "declares 3 bytes, 4 follow"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"1234", "4 follow"),
        (b"\0\0\x08\x46" + bytes(4 * 70), "maximum supported dimension"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, contents: bytes, said: str) -> None:
    (tmp_path / "images").write_bytes(contents)

    with pytest.raises(UserError, match=said) as error:
        idx.read_idx(tmp_path / "images")

    assert str(tmp_path / "images") in str(error.value)


def test_a_missing_idx_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro download"):
        idx.read_idx(tmp_path / "images")


def test_a_split_loads_as_it_was_saved_without_being_read(tmp_path: Path) -> None:
    parts = {
        name: tiny_examples(20, seed) for seed, name in enumerate(["train", "validation", "test"])
    }
    arrays.save_split(tmp_path, parts, {"classes": ["x"]})

    split = arrays.load_split(tmp_path)

    assert split.origin == {"classes": ["x"]}
    assert split.classes == ["x"]
    assert split.image_shape == [28, 28, 1]
    for name, examples in parts.items():
        loaded = getattr(split, name)
        assert isinstance(loaded.images, np.memmap)
        assert loaded.images.dtype == np.uint8
        assert np.array_equal(loaded.images, examples.images)
        assert np.array_equal(loaded.labels, examples.labels)


def test_a_damaged_split_is_refused(tmp_path: Path) -> None:
    parts = dict.fromkeys(["train", "validation", "test"], tiny_examples(5, 0))
    arrays.save_split(tmp_path, parts, {"classes": ["x"]})
    array = tmp_path / "test_images.npy"
    array.write_bytes(array.read_bytes()[:-1])

    with pytest.raises(UserError, match="is damaged"):
        arrays.load_split(tmp_path)


def test_a_split_made_from_another_configuration_is_refused(
    tmp_path: Path, compose: Compose, mirror: Mirror
) -> None:
    parts = dict.fromkeys(["train", "validation", "test"], tiny_examples(5, 0))
    arrays.save_split(tmp_path, parts, fingerprint.origin(compose().data))
    fingerprint.require_split(tmp_path, compose().data)

    with pytest.raises(UserError, match=r"data\.split_seed: .* made with 42, not 7"):
        fingerprint.require_split(tmp_path, compose("data.split_seed=7").data)
