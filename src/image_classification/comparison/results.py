"""The result of one run: the files that `train` and `evaluate` wrote in, a `Result` out."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from image_classification.core import paths, readers, tables
from image_classification.core.config import FAMILY
from image_classification.core.errors import UserError


@dataclass(frozen=True)
class Result:
    """What the stages wrote for one run.

    recipe: the values that were used; `augmentation` holds those of that group.
    training, metrics, costs, history, layers, per_class, robustness: the contents of the files
        named in `paths`.
    probabilities: float32 (test examples, classes).
    """

    model: str
    seed: int
    family: str
    recipe: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, float]
    costs: dict[str, Any]
    history: pd.DataFrame
    layers: pd.DataFrame
    per_class: pd.DataFrame
    robustness: pd.DataFrame
    probabilities: NDArray[np.float32]

    def numbers(self) -> dict[str, float]:
        """Every number in training.json, metrics.json and costs.json, by its key."""
        merged = {**self.training, **self.metrics, **self.costs}
        return {key: value for key, value in merged.items() if isinstance(value, int | float)}

    def robustness_means(self) -> dict[str, float]:
        """The mean accuracy over the strengths, from 0 to 1, by kind of corruption."""
        corrupted = self.robustness[self.robustness["strength"] > 0]
        means = corrupted.groupby("corruption", sort=False)["accuracy"].mean()
        return {str(kind): float(accuracy) for kind, accuracy in means.items()}


def read_result(model: str, seed: int, examples: int, classes: list[str]) -> Result:
    """Read what `train` and `evaluate` wrote for one run.

    Args:
        model: of the run.
        seed: of the run.
        examples: the number of test images.
        classes: their names.

    Raises:
        UserError: a file is missing or damaged; names it and the command that restores it.
    """
    name = paths.run_name(model, seed)
    training, evaluation = paths.RUNS / name, paths.EVALUATIONS / name
    train_again = f"run `dvc repro --force --single-item train@{name}`"
    evaluate_again = f"run `dvc repro --force --single-item evaluate@{name}`"
    for path in (training / paths.CONFIG_FILE, evaluation / paths.METRICS_FILE):
        if not path.is_file():
            raise UserError(f"{path} is missing: run `dvc repro evaluate@{name}`")
    family, recipe = _read_family_and_recipe(training / paths.CONFIG_FILE, train_again)
    scores = dict.fromkeys(["precision", "recall", "f1"], float)
    return Result(
        model=model,
        seed=seed,
        family=family,
        recipe=recipe,
        training=readers.read_training(training / paths.TRAINING_FILE, train_again),
        metrics=readers.read_numbers(evaluation / paths.METRICS_FILE, None, evaluate_again),
        costs=readers.read_costs(evaluation / paths.COSTS_FILE, evaluate_again),
        history=tables.read_history(training / paths.HISTORY_FILE, train_again),
        layers=tables.read_layers(training / paths.LAYERS_FILE, train_again),
        per_class=tables.read_table(
            evaluation / paths.PER_CLASS_FILE,
            {"class": str, **scores, "examples": int},
            len(classes),
            evaluate_again,
        ),
        robustness=tables.read_table(
            evaluation / paths.ROBUSTNESS_FILE,
            {"corruption": str, "strength": float, "accuracy": float},
            readers.MOST_VALUES,
            evaluate_again,
        ),
        probabilities=_read_probabilities(
            evaluation / paths.TEST_FILE, examples, classes, evaluate_again
        ),
    )


def _read_family_and_recipe(path: Path, hint: str) -> tuple[str, dict[str, Any]]:
    trained = readers.read_mapping(path, hint)
    described, recipe = trained.get("model"), trained.get("recipe")
    augmentation = trained.get("augmentation", {})
    family = described.get("family") if isinstance(described, dict) else None
    # The family becomes part of a picture's file name.
    valid = isinstance(family, str) and re.fullmatch(FAMILY, family)
    if not valid or not isinstance(recipe, dict) or not isinstance(augmentation, dict):
        raise UserError(f"{path}: no model.family, recipe or augmentation: {hint}")
    return str(family), {**recipe, "augmentation": augmentation}


def _read_probabilities(
    path: Path, examples: int, classes: list[str], hint: str
) -> NDArray[np.float32]:
    columns = [f"probability_{name}" for name in classes]
    predictions = tables.read_table(path, dict.fromkeys(columns, np.float32), examples, hint)
    probabilities = predictions[columns].to_numpy()
    if len(probabilities) != examples or not np.isfinite(probabilities).all():
        raise UserError(
            f"{path}: there must be probabilities for each of the {examples} test images: {hint}"
        )
    return probabilities
