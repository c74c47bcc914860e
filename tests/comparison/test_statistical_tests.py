"""Each statistic is checked against a published example, a library, or a simulation."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from image_classification.comparison import intervals, statistical_tests
from image_classification.comparison.contributions import Contributions, Hits
from image_classification.comparison.statistical_tests import (
    Difference,
    PooledVariance,
    RunsNeeded,
)


def compare(first: Contributions, second: Contributions, pairs: int = 1) -> Difference:
    """Two models that are the only ones."""
    pooled = statistical_tests.pooled_variance([first, second])
    return statistical_tests.compare(first, second, pooled, pairs)


def hits_of(rights: int, examples: int) -> Hits:
    return (np.arange(examples) < rights)[None, :]


FIRST = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)  # scores 3/4, 1/2
SECOND = np.array([[1, 0, 0, 1], [0, 0, 0, 0]], bool)  # scores 1/2, 0
# The examples' means differ by 1/2, 1, 1/2, -1/2: variance 19/48, of their mean 19/192. The runs
# disagree on one of 4 examples and on two, with a variance of 1/2: 1/8 and 1/4 on average, in the
# mean over 8 hits 1/64 and 1/32.
EXAMPLES = 19 / 192 - (1 / 64 + 1 / 32)


def test_several_runs_each_as_worked_by_hand() -> None:
    pooled = PooledVariance(
        0.05, degrees_of_freedom=6, equal_variances=True
    )  # with four other models, say
    compared = statistical_tests.compare(FIRST, SECOND, pooled, pairs=15)

    assert compared.difference == 5 / 8 - 1 / 4
    assert compared.seed_variance == pytest.approx(2 * 0.05)
    assert compared.example_variance == pytest.approx(EXAMPLES)
    error = (2 * 0.05 / 2 + EXAMPLES) ** 0.5
    degrees_of_freedom = error**4 / (0.05**2 / 6 + EXAMPLES**2 / 3)
    students = scipy.stats.t(degrees_of_freedom)
    assert compared.p_value == pytest.approx(2 * students.sf(0.375 / error))
    margin = students.ppf(1 - 0.05 / 15 / 2) * error  # Bonferroni's
    assert compared.interval.low == pytest.approx(0.375 - margin)
    assert compared.interval.high == pytest.approx(0.375 + margin)
    assert compared.test == "variance over seeds and examples"
    # The difference is 0.375 / 0.1 ** 0.5 = 1.185854 standard deviations of that of two runs.
    assert compared.probability is not None
    assert compared.probability.value == pytest.approx(0.882160, abs=1e-6)
    spread = 1.959964 * (1 / 2 + 1.185854**2 / (2 * 6)) ** 0.5
    assert compared.probability.interval.low == pytest.approx(
        scipy.stats.norm.cdf(1.185854 - spread), abs=1e-6
    )
    assert compared.probability.interval.high == pytest.approx(
        scipy.stats.norm.cdf(1.185854 + spread), abs=1e-6
    )


@pytest.mark.parametrize(
    ("pooled", "own"), [(0.001, True), (0.078, True), (0.079, False), (9, False)]
)
def test_where_models_are_unlike_the_larger_variance_over_seeds_counts(
    pooled: float, own: bool
) -> None:
    unequal = PooledVariance(pooled, degrees_of_freedom=6, equal_variances=False)
    compared = statistical_tests.compare(FIRST, SECOND, unequal, pairs=1)

    # Variances of the scores, then of their means.
    scores = 1 / 32 + 1 / 8
    seeds = [1 / 64, 1 / 16]
    if not own:
        assert compared.seed_variance == pytest.approx(2 * pooled)
        return
    assert compared.seed_variance == pytest.approx(scores)
    error = (sum(seeds) + EXAMPLES) ** 0.5
    degrees_of_freedom = error**4 / (seeds[0] ** 2 / 1 + seeds[1] ** 2 / 1 + EXAMPLES**2 / 3)
    assert (error, degrees_of_freedom) == pytest.approx((0.360844, 3.354204), abs=1e-6)
    assert compared.p_value == pytest.approx(
        2 * scipy.stats.t(degrees_of_freedom).sf(0.375 / error)
    )


def test_the_variance_over_seeds_is_pooled_over_all_models() -> None:
    third = np.array([[1, 1, 1, 1], [0, 0, 1, 1]], bool)  # scores 1, 1/2: variance 1/8

    pooled = statistical_tests.pooled_variance([FIRST, SECOND, third])

    assert pooled == PooledVariance(
        (1 / 32 + 1 / 8 + 1 / 8) / 3, degrees_of_freedom=3, equal_variances=True
    )
    assert statistical_tests.pooled_variance([FIRST[:1], SECOND[:1]]) is None


def scores_with(spreads: list[float], runs: int = 10) -> list[Hits]:
    """Models whose runs' scores spread evenly around a half."""
    steps = np.linspace(-1, 1, runs)
    rights = [np.rint(500 + 500 * spread * steps).astype(int) for spread in spreads]
    return [np.arange(1000) < counts[:, None] for counts in rights]


