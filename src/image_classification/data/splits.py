"""How examples are divided into those to train on and those held out for validation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.data.arrays import Examples, Split
from image_classification.data.fingerprint import require_split


def split_for_run(folder: Path, data: DataConfig, seed: int) -> Split:
    """The split that a run with this seed uses.

    It is the one on disk or, with `data.split_per_seed`, another draw of as many validation
    examples from what is not test, from both seeds.

    Raises:
        UserError: a file is missing or damaged, or was made from another configuration.
    """
    split = require_split(folder, data)
    if not data.split_per_seed:
        return split
    both = Examples(
        np.concatenate([split.train.images, split.validation.images]),
        np.concatenate([split.train.labels, split.validation.labels]),
    )
    (drawn,) = np.random.SeedSequence([data.split_seed, seed]).generate_state(1)
    parts = hold_out(both, data, int(drawn))
    return replace(split, train=parts["train"], validation=parts["validation"])


def hold_out(examples: Examples, data: DataConfig, seed: int) -> dict[str, Examples]:
    """Shuffle the examples by the seed and hold out the last ones: `train` and `validation`.

    Raises:
        UserError: there would be none to train with.
    """
    if data.validation_examples >= len(examples.labels):
        raise UserError(
            f"data.validation_examples: {data.validation_examples} of "
            f"{len(examples.labels)} training images leave none to train with"
        )
    train, validation = train_test_split(
        np.arange(len(examples.labels)), test_size=data.validation_examples, random_state=seed
    )
    return {
        "train": Examples(examples.images[train], examples.labels[train]),
        "validation": Examples(examples.images[validation], examples.labels[validation]),
    }
