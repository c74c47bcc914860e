"""How examples are divided into those to train on and those held out for validation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.data.arrays import Examples, Split, pool, take
from image_classification.data.assignment import Indices, assign, quotas
from image_classification.data.fingerprint import require_split


def split_for_run(folder: Path, data: DataConfig, seed: int) -> Split:
    """The split that a run with this seed uses.

    It is the one on disk; or, with `data.split_per_seed`, another draw of as many validation
    examples from what is not test, from both seeds; or, with `data.folds`, the fold of this seed is
    held out of what is not test: seeds 0, 1, ... take the folds in turn.

    Raises:
        UserError: a file is missing or damaged, or was made from another configuration; or a side
            would be empty.
    """
    split = require_split(folder, data)
    if data.folds is None and not data.split_per_seed:
        return split
    both = pool(split.train, split.validation)
    if data.folds is not None:
        held_out = _folds(split, both, data.folds, data.split_seed) == seed % data.folds
        return _divided(split, both, held_out)
    (drawn,) = np.random.SeedSequence([data.split_seed, seed]).generate_state(1)
    if split.is_user_data() and data.stratify:
        count = len(split.classes)
        wanted = np.array(
            [np.bincount(part.labels, minlength=count) for part in (split.validation, split.train)]
        )
        held_out = assign(_numbers(both), _units(split), wanted, int(drawn)) == 0
        if held_out.all() or not held_out.any():
            raise UserError(
                f"data.split_per_seed: seed {seed} leaves a side empty, since groups, like images "
                "with the same pixels, stay together: set it to false, or give smaller groups"
            )
        return _divided(split, both, held_out)
    parts = hold_out(both, len(split.validation.labels), int(drawn))
    return replace(split, train=parts["train"], validation=parts["validation"])


def hold_out(examples: Examples, count: int, seed: int) -> dict[str, Examples]:
    """Shuffle the examples by the seed and hold out the last ones: `train` and `validation`.

    Raises:
        UserError: there would be none to train with.
    """
    if count >= len(examples.labels):
        raise UserError(
            f"data.validation_examples: {count} of "
            f"{len(examples.labels)} training images leave none to train with: lower it"
        )
    train, validation = train_test_split(
        np.arange(len(examples.labels)), test_size=count, random_state=seed
    )
    return {"train": take(examples, train), "validation": take(examples, validation)}


def _folds(split: Split, both: Examples, folds: int, seed: int) -> Indices:
    """The fold of each example, from 0; each has its share of every class."""
    counts = np.bincount(both.labels, minlength=len(split.classes))
    if folds > len(both.labels):
        raise UserError(f"data.folds: {folds} of {len(both.labels)} images, at most one each")
    wanted = quotas(counts.tolist(), [1 / folds] * (folds - 1))
    parts = assign(_numbers(both), _units(split), wanted, seed)
    if len(set(parts)) < folds:
        raise UserError(
            f"data.folds: {folds - len(set(parts))} of {folds} would be empty, since groups, like "
            "images with the same pixels, stay together: lower it, or give smaller groups"
        )
    return parts


def _numbers(examples: Examples) -> Indices:
    return np.asarray(examples.labels, np.int64)


def _units(split: Split) -> Indices:
    if not split.is_user_data():  # `units` would number each part from 0
        return np.arange(len(split.train.labels) + len(split.validation.labels))
    return np.concatenate([split.units("train"), split.units("validation")])


def _divided(split: Split, both: Examples, held_out: NDArray[np.bool_]) -> Split:
    return replace(
        split,
        train=take(both, np.flatnonzero(~held_out)),
        validation=take(both, np.flatnonzero(held_out)),
    )
