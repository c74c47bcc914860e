"""Confidence intervals of scores, and of the difference of two paired proportions.

Contributions are those of `statistical_tests`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats
import statsmodels.stats.proportion
from numpy.typing import NDArray

from image_classification.comparison.contributions import Contributions

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """From low to high, both included."""

    low: float
    high: float


def interval_over_seeds(scores: NDArray[np.floating]) -> Interval | None:
    """The interval of a model's mean score over new runs, on these examples: Student's t.

    Args:
        scores: (runs,).

    Returns:
        None for a single run, which says nothing about others.
    """
    if len(scores) < 2:
        return None
    error = float(scipy.stats.sem(scores))
    if error == 0:
        return Interval(float(scores[0]), float(scores[0]))
    low, high = scipy.stats.t.interval(CONFIDENCE, len(scores) - 1, scores.mean(), error)
    return Interval(float(low), float(high))


def interval_over_examples(contributions: Contributions) -> Interval:
    """The interval of the mean score of these runs over new examples.

    For hits: Wilson's score interval ("Probable inference", 1927) of their mean. Where runs differ
    on an example, it varies less than a proportion would, so the interval errs on the wide side.
    For other contributions: Student's t, cut at 0 and 1.

    Args:
        contributions: (runs, examples).
    """
    mean, examples = float(contributions.mean()), contributions.shape[1]
    if contributions.dtype == np.bool_:
        low, high = statsmodels.stats.proportion.proportion_confint(
            mean * examples, examples, alpha=1 - CONFIDENCE, method="wilson"
        )
    else:
        error = float(scipy.stats.sem(contributions.mean(axis=0)))
        margin = float(scipy.stats.t.isf((1 - CONFIDENCE) / 2, examples - 1)) * error
        low, high = max(0.0, mean - margin), min(1.0, mean + margin)
    return Interval(float(low), float(high))


def tango(gained: int, lost: int, examples: int, level: float) -> Interval:
    """The interval of the difference of two paired proportions.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design" (1998).

    Args:
        gained: examples that only the first is right on.
        lost: examples that only the second is right on.
        examples: all of them.
        level: the probability that the interval misses the difference.
    """
    quantile = float(scipy.stats.norm.isf(level / 2))
    estimate = (gained - lost) / examples

    def beyond(quantile: float) -> Callable[[float], float]:
        return lambda difference: _score(gained, lost, examples, difference) - quantile

    low = -1.0 if estimate == -1 else scipy.optimize.brentq(beyond(quantile), -1, estimate)
    high = 1.0 if estimate == 1 else scipy.optimize.brentq(beyond(-quantile), estimate, 1)
    return Interval(float(low), float(high))


def _score(gained: int, lost: int, examples: int, difference: float) -> float:
    """Tango's statistic: how far, in standard errors, the data is from this difference."""
    distance = gained - lost - examples * difference
    linear = (2 * examples - gained + lost) * difference - gained - lost
    constant = -lost * difference * (1 - difference)
    root = max(0.0, linear**2 - 8 * examples * constant) ** 0.5
    share = (root - linear) / (4 * examples)  # of examples lost: its maximum-likelihood estimate
    variance = examples * (2 * share + difference * (1 - difference))
    if abs(distance) < 1e-9 * examples:
        return 0.0
    return float(distance / max(variance, 1e-12) ** 0.5)
