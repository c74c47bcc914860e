"""How certain the differences of scores are: contributions in, intervals and tests out.

Contributions (runs, examples) are what each test example adds to the score of each run of a model,
one per seed; their mean over the examples is the score (see `contributions`). For the accuracy they
are hits, booleans, to which exact methods for proportions apply. All models are tested on the same
examples, with equally many runs. Intervals are at 95 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
import statsmodels.stats.contingency_tables
import statsmodels.stats.multitest
from numpy.typing import NDArray

from image_classification.comparison.contributions import Contributions
from image_classification.comparison.intervals import CONFIDENCE, Interval, tango

POOLING = 0.25  # p-value of Bartlett's test below which the models' variances count as unequal
POWER = 0.8  # of the test with as many runs as `runs_needed` returns
MOST_RUNS = 1000  # that `runs_needed` considers
ROUNDING = 1e-12  # a smaller difference is none

Parts = list[tuple[float, float]]  # of a variance, each with its degrees of freedom


@dataclass(frozen=True)
class PooledVariance:
    """How much the score of one run varies over seeds, estimated from all models together.

    variance: the mean of the models' variances.
    degrees_of_freedom: of that estimate.
    equal_variances: whether the models' variances are equal, by Bartlett's test.
    """

    variance: float
    degrees_of_freedom: int
    equal_variances: bool


@dataclass(frozen=True)
class Probability:
    """From 0 to 1, with its interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Difference:
    """How much better one model is than another, and how certain that is.

    difference: of mean scores, from -1 to 1.
    interval: of the difference, over new test examples and, if there are several, over new runs. It
        is simultaneous: with 95 % confidence, all of a comparison contain the true difference.
    p_value: of the hypothesis that the models are equally good, not adjusted for other pairs.
    probability: that one run of the first model scores higher than one of the second on these
        examples; None for one run each, and where runs do not vary.
    test: the name of the test behind the p-value.
    seed_variance: of one run's score, summed over the two models; None for one run each.
    example_variance: of the difference, from the choice of test examples.
    """

    difference: float
    interval: Interval
    p_value: float
    probability: Probability | None
    test: str
    seed_variance: float | None
    example_variance: float


@dataclass(frozen=True)
class RunsNeeded:
    """How many runs of each model would show a difference: half of the time within this range.

    most: None if it is more than `MOST_RUNS`, or if there may be no difference.
    """

    fewest: int
    most: int | None


def pooled_variance(models: Sequence[Contributions]) -> PooledVariance | None:
    """Pool the variance over seeds of all models.

    With a few runs each, the variances of single models scatter so much that tests on them find
    differences among equal models too often (see `compare`). Whether the variances are equal is
    tested first, at a level that seldom misses a difference, as Bancroft recommends ("On biases in
    estimation due to the use of preliminary tests of significance", 1944).

    Args:
        models: contributions of each, (runs, examples), with equally many runs.

    Returns:
        None for one run each.
    """
    scores = [contributions.mean(axis=1) for contributions in models]
    runs = len(scores[0])
    if runs < 2:
        return None
    variances = [float(score.var(ddof=1)) for score in scores]
    equal_variances = len(scores) == 1 or (
        min(variances) > 0 and bool(scipy.stats.bartlett(*scores).pvalue >= POOLING)
    )
    return PooledVariance(float(np.mean(variances)), len(scores) * (runs - 1), equal_variances)


def compare(
    first: Contributions, second: Contributions, pooled: PooledVariance | None, pairs: int
) -> Difference:
    """Compare two models by the test that fits the number of their runs.

    Several runs each: the variance of the difference is the sum of a part from the seeds and a part
    from the examples (the same for both models), each estimated separately as in an analysis of
    variance with crossed factors. The part from the seeds is the pooled one; where variances
    differ, it is that of these two models if that is larger. The p-value and the interval use
    Student's t with degrees of freedom after Satterthwaite ("An approximate distribution of
    estimates of variance components", 1946). A bootstrap over both factors would count their
    interaction three times (Owen, "The pigeonhole bootstrap", 2007) and miss differences.

    One run each: for hits McNemar's exact test ("Note on the sampling error of the difference
    between correlated proportions", 1947) and Tango's interval, which also holds where the models
    differ on few examples, or on none; for other contributions Student's t test of the paired
    examples. This is weaker evidence, since it compares two runs and not the models.

    Args:
        first: (runs, examples).
        second: as many runs, on the same examples.
        pooled: from `pooled_variance` for all models of the comparison.
        pairs: the number of pairs in the comparison, for which Bonferroni's method makes the
            intervals simultaneous.

    Raises:
        ValueError: the models have different numbers of runs or of examples.
    """
    if first.shape != second.shape:
        raise ValueError(f"the shapes must be equal, not {first.shape} and {second.shape}")
    runs, examples = first.shape
    difference = float(first.mean()) - float(second.mean())
    by_example = first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64)
    example_variance = float(by_example.var(ddof=1)) / examples
    probability = seed_variance = None

    if pooled is None:
        error, degrees_of_freedom = example_variance**0.5, examples - 1.0
        if first.dtype == np.bool_:
            p_value, test = _mcnemar(first[0] > 0, second[0] > 0), "McNemar, one run each"
        else:
            p_value = _students_p_value(difference, error, degrees_of_freedom)
            test = "paired t test over examples, one run each"
    else:
        seeds = _seed_parts((first, second), pooled)
        variance = sum(part for part, _ in seeds)
        if variance > 0:  # else the runs are copies, and only the examples vary
            # The variance over seeds already includes how runs differ on an example.
            known = sum(float(h.var(axis=0, ddof=1).mean()) / h.size for h in (first, second))
            example_variance = max(0.0, example_variance - known)
            probability = _probability(difference, variance, runs, _satterthwaite(seeds))
        error = (variance + example_variance) ** 0.5
        degrees_of_freedom = _satterthwaite([*seeds, (example_variance, examples - 1)])
        p_value = _students_p_value(difference, error, degrees_of_freedom)
        seed_variance = variance * runs
        test = "variance over seeds and examples"
    level = (1 - CONFIDENCE) / pairs
    margin = float(scipy.stats.t.isf(level / 2, degrees_of_freedom)) * error
    interval = Interval(difference - margin, difference + margin)
    if pooled is None and first.dtype == np.bool_:
        gained, lost = int(np.sum(first > second)), int(np.sum(first < second))
        interval = tango(gained, lost, examples, level)
    return Difference(
        difference, interval, p_value, probability, test, seed_variance, example_variance
    )


