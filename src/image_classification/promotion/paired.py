"""Two models on the same examples: answers in, their difference and how certain it is out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats
from numpy.typing import NDArray

from image_classification.comparison import statistical_tests
from image_classification.comparison.contributions import contributions
from image_classification.comparison.statistical_tests import CONFIDENCE, Interval

FEWEST = 2  # examples that a comparison needs


@dataclass(frozen=True)
class Paired:
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
) -> Paired:
    """Compare two models by their answers to the same examples.

    Of the accuracy: McNemar's exact test and Tango's score interval, which holds also where the
    models differ on few examples, or on none. Of other metrics: Student's t over the examples.

    Args:
        metric: one of contributions.METRICS.
        labels: (n,), n at least `FEWEST`, indices of the true classes.
        candidate: (n,), indices of the predicted classes.
        champion: as `candidate`.
    """
    first = contributions(metric, labels, candidate[None])
    second = contributions(metric, labels, champion[None])
    found = statistical_tests.compare(first, second, None, pairs=1)
    interval = found.interval
    if first.dtype == np.bool_:
        gained, lost = int(np.sum(first > second)), int(np.sum(first < second))
        interval = tango(gained, lost, len(labels))
    return Paired(
        metric=metric,
        examples=len(labels),
        candidate=float(first.mean()),
        champion=float(second.mean()),
        difference=found.difference,
        low=interval.low,
        high=interval.high,
        p_value=found.p_value,
    )


def tango(gained: int, lost: int, examples: int) -> Interval:
    """The 95 % interval of the difference of two paired shares.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design" (1998).

    Args:
        gained: examples that only the first is right on.
        lost: examples that only the second is right on.
        examples: all of them.
    """
    quantile = float(scipy.stats.norm.isf((1 - CONFIDENCE) / 2))
    estimate = (gained - lost) / examples

    def beyond(quantile: float) -> Callable[[float], float]:
        return lambda difference: _score(gained, lost, examples, difference) - quantile

    low = -1.0 if estimate == -1 else scipy.optimize.brentq(beyond(quantile), -1, estimate)
    high = 1.0 if estimate == 1 else scipy.optimize.brentq(beyond(-quantile), estimate, 1)
    return Interval(float(low), float(high))


def _score(gained: int, lost: int, examples: int, difference: float) -> float:
    """Tango's statistic: how far, in standard errors, the shares are from this difference."""
    distance = gained - lost - examples * difference
    linear = (2 * examples - gained + lost) * difference - gained - lost
    constant = -lost * difference * (1 - difference)
    root = max(0.0, linear**2 - 8 * examples * constant) ** 0.5
    share = (root - linear) / (4 * examples)  # of those lost, the most likely one
    variance = examples * (2 * share + difference * (1 - difference))
    if abs(distance) < 1e-9 * examples:
        return 0.0
    return float(distance / max(variance, 1e-12) ** 0.5)
