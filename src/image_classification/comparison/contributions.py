"""What each test example contributes to a model's score: predictions in, contributions out.

The mean of the contributions of all examples is the score, and their variance over the number of
examples is the variance of the score over new examples, even if the metric is not a plain mean:
a contribution is the score plus the example's influence, n - 1 times what the score loses without
it (the jackknife: Efron, "The jackknife, the bootstrap and other resampling plans", 1982). Its
limit, the derivative in the example's weight, is overconfident where classes have few examples.

To let another metric decide, add it to `METRICS` and its name to `core.config.METRICS`, and its
scores on validation and test to `leaderboard.COLUMNS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.integer]  # (examples,), of classes
Hits = NDArray[np.bool_]  # whether an example is classified correctly
Contributions = NDArray[np.bool_ | np.float64]


def accuracy(labels: Indices, predicted: Indices) -> Hits:
    """The hits, whose mean is the accuracy."""
    return np.asarray(predicted == labels)


def balanced_accuracy(labels: Indices, predicted: Indices) -> NDArray[np.float64]:
    """Contributions to the mean recall over the classes that occur.

    Without one of its m examples, a class loses (hit - recall) / (m - 1) of its recall. The recall
    of a class with a single example is 0 without it.
    """
    hits = predicted == labels
    counts = np.bincount(labels)
    recalls = np.bincount(labels, hits) / np.maximum(counts, 1)
    of_several = (hits - recalls[labels]) / np.maximum(counts[labels] - 1, 1)
    losses = np.where(counts[labels] > 1, of_several, hits)
    occurring = counts > 0
    influences = (len(labels) - 1) * losses / occurring.sum()
    return np.asarray(recalls[occurring].mean() + influences - influences.mean())


def f1_macro(labels: Indices, predicted: Indices) -> NDArray[np.float64]:
    """Contributions to the mean F1 over the classes that occur.

    The F1 of a class is 2 TP / S, where S = 2 TP + FP + FN counts its labels and its predictions.
    Without a hit it is 2 (TP - 1) / (S - 2). Without a mistake it is 2 TP / (S - 1), of the class
    of the label and of the one predicted.
    """
    most = int(max(labels.max(), predicted.max())) + 1
    hits = predicted == labels
    right = np.bincount(labels, hits, minlength=most)
    counts = np.bincount(labels, minlength=most)
    both = counts + np.bincount(predicted, minlength=most)
    f1 = 2 * right / np.maximum(both, 1)
    occurring = counts > 0
    of_hit = f1 - 2 * (right - 1) / np.maximum(both - 2, 1)
    of_mistake = (f1 - 2 * right / np.maximum(both - 1, 1)) * occurring
    losses = np.where(hits, of_hit[labels], of_mistake[labels] + of_mistake[predicted])
    influences = (len(labels) - 1) * losses / occurring.sum()
    return np.asarray(f1[occurring].mean() + influences - influences.mean())


@dataclass(frozen=True)
class Metric:
    """A metric that can decide which model is better.

    name: for display.
    contributions: those of one run, (examples,), from labels and predicted classes.
    """

    name: str
    contributions: Callable[[Indices, Indices], Contributions]


METRICS = {
    "accuracy": Metric("accuracy", accuracy),
    "balanced_accuracy": Metric("balanced accuracy", balanced_accuracy),
    "f1_macro": Metric("macro F1", f1_macro),
}


def contributions(metric: str, labels: Indices, predicted: NDArray[np.integer]) -> Contributions:
    """What each example contributes to the score of each run.

    Args:
        metric: one of `METRICS`.
        labels: (examples,), indices of the true classes.
        predicted: (runs, examples), indices of classes.

    Returns:
        (runs, examples), booleans for accuracy; the mean over the examples is the run's score.
    """
    return np.stack([METRICS[metric].contributions(labels, run) for run in predicted])
