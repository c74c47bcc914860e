"""Error analysis: labels and the probabilities of all runs in, misclassified examples out.

A model misses an example when more than half of its runs do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]
Indices = NDArray[np.intp]

FEWEST_RUNS = 5  # that have to agree on a label error: fewer agree on many of their own mistakes


@dataclass(frozen=True)
class Misses:
    """The examples that models miss, as indices.

    by_model: those that each model misses.
    shared: those that every model misses.
    alone: by model, those that no other model misses.
    """

    by_model: dict[str, Indices]
    shared: Indices
    alone: dict[str, Indices]


def misses(labels: Labels, probabilities: Mapping[str, Probabilities]) -> Misses:
    """Find the examples that all models miss, and those that only one model misses.

    Args:
        labels: (examples,), indices of the true classes.
        probabilities: by model, (runs, examples, classes).
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
    """The wrong class that is most often predicted for each example.

    Args:
        labels: (examples,), indices of the true classes.
        probabilities: (runs, examples, classes).

    Returns:
        (examples,), indices of classes; the label where no run is wrong.
    """
    votes = np.zeros(probabilities.shape[1:], int)
    examples = np.arange(len(labels))
    for run in probabilities:
        votes[examples, run.argmax(axis=1)] += 1
    votes[examples, labels] = 0
    return np.where(votes.any(axis=1), votes.argmax(axis=1), labels)


def confused_pairs(
    labels: Labels, probabilities: Mapping[str, Probabilities], classes: list[str], most: int
) -> pd.DataFrame:
    """The pairs of actual and predicted class with the most mistakes.

    Args:
        labels: (examples,), indices of the true classes.
        probabilities: by model, (runs, examples, classes).
        classes: their names.
        most: the maximum number of pairs.

    Returns:
        Columns actual, predicted, and for each model its mistakes of that kind per run. The pairs
        are sorted by their share of a model's mistakes, averaged over the models, largest first.
    """
    counts = {}
    for model, values in probabilities.items():
        confusion = np.zeros((len(classes), len(classes)))
        for run in values:
            np.add.at(confusion, (labels, run.argmax(axis=1)), 1 / len(values))
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


def likely_label_errors(
    labels: Labels, probabilities: Probabilities, names: Sequence[str] = ()
) -> pd.DataFrame:
    """Examples whose label looks wrong, because all of many runs predict the same other class.

    The consensus filter of Brodley and Friedl, "Identifying mislabeled training data" (1999). It
    gets stricter with the number of runs.

    Args:
        labels: (examples,), indices of the given classes.
        probabilities: (runs, examples, classes), of models not trained on these examples.
        names: of the examples' files, (examples,); empty for data without files.

    Returns:
        Columns example, file (if there are names), label, suggested (indices), probability_of_label
        and probability_of_suggested (means over the runs, 0 to 1); the least likely labels first.
        No examples if there are fewer than `FEWEST_RUNS`.
    """
    predicted = probabilities.argmax(axis=2)
    agreed = (predicted == predicted[0]).all(axis=0)
    enough = len(predicted) >= FEWEST_RUNS
    doubted = np.flatnonzero(agreed & (predicted[0] != labels) & enough)
    label, suggested = labels[doubted], predicted[0][doubted]
    means = probabilities[:, doubted].mean(axis=0)
    rows = np.arange(len(doubted))
    table = pd.DataFrame(
        {
            "example": doubted,
            **({"file": [names[int(example)] for example in doubted]} if names else {}),
            "label": label,
            "suggested": suggested,
            "probability_of_label": means[rows, label],
            "probability_of_suggested": means[rows, suggested],
        }
    )
    return table.sort_values("probability_of_label", kind="stable", ignore_index=True)