def _students_p_value(difference: float, error: float, degrees_of_freedom: float) -> float:
    if abs(difference) < ROUNDING:
        return 1.0
    return (
        float(2 * scipy.stats.t.sf(abs(difference) / error, degrees_of_freedom)) if error else 0.0
    )


def _seed_parts(models: Sequence[Contributions], pooled: PooledVariance) -> Parts:
    """The variance over seeds of the difference of two means."""
    runs = len(models[0])
    scores = [contributions.mean(axis=1) for contributions in models]
    own: Parts = [(float(score.var(ddof=1)) / runs, float(runs - 1)) for score in scores]
    together: Parts = [(2 * pooled.variance / runs, float(pooled.degrees_of_freedom))]
    if not pooled.equal_variances and sum(part for part, _ in own) > together[0][0]:
        return own
    return together


def _probability(
    difference: float, variance: float, runs: int, degrees_of_freedom: float
) -> Probability:
    """That one run scores higher than another, if the scores are normally distributed.

    McGraw and Wong, "A common language effect size statistic" (1992); the interval is that of the
    standardised difference by Hedges and Olkin, "Statistical methods for meta-analysis" (1985).

    Args:
        difference: of the means.
        variance: of the difference.
        runs: of each model.
        degrees_of_freedom: of the variance.
    """
    effect = difference / (variance * runs) ** 0.5
    error = (1 / runs + effect**2 / (2 * degrees_of_freedom)) ** 0.5
    margin = float(scipy.stats.norm.isf((1 - CONFIDENCE) / 2)) * error
    value, low, high = scipy.stats.norm.cdf([effect, effect - margin, effect + margin])
    return Probability(float(value), Interval(float(low), float(high)))


def runs_needed(
    difference: float, seed_variance: float, example_variance: float, runs: int, level: float
) -> RunsNeeded | None:
    """How many runs of each model would show their difference on these examples, with `POWER`.

    The range comes from the middle half of what the difference may be, given the runs so far
    (Student's t): taken for the truth, a noisy difference would give a number that is seldom right.

    Args:
        difference: of mean scores so far.
        seed_variance: of one run's score, summed over the two models.
        example_variance: of the difference, from the choice of test examples; more runs on the same
            examples do not change it.
        runs: of each model so far, which were too few.
        level: of the test, adjusted for the number of tests.

    Returns:
        More than `runs`, or None if these runs do not say how many.
    """
    quartile = float(scipy.stats.t.ppf(0.75, 2 * (runs - 1))) * (seed_variance / runs) ** 0.5
    more = np.arange(runs + 1, MOST_RUNS + 1)
    over_seeds = np.sqrt(seed_variance / more)
    shown = scipy.stats.t.isf(level / 2, 2 * (more - 1)) * np.sqrt(
        seed_variance / more + example_variance
    )
    shown += scipy.stats.norm.ppf(POWER) * over_seeds

    def fewest(true_difference: float) -> int | None:
        enough = true_difference > shown
        return int(more[enough.argmax()]) if enough.any() else None

    low = fewest(abs(difference) + quartile)
    return None if low is None else RunsNeeded(low, fewest(abs(difference) - quartile))


def holm(p_values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Adjust p-values so that 5 % is the chance of any false alarm among the tests.

    Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    return np.asarray(statsmodels.stats.multitest.multipletests(p_values, method="holm")[1])


def _satterthwaite(parts: Parts) -> float:
    """The degrees of freedom of a sum of variances, each with its own."""
    squares = sum(variance**2 / degrees for variance, degrees in parts)
    return sum(variance for variance, _ in parts) ** 2 / squares if squares else 1.0


def _mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    table = [
        [np.sum(first & second), np.sum(first & ~second)],
        [np.sum(~first & second), np.sum(~first & ~second)],
    ]
    return float(statsmodels.stats.contingency_tables.mcnemar(table, exact=True).pvalue)