def test_variances_are_unequal_where_bartletts_test_doubts_that_they_are_equal() -> None:
    def equal_variances(*spreads: float) -> bool:
        pooled = statistical_tests.pooled_variance(scores_with([*spreads]))
        assert pooled is not None
        return pooled.equal_variances

    # By scipy.stats.bartlett: p-values of 0.252 and 0.163.
    assert equal_variances(0.1, 0.1, 0.17, 0.1)
    assert not equal_variances(0.1, 0.1, 0.18, 0.1)
    assert not equal_variances(0.1, 0.1, 0.0, 0.1)
    assert equal_variances(0.0)  # there is nothing to compare it with


def test_without_variance_over_seeds_examples_are_all_the_chance_there_is() -> None:
    first = np.array([[1, 1, 0, 1], [1, 1, 1, 0]], bool)
    second = np.array([[0, 0, 0, 1], [0, 0, 1, 0]], bool)
    compared = compare(first, second)

    # The examples' means differ by 1, 1, 0, 0: variance 1/3, of their mean 1/12.
    assert compared.example_variance == pytest.approx(1 / 12)
    # Student's t is 3 ** 0.5, with 3 degrees of freedom: a p-value of 1/2 - 1/pi.
    assert compared.p_value == pytest.approx(1 / 2 - 1 / np.pi)
    assert compared.interval.high == pytest.approx(0.5 + 3.182446 * (1 / 12) ** 0.5)
    assert compared.seed_variance == 0
    assert compared.probability is None


def test_runs_that_differ_more_than_examples_leave_them_no_variance() -> None:
    first = np.array([[1, 1, 0, 0], [0, 0, 1, 0]], bool)
    second = np.array([[0, 1, 0, 0], [0, 0, 0, 0]], bool)
    compared = compare(first, second)

    # Means differ by 1/2, 0, 1/2, 0: 1/48 < 3/64 + 1/64, what the runs do differently.
    assert compared.difference == 1 / 4
    assert compared.example_variance == 0


def test_one_run_each_is_mcnemars_exact_test() -> None:
    """Of the examples that only one model gets right, the first has 21 and the second has 9."""
    first = np.repeat([True, False, True], [21, 9, 70])[None, :]
    second = np.repeat([False, True, True], [21, 9, 70])[None, :]
    compared = compare(first, second)

    assert compared.p_value == pytest.approx(scipy.stats.binomtest(9, 30).pvalue)
    assert compared.difference == pytest.approx(0.12)
    assert compared.test == "McNemar, one run each"
    assert compared.seed_variance is None
    assert compared.probability is None
    # Differences of +1 and -1: 30 squares less 100 times that of the mean.
    variance = (30 - 100 * 0.12**2) / 99 / 100
    assert compared.example_variance == pytest.approx(variance)
    expected = intervals.tango(21, 9, 100, level=0.05)
    assert compared.interval.low == pytest.approx(expected.low)
    assert compared.interval.high == pytest.approx(expected.high)


def test_models_with_unlike_numbers_of_runs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not \(1, 9\) and \(2, 9\)"):
        statistical_tests.compare(
            hits_of(5, 9), np.concatenate([hits_of(5, 9)] * 2), pooled=None, pairs=1
        )


def test_holms_adjustment_is_the_textbooks() -> None:
    adjusted = statistical_tests.holm(np.array([0.01, 0.04, 0.03, 0.005]))

    # Sorted: 4 x 0.005, 3 x 0.01, 2 x 0.03, 1 x 0.04, none below the one before.
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_copies_of_a_run_differ_by_their_examples_alone() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.random((2, 1000)) < [[0.9], [0.8]]
    compared = compare(np.stack([first, first]), np.stack([second, second]))

    assert compared.p_value < 0.001
    assert compared.interval.low < compared.difference < compared.interval.high
    assert compare(np.stack([first] * 2), np.stack([first] * 2)).p_value == 1


