"""How certain scores and their differences are: arrays of hits in, intervals and tests out.

Hits are booleans (runs, examples): whether each run of a model, one per seed, classifies each test
example correctly. All models are tested on the same examples. Intervals are at 95 %.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
import statsmodels.stats.contingency_tables
import statsmodels.stats.multitest
import statsmodels.stats.proportion
from numpy.typing import NDArray

CONFIDENCE = 0.95
POWER = 0.8  # of the test with as many runs as `runs_needed` returns
MOST_RUNS = 1000  # that `runs_needed` considers

Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """From low to high, both included."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much more accurate one model is than another, and how certain that is.

    difference: of mean accuracies, from -1 to 1.
    interval: of the difference, over new test examples and, unless `test` is McNemar's, over new
        runs.
    p_value: of the hypothesis that the models are equally good, not adjusted for other pairs.
    probability: that one run of the first model scores higher than one of the second on these
        examples, with ties counted half; None for one run each.
    test: the name of the test behind the p-value.
    seed_variance: of one run's accuracy, summed over the models; None for one run each.
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


def interval_over_examples(hits: Hits) -> Interval:
    """The interval of the mean accuracy of these runs over new examples.

    Wilson's score interval ("Probable inference", 1927) of the mean share of hits. Where runs
    differ on an example, the share varies less than a coin toss, so the interval is rather too wide
    than too narrow.

    Args:
        hits: (runs, examples).
    """
    examples = hits.shape[1]
    low, high = statsmodels.stats.proportion.proportion_confint(
        hits.mean() * examples, examples, alpha=1 - CONFIDENCE, method="wilson"
    )
    return Interval(float(low), float(high))


def compare(first: Hits, second: Hits) -> Difference:
    """Compare two models by the test that fits the number of their runs.

    Several runs each: the variance of the difference is the sum of a part from the seeds and a part
    from the examples (the same for both models), each estimated on its own as in an analysis of
    variance with crossed factors. The p-value and the interval use Student's t with degrees of
    freedom after Satterthwaite ("An approximate distribution of estimates of variance components",
    1946). A bootstrap over both factors would count their interaction three times (Owen, "The
    pigeonhole bootstrap", 2007) and miss differences.

    One run each: McNemar's exact test ("Note on the sampling error of the difference between
    correlated proportions", 1947). This is weaker evidence, since it compares two runs and not the
    models.

    Args:
        first: (runs, examples).
        second: as many runs, on the same examples.

    Raises:
        ValueError: the models have different numbers of runs or of examples.
    """
    if first.shape != second.shape:
        raise ValueError(f"the shapes must be equal, not {first.shape} and {second.shape}")
    scores = [hits.mean(axis=1) for hits in (first, second)]
    difference = float(scores[0].mean() - scores[1].mean())
    by_example = first.mean(axis=0) - second.mean(axis=0)
    examples = len(by_example)
    example_variance = float(by_example.var(ddof=1)) / examples

    if len(first) < 2:
        error, freedom = example_variance**0.5, examples - 1.0
        p_value, test = _mcnemar(first[0], second[0]), "McNemar, one run each"
        probability = seed_variance = None
    else:
        wins = np.sign(scores[0][:, None] - scores[1][None, :])
        probability = float((wins.mean() + 1) / 2)
        parts = [(float(score.var(ddof=1)) / len(score), len(score) - 1) for score in scores]
        # The variance over seeds already includes how runs differ on an example.
        known = sum(float(hits.var(axis=0, ddof=1).mean()) / hits.size for hits in (first, second))
        seed_variance = sum(float(score.var(ddof=1)) for score in scores)
        if seed_variance > 0:  # else the runs are copies, and only the examples vary
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


def runs_needed(
    difference: float, seed_variance: float, example_variance: float, beyond: int, level: float
) -> int | None:
    """The number of runs of each model that would show a difference of this size with `POWER`.

    Args:
        difference: of mean accuracies, taken as the true one.
        seed_variance: of one run's accuracy, summed over the two models.
        example_variance: of the difference, from the choice of test examples.
        beyond: the number of runs so far, which was too small.
        level: of the test, adjusted for the number of tests.

    Returns:
        More than `beyond`, or None if `MOST_RUNS` would not be enough.
    """
    runs = np.arange(beyond + 1, MOST_RUNS + 1)
    errors = np.sqrt(seed_variance / runs + example_variance)
    quantiles = scipy.stats.t.ppf(1 - level / 2, 2 * (runs - 1))
    enough = abs(difference) > (quantiles + scipy.stats.norm.ppf(POWER)) * errors
    return int(runs[enough.argmax()]) if enough.any() else None


def holm(p_values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Adjust p-values so that 5 % is the chance of any false alarm among the tests.

    Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    return np.asarray(statsmodels.stats.multitest.multipletests(p_values, method="holm")[1])


def _freedom(parts: list[tuple[float, int]]) -> float:
    """The degrees of freedom of a sum of variances, each with its own."""
    squares = sum(variance**2 / degrees for variance, degrees in parts)
    return sum(variance for variance, _ in parts) ** 2 / squares if squares else 1.0


def _mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    table = [
        [np.sum(first & second), np.sum(first & ~second)],
        [np.sum(~first & second), np.sum(~first & ~second)],
    ]
    return float(statsmodels.stats.contingency_tables.mcnemar(table, exact=True).pvalue)
