"""Classification metrics: arrays in, values out.

To add a metric, add it to `classification`: metrics.json and MLflow follow. A column in
`comparison.leaderboard.COLUMNS` shows it in the leaderboard and the report.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import sklearn.metrics
from numpy.typing import NDArray

BINS = 15  # of confidence, of equal width


def classification(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> dict[str, float]:
    """Loss, calibration, and what `of_predictions` says of the most probable classes.

    Args:
        labels: (n,), indices of the true classes.
        probabilities: (n, classes), rows that sum to 1.

    Returns:
        loss (mean negative log-likelihood in nats, 0 or more), brier (mean squared distance from
        the true probabilities, summed over the classes: 0 to 2; Brier, "Verification of forecasts
        expressed in terms of probability", 1950), calibration_error (0 to 1), and those of
        `of_predictions`.
    """
    classes = np.arange(probabilities.shape[1])
    brier = sklearn.metrics.brier_score_loss(
        labels, probabilities, labels=classes, scale_by_half=False
    )
    return {
        "loss": negative_log_likelihood(labels, probabilities),
        "brier": float(brier),
        "calibration_error": calibration_error(reliability(labels, probabilities)),
        **of_predictions(labels, probabilities.argmax(axis=1)),
    }


def of_predictions(labels: NDArray[np.integer], predicted: NDArray[np.integer]) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 averaged over the classes that occur.

    Averages weight each class by its number of examples; `_macro` averages weight all equally. A
    class without examples has no recall, and counts in no average.

    Args:
        labels: (n,), indices of the true classes.
        predicted: (n,), indices of classes.

    Returns:
        From 0 to 1: accuracy, balanced_accuracy (the mean recall, which is also recall_macro),
        precision, recall, f1, precision_macro, recall_macro, f1_macro.
    """
    values = {
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
    }
    for average, suffix in (("weighted", ""), ("macro", "_macro")):
        precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
            labels, predicted, labels=np.unique(labels), average=average, zero_division=0
        )
        scores = {"precision": precision, "recall": recall, "f1": f1}
        values |= {name + suffix: value for name, value in scores.items()}
    # scikit-learn's balanced_accuracy_score warns of predicted classes that do not occur.
    values["balanced_accuracy"] = values["recall_macro"]
    return {name: float(value) for name, value in values.items()}


def majority_class(labels: NDArray[np.integer]) -> int:
    """The index of the most frequent class, the first of equally frequent ones."""
    return int(np.bincount(labels).argmax())


def negative_log_likelihood(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> float:
    """The mean negative log-likelihood in nats; float32 holds probabilities down to 1e-45.

    scikit-learn's log_loss clips probabilities at 1e-7, which hides the worst mistakes.

    Args:
        labels: (n,), indices of the true classes.
        probabilities: (n, classes), rows that sum to 1.
    """
    of_labels = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    smallest = float(np.finfo(np.float32).smallest_subnormal)
    return float(-np.log(np.maximum(of_labels, smallest)).mean())


def reliability(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> pd.DataFrame:
    """Accuracy by confidence, one row for each bin that holds an example.

    Args:
        labels: (n,), indices of the true classes.
        probabilities: (n, classes), rows that sum to 1.

    Returns:
        Columns low, high (the bounds of the bin, low excluded), examples, confidence (the mean
        probability of the predicted class) and accuracy, all but examples from 0 to 1.
    """
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    table = pd.DataFrame({"bin": bins, "confidence": confidence, "accuracy": hits})
    grouped = table.groupby("bin").agg(
        examples=("bin", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    grouped.insert(0, "low", grouped.index / BINS)
    grouped.insert(1, "high", (grouped.index + 1) / BINS)
    return grouped.reset_index(drop=True)


def calibration_error(reliability: pd.DataFrame) -> float:
    """The expected calibration error: how far confidence and accuracy differ on average.

    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks" (2017).

    Args:
        reliability: from the function of that name.

    Returns:
        From 0 to 1.
    """
    gaps = (reliability["confidence"] - reliability["accuracy"]).abs()
    return float(np.average(gaps, weights=reliability["examples"]))


def per_class(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: Sequence[str]
) -> pd.DataFrame:
    """One row per class: class, precision, recall, f1 (0 to 1), and examples, their number."""
    precision, recall, f1, examples = sklearn.metrics.precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(classes)), zero_division=0
    )
    return pd.DataFrame(
        {
            "class": list(classes),
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "examples": examples,
        }
    )


def confusion_matrix(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: Sequence[str]
) -> pd.DataFrame:
    """Numbers of examples: one row per actual class, one column per predicted class."""
    matrix = sklearn.metrics.confusion_matrix(labels, predicted, labels=np.arange(len(classes)))
    return pd.DataFrame(
        matrix, index=pd.Index(classes, name="actual"), columns=pd.Index(classes, name="predicted")
    )


def mistakes(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    most: int,
    names: Sequence[str] = (),
) -> pd.DataFrame:
    """At most `most` misclassified examples, most confident first.

    Args:
        labels: (n,), indices of the true classes.
        probabilities: (n, classes), rows that sum to 1.
        classes: their names.
        most: rows of the result.
        names: of the examples' files, (n,); empty for data without files.

    Returns:
        Columns example (its index), file (if there are names), predicted and actual (classes),
        confidence (the probability of the predicted class) and probability_of_actual, from 0 to 1.
    """
    worst = worst_mistakes(labels, probabilities, most)
    predicted = probabilities.argmax(axis=1)
    return pd.DataFrame(
        {
            "example": worst,
            **({"file": [names[example] for example in worst]} if names else {}),
            "predicted": np.take(classes, predicted[worst]),
            "actual": np.take(classes, labels[worst]),
            "confidence": probabilities[worst, predicted[worst]],
            "probability_of_actual": probabilities[worst, labels[worst]],
        }
    )


def worst_mistakes(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], most: int
) -> NDArray[np.intp]:
    """Indices of at most `most` misclassified examples, most confident first."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    confidence = probabilities[wrong, predicted[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:most]