@pytest.mark.parametrize(
    ("difference", "runs", "fewest", "most"),
    [
        (0.0115, 3, 5, 18),
        (-0.0115, 3, 5, 18),
        (0.0103, 3, 5, 27),
        (0.0115, 6, 7, 13),
        (0.0060, 3, 9, None),
        (0.0400, 3, 4, 4),
    ],
)
def test_the_runs_needed_are_a_range_from_the_middle_half_of_the_difference(
    difference: float, runs: int, fewest: int, most: int | None
) -> None:
    """After 3 runs half of all differences lie within t(0.75, 4) = 0.740697 standard errors of

    (0.0001 / 3) ** 0.5: 0.0115 is anything from 0.00722 to 0.01578. 5 runs show 2.306004 *
    (0.0001 / 5 + 0.000001) ** 0.5 + 0.841621 * (0.0001 / 5) ** 0.5 = 0.01433, with t(0.975, 8) and
    z(0.8), and 4 runs 0.01668; 17 show 0.00738 and 18 show 0.00719.
    """
    assert statistical_tests.runs_needed(
        difference, 0.0001, 0.000001, runs=runs, level=0.05
    ) == RunsNeeded(fewest, most)


def test_more_than_a_thousand_runs_are_never_asked_for() -> None:
    # 999, 1000 and 1001 runs would show 0.088676, 0.088631 and 0.088587; half of all differences
    # after 900 runs lie within t(0.75, 1798) / 30 = 0.022487.
    def needed(difference: float) -> RunsNeeded | None:
        return statistical_tests.runs_needed(difference, 1, 0, runs=900, level=0.05)

    assert needed(0.08865 - 0.022487) == RunsNeeded(1000, None)
    assert needed(0.0886 - 0.022487) is None


def test_no_number_of_runs_makes_up_for_too_few_examples() -> None:
    assert statistical_tests.runs_needed(0.001, 1e-9, 1e-6, runs=3, level=0.05) is None
    assert statistical_tests.runs_needed(0, 0, 0, runs=3, level=0.05) is None


def test_the_stricter_the_level_the_more_runs_are_needed() -> None:
    needed = [
        statistical_tests.runs_needed(0.0115, 0.0001, 0, runs=3, level=level)
        for level in (0.05, 0.05 / 15)
    ]
    assert needed[0] is not None
    assert needed[1] is not None
    assert needed[0].fewest < needed[1].fewest


def runs_of(accuracies: NDArray[np.floating], examples: int, chance: np.random.Generator) -> Hits:
    """Hits (models, runs, examples) of runs with these accuracies (models, runs).

    An example can be hard for all models or for one.
    """
    shared = chance.uniform(-0.1, 0.1, examples)
    own = chance.uniform(-0.1, 0.1, (len(accuracies), 1, examples))
    chances = np.clip(accuracies[..., None] + shared + own, 0, 1)
    return np.asarray(chance.random(chances.shape) < chances)


def simulate(
    gaps: list[float], spread: float, seeds: int, times: int, examples: int = 400
) -> Iterator[list[Difference]]:
    """Comparisons of all pairs of models, each comparison on its own examples.

    Args:
        gaps: by how much the true accuracy of each model exceeds 0.7.
        spread: by how much seeds change the accuracy.
        seeds: the number of runs of each model.
        times: how many comparisons.
        examples: of each comparison.
    """
    chance = np.random.default_rng(7)
    pairs = list(combinations(range(len(gaps)), 2))
    for _ in range(times):
        accuracies = 0.7 + np.array(gaps)[:, None]
        accuracies = accuracies + spread * chance.standard_normal((len(gaps), seeds))
        models = runs_of(accuracies, examples, chance)
        pooled = statistical_tests.pooled_variance(list(models))
        yield [
            statistical_tests.compare(models[first], models[second], pooled, len(pairs))
            for first, second in pairs
        ]


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.03), (3, 0.01), (10, 0.002)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, spread: float) -> None:
    compared = [pair for (pair,) in simulate([0.02, 0], spread, seeds, times=1000)]

    covered = np.mean([pair.interval.low <= 0.02 <= pair.interval.high for pair in compared])
    assert 0.93 <= covered <= 0.985  # with few seeds, intervals are rather too wide


@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_equal_models_differ_significantly_by_chance_alone(seeds: int) -> None:
    spread = 0 if seeds == 1 else 0.02  # McNemar's test compares the runs, not the models
    compared = [pair for (pair,) in simulate([0, 0], spread, seeds, times=1000)]

    alarms = np.mean([pair.p_value < 0.05 for pair in compared])
    assert alarms <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
    if seeds > 1:
        values = [pair.probability.value for pair in compared if pair.probability]
        assert 0.45 < np.mean(values) < 0.55


