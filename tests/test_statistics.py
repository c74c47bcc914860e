"""Each statistic against a published example or a library, or by simulation of what it says."""

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from image_classification import statistics
from image_classification.statistics import Hits


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
    interval = statistics.interval_over_examples(hits_of(rights, examples))

    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_over_seeds_is_students() -> None:
    scores = np.array([0.9920, 0.9909, 0.9928])  # cnn's, as published
    interval = statistics.interval_over_seeds(scores)

    # By hand: mean 0.9919, standard deviation 0.000954, t(0.975, 2) = 4.3027.
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((0.98953, 0.99427), abs=2e-5)
    assert statistics.interval_over_seeds(scores[:1]) is None


def test_equal_scores_have_an_interval_without_width() -> None:
    assert statistics.interval_over_seeds(np.full(3, 0.5)) == statistics.Interval(0.5, 0.5)


def test_one_training_each_is_mcnemars_exact_test() -> None:
    """Of the examples that tell them apart, the first model is right on 21 and the second on 9."""
    first = np.repeat([True, False, True], [21, 9, 70])[None, :]
    second = np.repeat([False, True, True], [21, 9, 70])[None, :]
    compared = statistics.compare(first, second)

    assert compared.p_value == pytest.approx(scipy.stats.binomtest(9, 30).pvalue)
    assert compared.difference == pytest.approx(0.12)
    assert "McNemar" in compared.test
    assert compared.seed_variance is None
    assert compared.probability is None


def test_holms_correction_is_the_textbooks() -> None:
    corrected = statistics.holm(np.array([0.01, 0.04, 0.03, 0.005]))

    # Sorted: 4 x 0.005, 3 x 0.01, 2 x 0.03, 1 x 0.04, none below the one before.
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02])


def simulate(gap: float, spread: float, seeds: int, times: int) -> list[statistics.Difference]:
    """Comparisons of two models whose true difference is `gap`, each on examples of its own.

    Examples are hard for both models or for one of them; seeds move the accuracy by `spread`.
    """
    generator = np.random.default_rng(7)

    def trainings(accuracy: float, shared: NDArray[np.floating]) -> Hits:
        own = generator.uniform(-0.1, 0.1, shared.shape)
        levels = accuracy + spread * generator.standard_normal(seeds)
        chances = np.clip(levels[:, None] + shared + own, 0, 1)
        return np.asarray(generator.random(chances.shape) < chances)

    compared = []
    for _ in range(times):
        shared = generator.uniform(-0.1, 0.1, 400)
        pair = trainings(0.75 + gap, shared), trainings(0.75, shared)
        compared.append(statistics.compare(*pair))
    return compared


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.03), (3, 0.01), (10, 0.002)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, spread: float) -> None:
    compared = simulate(gap=0.02, spread=spread, seeds=seeds, times=1000)

    covered = np.mean([pair.interval.low <= 0.02 <= pair.interval.high for pair in compared])
    assert 0.93 <= covered <= 0.985  # few seeds err to the wide side


@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_equal_models_are_told_apart_by_chance_alone(seeds: int) -> None:
    spread = 0 if seeds == 1 else 0.02  # McNemar's test is of the trainings, not of the models
    compared = simulate(gap=0, spread=spread, seeds=seeds, times=1000)

    alarms = np.mean([pair.p_value < 0.05 for pair in compared])
    assert alarms <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
    if seeds > 1:
        assert 0.45 < np.mean([pair.probability for pair in compared]) < 0.55


def test_the_seeds_it_asks_for_would_do() -> None:
    """The power of trainings as many as it says, by simulation of their scores."""
    gap, spread = 0.001, 0.0008
    needed = statistics.seeds_needed(gap, 2 * spread**2, 0, beyond=2, level=0.05)
    assert needed is not None
    generator = np.random.default_rng(3)
    first = generator.normal(gap, spread, (4000, needed))
    second = generator.normal(0, spread, (4000, needed))
    power = np.mean(scipy.stats.ttest_ind(first, second, axis=1).pvalue < 0.05)

    assert 0.75 < power < 0.92


def test_no_number_of_seeds_makes_up_for_too_few_examples() -> None:
    assert statistics.seeds_needed(0.001, 1e-9, 1e-6, beyond=3, level=0.05) is None
    assert statistics.seeds_needed(0, 1e-6, 0, beyond=3, level=0.05) is None


def test_copies_of_a_training_differ_by_their_examples_alone() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.random((2, 1000)) < [[0.9], [0.8]]
    compared = statistics.compare(np.stack([first, first]), np.stack([second, second]))

    assert compared.p_value < 0.001
    assert compared.interval.low < compared.difference < compared.interval.high
    assert statistics.compare(np.stack([first] * 2), np.stack([first] * 2)).p_value == 1
