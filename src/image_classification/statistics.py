"""How sure one can be of scores and their differences: arrays of hits in, intervals and tests out.

Hits are booleans (trainings, examples): whether each training of a model, one a seed, classifies
each test example rightly. All models are tested on the same examples. Intervals are at 95 %.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
import statsmodels.stats.contingency_tables
import statsmodels.stats.multitest
import statsmodels.stats.proportion
from numpy.typing import NDArray

CONFIDENCE = 0.95
POWER = 0.8  # with which `seeds_needed` would show a difference
MOST_SEEDS = 1000  # that `seeds_needed` thinks of

Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """From low to high, both included."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much more often one model is right than another, and how sure that is.

    difference: of mean accuracies, from -1 to 1.
    interval: of the difference, over new test examples and, unless `test` is McNemar's, over new
        trainings.
    p_value: of the hypothesis that the models are equally good; for this pair alone.
    probability: that one training of the first model scores higher than one of the second on these
        examples, ties counted half; None for one training each.
    test: what the p-value comes from.
    seed_variance: of one training's accuracy, summed over the models; None for one training each.
    example_variance: of the difference, from the choice of test examples.
    """

    difference: float
    interval: Interval
    p_value: float
    probability: float | None
    test: str
    seed_variance: float | None
    example_variance: float


def interval_over_seeds(scores: NDArray[np.floating]) -> Interval | None:
    """Of the mean score of a model's trainings on these very examples: Student's t.

    Args:
        scores: (trainings,).

    Returns:
        None for a single training, which tells nothing of others.
    """
    if len(scores) < 2:
        return None
    error = float(scipy.stats.sem(scores))
    if error == 0:
        return Interval(float(scores[0]), float(scores[0]))
    low, high = scipy.stats.t.interval(CONFIDENCE, len(scores) - 1, scores.mean(), error)
    return Interval(float(low), float(high))


def interval_over_examples(hits: Hits) -> Interval:
    """Of the mean accuracy of these very trainings on new examples.

    Wilson's score interval ("Probable inference", 1927) of the mean share of hits. Where trainings
    differ on an example the share varies less than a coin's toss, so that it errs to the wide side.

    Args:
        hits: (trainings, examples).
    """
    examples = hits.shape[1]
    low, high = statsmodels.stats.proportion.proportion_confint(
        hits.mean() * examples, examples, alpha=1 - CONFIDENCE, method="wilson"
    )
    return Interval(float(low), float(high))


def compare(first: Hits, second: Hits) -> Difference:
    """Compare two models by the test that fits their trainings.

    Several trainings of each: the variance of the difference is the sum of what seeds and what
    examples (the same for both models) give it, estimated apart as in an analysis of variance with
    both crossed; with it go Student's t and degrees of freedom after Satterthwaite ("An approximate
    distribution of estimates of variance components", 1946). A bootstrap over both would count
    their interaction three times (Owen, "The pigeonhole bootstrap", 2007) and miss differences.

    One training each: McNemar's exact test ("Note on the sampling error of the difference between
    correlated proportions", 1947), the weaker evidence, for it is about these two trainings and not
    about the models.

    Args:
        first: (trainings, examples).
        second: as many trainings, of the same examples.

    Raises:
        ValueError: the models differ in the number of their trainings.
    """
    if first.shape != second.shape:
        raise ValueError(f"as many trainings and examples each, not {first.shape}, {second.shape}")
    scores = [hits.mean(axis=1) for hits in (first, second)]
    difference = float(scores[0].mean() - scores[1].mean())
    by_example = first.mean(axis=0) - second.mean(axis=0)
    examples = len(by_example)
    example_variance = float(by_example.var(ddof=1)) / examples

    if len(first) < 2:
        error, freedom = example_variance**0.5, examples - 1.0
        p_value, test = _mcnemar(first[0], second[0]), "McNemar, one training each"
        probability = seed_variance = None
    else:
        wins = np.sign(scores[0][:, None] - scores[1][None, :])
        probability = float((wins.mean() + 1) / 2)
        parts = [(float(score.var(ddof=1)) / len(score), len(score) - 1) for score in scores]
        # What trainings do differently on an example is in their variance over seeds already.
        known = sum(float(hits.var(axis=0, ddof=1).mean()) / hits.size for hits in (first, second))
        seed_variance = sum(float(score.var(ddof=1)) for score in scores)
        if seed_variance > 0:  # or the trainings are copies, and examples all the chance there is
            example_variance = max(0.0, example_variance - known)
        parts.append((example_variance, examples - 1))
        error = sum(variance for variance, _ in parts) ** 0.5
        freedom = _freedom(parts)
        p_value = float(2 * scipy.stats.t.sf(abs(difference) / error, freedom)) if error else 1.0
        test = "variance over seeds and examples"
    margin = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    interval = Interval(difference - margin, difference + margin)
    return Difference(
        difference, interval, p_value, probability, test, seed_variance, example_variance
    )


def seeds_needed(
    difference: float, seed_variance: float, example_variance: float, beyond: int, level: float
) -> int | None:
    """Trainings of each model that would show a true difference of this size with `POWER`.

    Args:
        difference: of mean accuracies.
        seed_variance: of one training's accuracy, summed over the two models.
        example_variance: of the difference, from the choice of test examples.
        beyond: trainings that there are, which did not do.
        level: of the test, corrected for the number of tests.

    Returns:
        More than `beyond`, or None where `MOST_SEEDS` would not do.
    """
    trainings = np.arange(beyond + 1, MOST_SEEDS + 1)
    errors = np.sqrt(seed_variance / trainings + example_variance)
    quantiles = scipy.stats.t.ppf(1 - level / 2, 2 * (trainings - 1))
    enough = abs(difference) > (quantiles + scipy.stats.norm.ppf(POWER)) * errors
    return int(trainings[enough.argmax()]) if enough.any() else None


def holm(p_values: NDArray[np.floating]) -> NDArray[np.float64]:
    """P-values of several tests at once, corrected so that 5 % is the chance of any false alarm.

    Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    return np.asarray(statsmodels.stats.multitest.multipletests(p_values, method="holm")[1])


def _freedom(parts: list[tuple[float, int]]) -> float:
    """Of a sum of variances, each with its degrees of freedom."""
    squares = sum(variance**2 / degrees for variance, degrees in parts)
    return sum(variance for variance, _ in parts) ** 2 / squares if squares else 1.0


def _mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    table = [
        [np.sum(first & second), np.sum(first & ~second)],
        [np.sum(~first & second), np.sum(~first & ~second)],
    ]
    return float(statsmodels.stats.contingency_tables.mcnemar(table, exact=True).pvalue)
