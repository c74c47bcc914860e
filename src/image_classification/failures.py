"""Where models fail: labels and the probabilities of all their trainings in, examples out.

A model misses an example when more than half of its trainings do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Misses:
    """Which examples are missed, as indices.

    by_model: by each model.
    shared: by every model.
    alone: by one model and no other.
    """

    by_model: dict[str, Indices]
    shared: Indices
    alone: dict[str, Indices]


def misses(labels: Labels, probabilities: Mapping[str, Probabilities]) -> Misses:
    """Find the examples that all models miss, and those that one alone does.

    Args:
        labels: (examples,), indices of the true classes.
        probabilities: by model, (trainings, examples, classes).
    """
    missed = {
        model: (values.argmax(axis=2) != labels).mean(axis=0) > 0.5
        for model, values in probabilities.items()
    }
    times = np.sum(list(missed.values()), axis=0)
    return Misses(
        by_model={model: np.flatnonzero(where) for model, where in missed.items()},
        shared=np.flatnonzero(times == len(missed)),
        alone={model: np.flatnonzero(where & (times == 1)) for model, where in missed.items()},
    )


def mistaken_for(labels: Labels, probabilities: Probabilities) -> Indices:
    """The wrong class that each example is most often taken for; its label if there is none.

    Args:
        labels: (examples,), indices of the true classes.
        probabilities: (trainings, examples, classes).
    """
    votes = np.zeros(probabilities.shape[1:], int)
    examples = np.arange(len(labels))
    for training in probabilities:
        votes[examples, training.argmax(axis=1)] += 1
    votes[examples, labels] = 0
    return np.where(votes.any(axis=1), votes.argmax(axis=1), labels)


def confused_pairs(
    labels: Labels, probabilities: Mapping[str, Probabilities], classes: list[str], most: int
) -> pd.DataFrame:
    """The pairs of an actual and a predicted class that most of the mistakes fall on.

    Args:
        labels: (examples,), indices of the true classes.
        probabilities: by model, (trainings, examples, classes).
        classes: their names.
        most: rows of the result.

    Returns:
        Columns actual, predicted, and for each model its mistakes of that kind a training; first
        the pair with the largest share of a model's mistakes, averaged over the models.
    """
    counts = {}
    for model, values in probabilities.items():
        confusion = np.zeros((len(classes), len(classes)))
        for training in values:
            np.add.at(confusion, (labels, training.argmax(axis=1)), 1 / len(values))
        np.fill_diagonal(confusion, 0)
        counts[model] = confusion
    shares = sum(confusion / max(confusion.sum(), 1) for confusion in counts.values())
    ranked = np.argsort(-np.ravel(shares), kind="stable")[:most]
    pairs = [divmod(int(pair), len(classes)) for pair in ranked if np.ravel(shares)[pair] > 0]
    return pd.DataFrame(
        {
            "actual": [classes[actual] for actual, _ in pairs],
            "predicted": [classes[predicted] for _, predicted in pairs],
            **{model: [confusion[pair] for pair in pairs] for model, confusion in counts.items()},
        }
    )


def likely_label_errors(labels: Labels, probabilities: Probabilities) -> pd.DataFrame:
    """Examples whose label looks wrong: all trainings agree on one and the same other class.

    The consensus filter of Brodley and Friedl, "Identifying mislabeled training data" (1999). The
    more trainings there are, the stricter it is.

    Args:
        labels: (examples,), indices of the given classes.
        probabilities: (trainings, examples, classes), of models not trained on these examples.

    Returns:
        Columns example, label, suggested (indices) and the two classes' mean probabilities, the
        least likely labels first.
    """
    predicted = probabilities.argmax(axis=2)
    agreed = (predicted == predicted[0]).all(axis=0)
    doubted = np.flatnonzero(agreed & (predicted[0] != labels))
    label, suggested = labels[doubted], predicted[0][doubted]
    means = probabilities[:, doubted].mean(axis=0)
    rows = np.arange(len(doubted))
    table = pd.DataFrame(
        {
            "example": doubted,
            "label": label,
            "suggested": suggested,
            "probability_of_label": means[rows, label],
            "probability_of_suggested": means[rows, suggested],
        }
    )
    return table.sort_values("probability_of_label", kind="stable", ignore_index=True)
