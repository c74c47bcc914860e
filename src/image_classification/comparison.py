"""All that is known of several models: the results of their trainings in, a `Comparison` out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from image_classification import failures, verdict
from image_classification.failures import Misses
from image_classification.leaderboard import Entry
from image_classification.verdict import Verdict

CONFUSED_PAIRS = 10


@dataclass(frozen=True)
class Result:
    """What the stages left of one training.

    recipe: as it was in force.
    tags: of its run.
    training, metrics, costs, history, per_class, robustness: as in the files of `paths`.
    probabilities: float32 (test examples, classes).
    """

    model: str
    seed: int
    family: str
    recipe: dict[str, Any]
    training: dict[str, Any]
    tags: dict[str, str]
    metrics: dict[str, float]
    costs: dict[str, float]
    history: pd.DataFrame
    per_class: pd.DataFrame
    robustness: pd.DataFrame
    probabilities: NDArray[np.float32]

    def robustness_means(self) -> dict[str, float]:
        """Accuracy from 0 to 1 by kind of corruption, the mean over the strengths."""
        corrupted = self.robustness[self.robustness["strength"] > 0]
        means = corrupted.groupby("corruption", sort=False)["accuracy"].mean()
        return {str(kind): float(accuracy) for kind, accuracy in means.items()}


@dataclass(frozen=True)
class Comparison:
    """What is known of the models.

    data: name of the data set; classes: their names.
    results: all trainings, in the order of the models in params.yaml.
    entries: the leaderboard, best first.
    labels: (test examples,), indices of the true classes.
    probabilities: by model, (trainings, test examples, classes).
    verdict: which differences are real.
    misses: the test examples that models miss.
    confused: from failures.confused_pairs.
    label_errors: from failures.likely_label_errors by the unbeaten models; with classes' names.
    """

    data: str
    classes: list[str]
    results: Sequence[Result]
    entries: Sequence[Entry]
    labels: NDArray[np.uint8]
    probabilities: dict[str, NDArray[np.float32]]
    verdict: Verdict
    misses: Misses
    confused: pd.DataFrame
    label_errors: pd.DataFrame

    def means(self) -> pd.DataFrame:
        """The means of the entries' numbers over each model's trainings; a row a model."""
        means = pd.DataFrame(self.entries).groupby("model").mean(numeric_only=True)
        return means.loc[list(self.probabilities)]

    def families(self) -> dict[str, list[str]]:
        """The models of each family."""
        families: dict[str, dict[str, None]] = {}
        for result in self.results:
            families.setdefault(result.family, {})[result.model] = None
        return {family: list(models) for family, models in families.items()}


def judge(
    data: str,
    classes: list[str],
    results: Sequence[Result],
    entries: Sequence[Entry],
    labels: NDArray[np.uint8],
) -> Comparison:
    """Find out what is known; the arguments are what `Comparison` says of them."""
    models = dict.fromkeys(result.model for result in results)
    probabilities = {
        model: np.stack([result.probabilities for result in results if result.model == model])
        for model in models
    }
    judged = verdict.judge(
        {model: values.argmax(axis=2) == labels for model, values in probabilities.items()}
    )
    unbeaten = np.concatenate([probabilities[model] for model in judged.unbeaten])
    label_errors = failures.likely_label_errors(labels, unbeaten)
    for column in ("label", "suggested"):
        label_errors[column] = np.take(classes, label_errors[column].to_numpy(int))
    return Comparison(
        data=data,
        classes=classes,
        results=results,
        entries=entries,
        labels=labels,
        probabilities=probabilities,
        verdict=judged,
        misses=failures.misses(labels, probabilities),
        confused=failures.confused_pairs(labels, probabilities, classes, CONFUSED_PAIRS),
        label_errors=label_errors,
    )
