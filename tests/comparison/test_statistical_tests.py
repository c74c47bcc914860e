"""Each statistic is checked against a published example, a library, or a simulation."""

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from image_classification.comparison import statistical_tests
from image_classification.comparison.statistical_tests import Difference, Hits


def hits_of(rights: int, examples: int) -> Hits:
    return (np.arange(examples) < rights)[None, :]


@pytest.mark.parametrize(
    ("rights", "examples", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_over_examples_is_newcombes(
    rights: int, examples: int, low: float, high: float
) -> None:
    """Newcombe, "Two-sided confidence intervals for the single proportion" (1998), method 3."""
    interval = statistical_tests.interval_over_examples(hits_of(rights, examples))

    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_over_examples_counts_examples_and_not_runs() -> None:
    run = hits_of(81, 263)

    assert statistical_tests.interval_over_examples(
        np.concatenate([run] * 3)
    ) == statistical_tests.interval_over_examples(run)


def test_the_interval_over_seeds_is_students() -> None:
    scores = np.array([0.9920, 0.9909, 0.9928])  # cnn's, as published
    interval = statistical_tests.interval_over_seeds(scores)

    # By hand: mean 0.9919, standard deviation 0.000954, t(0.975, 2) = 4.3027.
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((0.98953, 0.99427), abs=2e-5)
    assert statistical_tests.interval_over_seeds(scores[:1]) is None
    # Of two: mean 0.91, standard error 0.01, t(0.975, 1) = 12.7062.
    interval = statistical_tests.interval_over_seeds(np.array([0.9, 0.92]))
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((0.782938, 1.037062), abs=1e-6)


def test_equal_scores_have_an_interval_without_width() -> None:
    assert statistical_tests.interval_over_seeds(np.full(3, 0.5)) == statistical_tests.Interval(
        0.5, 0.5
    )


def test_several_runs_each_as_worked_by_hand() -> None:
    first = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)  # scores 3/4, 1/2
    second = np.array([[1, 0, 0, 1], [0, 0, 0, 0]], bool)  # scores 1/2, 0
    compared = statistical_tests.compare(first, second)

    assert compared.difference == 5 / 8 - 1 / 4
    assert compared.probability == (1 + 1 + 1 / 2 + 1) / 4
    # Variances of the scores, then of their means.
    assert compared.seed_variance == pytest.approx(1 / 32 + 1 / 8)
    seeds = [1 / 64, 1 / 16]
    # The examples' means differ by 1/2, 1, 1/2, -1/2: variance 19/48, of their mean 19/192.
    # The runs disagree on one of 4 examples and on two, with a variance of 1/2: 1/8 and 1/4 on
    # average, in the mean over 8 hits 1/64 and 1/32.
    examples = 19 / 192 - (1 / 64 + 1 / 32)
    assert compared.example_variance == pytest.approx(examples)
    error = (sum(seeds) + examples) ** 0.5
    freedom = error**4 / (seeds[0] ** 2 / 1 + seeds[1] ** 2 / 1 + examples**2 / 3)
    assert (error, freedom) == pytest.approx((0.360844, 3.354204), abs=1e-6)
    students = scipy.stats.t(freedom)
    assert compared.p_value == pytest.approx(2 * students.sf(0.375 / error))
    margin = students.ppf(0.975) * error
    assert compared.interval.low == pytest.approx(0.375 - margin)
    assert compared.interval.high == pytest.approx(0.375 + margin)
    assert compared.test == "variance over seeds and examples"


def test_without_variance_over_seeds_examples_are_all_the_chance_there_is() -> None:
    first = np.array([[1, 1, 0, 1], [1, 1, 1, 0]], bool)
    second = np.array([[0, 0, 0, 1], [0, 0, 1, 0]], bool)
    compared = statistical_tests.compare(first, second)

    # The examples' means differ by 1, 1, 0, 0: variance 1/3, of their mean 1/12.
    assert compared.example_variance == pytest.approx(1 / 12)
    # Student's t is 3 ** 0.5, with 3 degrees of freedom: a p-value of 1/2 - 1/pi.
    assert compared.p_value == pytest.approx(1 / 2 - 1 / np.pi)
    assert compared.interval.high == pytest.approx(0.5 + 3.182446 * (1 / 12) ** 0.5)
    assert compared.seed_variance == 0
    assert compared.probability == 1


def test_runs_that_differ_more_than_examples_leave_them_no_variance() -> None:
    first = np.array([[1, 1, 0, 0], [0, 0, 1, 0]], bool)
    second = np.array([[0, 1, 0, 0], [0, 0, 0, 0]], bool)
    compared = statistical_tests.compare(first, second)

    # Means differ by 1/2, 0, 1/2, 0: 1/48 < 3/64 + 1/64, what the runs do differently.
    assert compared.difference == 1 / 4
    assert compared.example_variance == 0


def test_one_run_each_is_mcnemars_exact_test() -> None:
    """Of the examples that only one model gets right, the first has 21 and the second has 9."""
    first = np.repeat([True, False, True], [21, 9, 70])[None, :]
    second = np.repeat([False, True, True], [21, 9, 70])[None, :]
    compared = statistical_tests.compare(first, second)

    assert compared.p_value == pytest.approx(scipy.stats.binomtest(9, 30).pvalue)
    assert compared.difference == pytest.approx(0.12)
    assert compared.test == "McNemar, one run each"
    assert compared.seed_variance is None
    assert compared.probability is None
    # Differences of +1 and -1: 30 squares less 100 times that of the mean; t(0.975, 99) = 1.984217.
    variance = (30 - 100 * 0.12**2) / 99 / 100
    assert compared.example_variance == pytest.approx(variance)
    margin = 1.984217 * variance**0.5
    assert compared.interval.low == pytest.approx(0.12 - margin, abs=1e-7)
    assert compared.interval.high == pytest.approx(0.12 + margin, abs=1e-7)


def test_models_with_unlike_numbers_of_runs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not \(1, 9\) and \(2, 9\)"):
        statistical_tests.compare(hits_of(5, 9), np.concatenate([hits_of(5, 9)] * 2))


def test_holms_adjustment_is_the_textbooks() -> None:
    adjusted = statistical_tests.holm(np.array([0.01, 0.04, 0.03, 0.005]))

    # Sorted: 4 x 0.005, 3 x 0.01, 2 x 0.03, 1 x 0.04, none below the one before.
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_copies_of_a_run_differ_by_their_examples_alone() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.random((2, 1000)) < [[0.9], [0.8]]
    compared = statistical_tests.compare(np.stack([first, first]), np.stack([second, second]))

    assert compared.p_value < 0.001
    assert compared.interval.low < compared.difference < compared.interval.high
    assert statistical_tests.compare(np.stack([first] * 2), np.stack([first] * 2)).p_value == 1


@pytest.mark.parametrize(
    ("difference", "beyond", "level", "needed"),
    [
        (0.0253, 2, 0.05, 5),
        (-0.0223, 2, 0.05, 5),
        (0.0223, 5, 0.05, 6),
        (0.0225, 2, 0.05 / 3, 7),
        (0.9, 1, 0.05, 2),
    ],
)
def test_the_runs_needed_are_the_fewest_that_show_the_difference(
    difference: float, beyond: int, level: float, needed: int
) -> None:
    """Differences that 4, 5, 6 and 7 runs would show: 0.02547, 0.02226, 0.02021 and 0.01876.

    With a third of the level 6 would show 0.02443 and 7 would show 0.02249. By hand, of 5 runs:
    (t(0.975, 8) + z(0.8)) * (0.0002 / 5 + 0.00001) ** 0.5 = (2.30600 + 0.84162) * 0.00707107.
    """
    assert (
        statistical_tests.runs_needed(difference, 0.0002, 0.00001, beyond=beyond, level=level)
        == needed
    )


def test_more_than_a_thousand_runs_are_never_asked_for() -> None:
    # 999, 1000 and 1001 runs would show 0.088676, 0.088631 and 0.088587.
    assert statistical_tests.runs_needed(0.08865, 1, 0, beyond=3, level=0.05) == 1000
    assert statistical_tests.runs_needed(0.0886, 1, 0, beyond=3, level=0.05) is None


def test_no_number_of_runs_makes_up_for_too_few_examples() -> None:
    assert statistical_tests.runs_needed(0.001, 1e-9, 1e-6, beyond=3, level=0.05) is None
    assert statistical_tests.runs_needed(0, 1e-6, 0, beyond=3, level=0.05) is None
    assert statistical_tests.runs_needed(0, 0, 0, beyond=3, level=0.05) is None


def simulate(gap: float, spread: float, seeds: int, times: int) -> list[Difference]:
    """Comparisons of two models whose true difference is `gap`, each on its own examples.

    An example can be hard for both models or for one; seeds change the accuracy by `spread`.
    """
    generator = np.random.default_rng(7)

    def runs(accuracy: float, shared: NDArray[np.floating]) -> Hits:
        own = generator.uniform(-0.1, 0.1, shared.shape)
        levels = accuracy + spread * generator.standard_normal(seeds)
        chances = np.clip(levels[:, None] + shared + own, 0, 1)
        return np.asarray(generator.random(chances.shape) < chances)

    compared = []
    for _ in range(times):
        shared = generator.uniform(-0.1, 0.1, 400)
        pair = runs(0.75 + gap, shared), runs(0.75, shared)
        compared.append(statistical_tests.compare(*pair))
    return compared


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.03), (3, 0.01), (10, 0.002)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, spread: float) -> None:
    compared = simulate(gap=0.02, spread=spread, seeds=seeds, times=1000)

    covered = np.mean([pair.interval.low <= 0.02 <= pair.interval.high for pair in compared])
    assert 0.93 <= covered <= 0.985  # with few seeds, intervals are rather too wide


@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_equal_models_differ_significantly_by_chance_alone(seeds: int) -> None:
    spread = 0 if seeds == 1 else 0.02  # McNemar's test compares the runs, not the models
    compared = simulate(gap=0, spread=spread, seeds=seeds, times=1000)

    alarms = np.mean([pair.p_value < 0.05 for pair in compared])
    assert alarms <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
    if seeds > 1:
        assert 0.45 < np.mean([pair.probability for pair in compared]) < 0.55


def test_as_many_runs_as_needed_have_the_stated_power() -> None:
    """The power with the number of runs that it returns, by simulation of their scores."""
    gap, spread = 0.001, 0.0008
    needed = statistical_tests.runs_needed(gap, 2 * spread**2, 0, beyond=2, level=0.05)
    assert needed is not None
    generator = np.random.default_rng(3)
    first = generator.normal(gap, spread, (4000, needed))
    second = generator.normal(0, spread, (4000, needed))
    power = np.mean(scipy.stats.ttest_ind(first, second, axis=1).pvalue < 0.05)

    assert 0.75 < power < 0.92
