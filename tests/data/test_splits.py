from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Compose

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.data import arrays, fingerprint, splits
from image_classification.data.arrays import Examples, Split


def numbered(count: int) -> Examples:
    """Examples of which the first pixel says which one it is, and the label follows from it."""
    images = np.zeros((count, 28, 28, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return Examples(images, np.arange(count, dtype=np.uint8) * 7 % 10)


def numbers(examples: Examples) -> list[int]:
    """Which examples these are; each has its own label."""
    found = examples.images[:, 0, 0, 0]
    assert np.array_equal(examples.labels, found * 7 % 10)
    return [int(number) for number in found]


@pytest.fixture
def data(compose: Compose) -> DataConfig:
    return compose("data.validation_examples=12").data


def drawn(folder: Path, data: DataConfig, seed: int) -> Split:
    """What a run gets whose split on disk holds out the last 12 of 60 examples."""
    both, test = numbered(60), numbered(80)
    parts = {
        "train": Examples(both.images[:48], both.labels[:48]),
        "validation": Examples(both.images[48:], both.labels[48:]),
        "test": Examples(test.images[60:], test.labels[60:]),
    }
    arrays.save_split(folder, parts, fingerprint.origin(data))
    return splits.split_for_run(folder, data, seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_run_has_the_split_on_disk(tmp_path: Path, data: DataConfig, seed: int) -> None:
    split = drawn(tmp_path, data, seed)

    assert numbers(split.train) == list(range(48))
    assert numbers(split.validation) == list(range(48, 60))
    assert numbers(split.test) == list(range(60, 80))


def test_a_split_per_seed_is_a_draw_from_all_but_the_test_examples(
    tmp_path: Path, data: DataConfig
) -> None:
    split = drawn(tmp_path, replace(data, split_per_seed=True), seed=0)

    train, validation = numbers(split.train), numbers(split.validation)
    assert (len(train), len(validation)) == (48, 12)
    assert sorted(train + validation) == list(range(60))
    assert numbers(split.test) == list(range(60, 80))


def test_a_split_per_seed_depends_on_the_runs_seed_and_on_the_splits(
    tmp_path: Path, data: DataConfig
) -> None:
    held_out = {
        (split_seed, seed): numbers(
            drawn(
                tmp_path, replace(data, split_per_seed=True, split_seed=split_seed), seed
            ).validation
        )
        for split_seed, seed in ((42, 0), (42, 1), (7, 0), (0, 42))
    }
    again = drawn(tmp_path, replace(data, split_per_seed=True, split_seed=42), seed=1)

    assert len({tuple(validation) for validation in held_out.values()}) == 4
    assert numbers(again.validation) == held_out[42, 1]


def test_examples_held_out_are_not_among_those_to_train_on() -> None:
    parts, same, other = (splits.hold_out(numbered(60), 12, seed) for seed in (3, 3, 4))

    train, validation = numbers(parts["train"]), numbers(parts["validation"])
    assert (len(train), len(validation)) == (48, 12)
    assert sorted(train + validation) == list(range(60))
    assert numbers(same["validation"]) == validation
    assert numbers(other["validation"]) != validation


@pytest.mark.parametrize("count", [12, 11])
def test_there_must_be_an_example_left_to_train_on(count: int) -> None:
    with pytest.raises(
        UserError, match=f"12 of {count} training images leave none to train with: low"
    ):
        splits.hold_out(numbered(count), 12, seed=0)

    assert len(splits.hold_out(numbered(13), 12, seed=0)["train"].labels) == 1


def test_folds_of_idx_files_hold_out_each_example_once_and_as_many_of_each_class(
    tmp_path: Path, data: DataConfig
) -> None:
    held_out = [
        drawn(tmp_path, replace(data, folds=5), seed).validation.labels for seed in range(5)
    ]

    counts = np.array([np.bincount(labels, minlength=10) for labels in held_out])
    assert counts.sum(axis=0).tolist() == np.bincount(numbered(60).labels).tolist()
    assert np.ptp(counts, axis=0).max() <= 1
