"""The comparison of several models: the results of their runs in, a `Comparison` out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from image_classification.comparison import error_analysis, verdict
from image_classification.comparison.contributions import METRICS, contributions
from image_classification.comparison.error_analysis import Misses
from image_classification.comparison.leaderboard import Entry
from image_classification.comparison.results import Result
from image_classification.comparison.verdict import Verdict

CONFUSED_PAIRS = 10


@dataclass(frozen=True)
class Baseline:
    """A model that predicts the most frequent class of the training examples for every image.

    named: that class.
    scores: on test, from 0 to 1, by name of the metric.
    """

    named: str
    scores: dict[str, float]

    def sentence(self) -> str:
        """What it scores by the metrics that can decide."""
        scores = [f"{METRICS[key].name} {self.scores[key]:.4f}" for key in METRICS]
        return (
            f"Always predicting {self.named}, the most frequent class of the training images, "
            f"scores: {', '.join(scores)}."
        )


@dataclass(frozen=True)
class Comparison:
    """What the results say about the models.

    data: name of the data set.
    classes: names of the classes.
    results: of all runs, in the order of the models in params.yaml.
    entries: the leaderboard, best first.
    labels: (test examples,), indices of the true classes.
    probabilities: by model, (runs, test examples, classes).
    verdict: which differences are significant, by the metric that it names.
    misses: the test examples that models miss.
    confused: from error_analysis.confused_pairs.
    label_errors: from error_analysis.likely_label_errors for the runs of the unbeaten models, with
        names of classes.
    baseline: what a model without any skill scores.
    names: of the test examples' files; empty for data without files.
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
    baseline: Baseline
    names: Sequence[str]

    def means(self) -> pd.DataFrame:
        """The means of the leaderboard's numbers over the runs of each model, one row per model."""
        means = (
            pd.DataFrame([entry.row() for entry in self.entries])
            .groupby("model")
            .mean(numeric_only=True)
        )
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
    baseline: Baseline,
    metric: str = "accuracy",
    names: Sequence[str] = (),
) -> Comparison:
    """Compare the models.

    Args:
        data: see `Comparison`.
        classes: see `Comparison`.
        results: see `Comparison`.
        entries: see `Comparison`.
        labels: see `Comparison`.
        baseline: see `Comparison`.
        metric: one of `contributions.METRICS`.
        names: of the test examples' files; empty for data without files.
    """
    models = dict.fromkeys(result.model for result in results)
    probabilities = {
        model: np.stack([result.probabilities for result in results if result.model == model])
        for model in models
    }
    judged = verdict.judge(
        {
            model: contributions(metric, labels, values.argmax(axis=2))
            for model, values in probabilities.items()
        },
        metric,
    )
    unbeaten = np.concatenate([probabilities[model] for model in judged.unbeaten])
    label_errors = error_analysis.likely_label_errors(labels, unbeaten, names)
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
        misses=error_analysis.misses(labels, probabilities),
        confused=error_analysis.confused_pairs(labels, probabilities, classes, CONFUSED_PAIRS),
        label_errors=label_errors,
        baseline=baseline,
        names=names,
    )
