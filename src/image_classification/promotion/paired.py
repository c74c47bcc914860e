"""Two models on the same examples: predictions in, their difference and its certainty out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from image_classification.comparison import statistical_tests
from image_classification.comparison.contributions import contributions
from image_classification.comparison.intervals import CONFIDENCE, tango

FEWEST_EXAMPLES = 2  # examples that a comparison needs


@dataclass(frozen=True)
class PairedComparison:
    """What two models score on the same examples.

    metric: one of contributions.METRICS.
    examples: their number.
    candidate, champion: their scores, from 0 to 1.
    difference: candidate minus champion; low, high: its 95 % interval over new examples.
    p_value: of the hypothesis that both are equally good, two-sided, for one candidate.
    """

    metric: str
    examples: int
    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    p_value: float


def compare(
    metric: str,
    labels: NDArray[np.integer],
    candidate: NDArray[np.integer],
    champion: NDArray[np.integer],
) -> PairedComparison:
    """Compare two models by their predictions for the same examples.

    For other metrics than accuracy, the interval reaches at least as far from the difference as it
    would if the models differed only in the rarest class, and agreed on all examples of it: no
    example on which they differ says little about a class of which there are few.

    Args:
        metric: one of contributions.METRICS.
        labels: (n,), n at least `FEWEST_EXAMPLES`, indices of the true classes.
        candidate: (n,), indices of the predicted classes.
        champion: as `candidate`.
    """
    first = contributions(metric, labels, candidate[None])
    second = contributions(metric, labels, champion[None])
    found = statistical_tests.compare(first, second, None, pairs=1)
    low, high = found.interval.low, found.interval.high
    if metric != "accuracy":  # for which Tango's interval has some width already
        reach = _unseen(labels)
        low, high = min(low, found.difference - reach), max(high, found.difference + reach)
    return PairedComparison(
        metric=metric,
        examples=len(labels),
        candidate=float(first.mean()),
        champion=float(second.mean()),
        difference=found.difference,
        low=low,
        high=high,
        p_value=found.p_value,
    )


def _unseen(labels: NDArray[np.integer]) -> float:
    """How far two models' mean recalls may differ if they agree on all examples of one class."""
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    interval = tango(0, 0, int(counts.min()), level=1 - CONFIDENCE)
    return interval.high / len(counts)