@pytest.mark.parametrize(
    "seeds", [pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_six_equal_models_give_no_more_false_alarms_than_promised(seeds: int) -> None:
    """With each model's own variance, 2 seeds gave any alarm in 12 % of comparisons."""
    times, level = 800, 0.05
    comparisons = list(simulate([0.0] * 6, 0.02, seeds, times, examples=100))

    p_values = np.array([[pair.p_value for pair in pairs] for pairs in comparisons])
    alarms = np.mean(15 * p_values.min(axis=1) < level)  # the smallest of Holm's
    assert alarms <= level + 2 * (level * (1 - level) / times) ** 0.5
    # Where Holm's method uses it: 0.05 / 15 of single pairs.
    assert (p_values < level / 15).mean() <= 2 * level / 15
    missed = [
        any(p.interval.low > 0 or p.interval.high < 0 for p in pairs) for pairs in comparisons
    ]
    assert np.mean(missed) <= level + 2 * (level * (1 - level) / times) ** 0.5


@pytest.mark.parametrize("effect", [0, 1, 2])
def test_the_interval_of_the_probability_holds_the_truth(effect: float) -> None:
    """Runs score 0.5 + 0.01 * N(0, 1) on any examples, the first model `effect` * 2 ** 0.5 more."""
    chance, times, runs = np.random.default_rng(4), 400, 3
    truth = scipy.stats.norm.cdf(effect)
    covered = 0
    for _ in range(times):
        scores = 0.5 + 0.01 * chance.standard_normal((2, runs))
        scores[0] += 0.01 * 2**0.5 * effect
        first, second = (np.arange(5000) < 5000 * row[:, None] for row in scores)
        found = compare(first, second).probability
        assert found is not None
        covered += found.interval.low <= truth <= found.interval.high
    assert covered / times >= 0.95 - 3 * (0.05 * 0.95 / times) ** 0.5


def test_half_of_the_ranges_of_runs_hold_the_number_that_is_needed() -> None:
    """Pilots of 3 runs, in which the true difference and the true variance are known."""
    chance, gap, spread = np.random.default_rng(3), 0.0013, 0.0007
    level = 0.05
    numbers = np.arange(2, 200)
    error = (2 * spread**2 / numbers) ** 0.5
    shown = (scipy.stats.t.isf(level / 2, 2 * (numbers - 1)) + scipy.stats.norm.ppf(0.8)) * error
    truth = int(numbers[(gap > shown).argmax()])
    within = []
    for _ in range(500):
        scores = spread * chance.standard_normal((2, 3))
        difference = float(gap + scores[0].mean() - scores[1].mean())
        variance = float(scores.var(axis=1, ddof=1).sum())
        found = statistical_tests.runs_needed(difference, variance, 0, runs=3, level=level)
        within.append(found is not None and found.fewest <= truth <= (found.most or np.inf))

    assert truth == 6
    assert 0.4 < np.mean(within) < 0.7


def test_as_many_runs_as_needed_have_the_stated_power() -> None:
    """The power with the number of runs that it returns, by simulation of their scores."""
    gap, spread, pilot = 0.001, 0.0008, 4
    # With this pilot the largest difference that may be is the true one: `fewest` is for that.
    quartile = float(scipy.stats.t.ppf(0.75, 2 * (pilot - 1))) * (2 * spread**2 / pilot) ** 0.5
    found = statistical_tests.runs_needed(gap - quartile, 2 * spread**2, 0, runs=pilot, level=0.05)
    assert found is not None
    chance = np.random.default_rng(3)

    def power(runs: int) -> float:
        first = chance.normal(gap, spread, (4000, runs))
        second = chance.normal(0, spread, (4000, runs))
        return float(np.mean(scipy.stats.ttest_ind(first, second, axis=1).pvalue < 0.05))

    # 3 standard errors of a simulation below.
    assert power(found.fewest) > statistical_tests.POWER - 3 * 0.0063
    assert power(found.fewest - 1) < statistical_tests.POWER


# Contributions to other scores than the accuracy, of one run each on five examples.
VALUES = np.array([[0.2, 1.4, 0.9, 1.1, 0.4]])
OTHERS = np.array([[0.1, 0.9, 1.0, 0.2, 0.3]])


def test_one_run_each_of_other_scores_is_the_paired_t_test() -> None:
    compared = compare(VALUES, OTHERS)

    expected = scipy.stats.ttest_rel(VALUES[0], OTHERS[0])
    bounds = expected.confidence_interval()
    assert compared.p_value == pytest.approx(expected.pvalue)
    assert (compared.interval.low, compared.interval.high) == pytest.approx((bounds[0], bounds[1]))
    assert compared.test == "paired t test over examples, one run each"
    assert compare(VALUES, VALUES).p_value == 1


def test_a_difference_without_any_variance_is_certain_unless_it_is_of_rounding() -> None:
    even = np.full((1, 5), 0.5)

    assert compare(even, even + 0.25).p_value == 0
    assert compare(even, even + 1e-16).p_value == 1
