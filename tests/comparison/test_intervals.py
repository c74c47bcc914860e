"""Each interval is checked against a published example, by hand, or by a simulation."""

import numpy as np
import pytest
import scipy.optimize

from image_classification.comparison.contributions import Hits
from image_classification.comparison.intervals import (
    Interval,
    interval_over_examples,
    interval_over_seeds,
    tango,
)
from image_classification.comparison.statistical_tests import compare

LEVEL = 0.05
Z = 1.959963984540054  # the quantile of a 95 % interval


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
    interval = interval_over_examples(hits_of(rights, examples))

    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_over_examples_counts_examples_and_not_runs() -> None:
    run = hits_of(81, 263)

    assert interval_over_examples(np.concatenate([run] * 3)) == interval_over_examples(run)


def test_the_interval_over_seeds_is_students() -> None:
    scores = np.array([0.9920, 0.9909, 0.9928])  # cnn's, as published
    interval = interval_over_seeds(scores)

    # By hand: mean 0.9919, standard deviation 0.000954, t(0.975, 2) = 4.3027.
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((0.98953, 0.99427), abs=2e-5)
    assert interval_over_seeds(scores[:1]) is None
    # Of two: mean 0.91, standard error 0.01, t(0.975, 1) = 12.7062.
    interval = interval_over_seeds(np.array([0.9, 0.92]))
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((0.782938, 1.037062), abs=1e-6)


def test_equal_scores_have_an_interval_without_width() -> None:
    assert interval_over_seeds(np.full(3, 0.5)) == Interval(0.5, 0.5)


def test_other_scores_have_students_interval_over_examples() -> None:
    values = np.array([[0.1, 0.7, 0.45, 0.55, 0.2]])
    interval = interval_over_examples(values)

    # By hand: mean 0.4, variance 0.06125, of the mean 0.01225; t(0.975, 4) = 2.776445.
    assert (interval.low, interval.high) == pytest.approx((0.092704, 0.707296), abs=1e-6)
    assert interval_over_examples(values + 0.5).high == 1


def likelihood_score(gained: int, lost: int, examples: int, difference: float) -> float:
    """Tango's statistic with the likeliest shares found by search instead of his formula."""
    rest = examples - gained - lost

    def loss(share: float) -> float:
        shares = np.array([share + difference, share, 1 - 2 * share - difference])
        logs = np.log(np.maximum(shares, 1e-300))
        return -float(np.array([gained, lost, rest]) @ logs)

    low, high = max(0.0, -difference), (1 - difference) / 2
    share = scipy.optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-13}
    ).x
    variance = examples * (2 * share + difference - difference**2)
    return float((gained - lost - examples * difference) / variance**0.5)


@pytest.mark.parametrize(
    ("gained", "lost", "examples"), [(12, 2, 50), (5, 5, 100), (30, 10, 12_000), (1, 9, 40)]
)
def test_both_ends_of_the_interval_are_as_far_as_the_quantile_by_the_likelihood(
    gained: int, lost: int, examples: int
) -> None:
    found = tango(gained, lost, examples, LEVEL)

    score = [likelihood_score(gained, lost, examples, end) for end in (found.low, found.high)]
    assert score == pytest.approx([Z, -Z], abs=1e-3)
    mirrored = tango(lost, gained, examples, LEVEL)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_models_that_agree_on_few_examples_may_still_differ() -> None:
    """A variance of the answers would be 0 there, and promise that they are equally good."""
    few, many = tango(0, 0, 100, LEVEL), tango(0, 0, 12_000, LEVEL)

    assert few.high == -few.low == pytest.approx(Z**2 / (100 + Z**2))
    assert many.high == pytest.approx(Z**2 / (12_000 + Z**2))


@pytest.mark.parametrize(("gained", "lost", "end"), [(100, 0, 1.0), (0, 100, -1.0)])
def test_models_that_never_agree_are_as_far_apart_as_can_be(
    gained: int, lost: int, end: float
) -> None:
    found = tango(gained, lost, 100, LEVEL)

    assert end in (found.low, found.high)
    assert 0.9 < abs(found.low + found.high) / 2 < 1


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    truth, draws = 0.01, 2000
    drawn = generator.multinomial(1000, [0.03, 0.02, 0.95], draws)
    held = [tango(int(b), int(c), 1000, LEVEL) for b, c, _ in drawn]

    share = np.mean([interval.low <= truth <= interval.high for interval in held])
    assert 0.935 < share < 0.965  # 3 standard errors about 95 %


def test_single_runs_have_this_interval_wider_where_it_is_one_of_several() -> None:
    """A variance of the answers would be 0 there."""
    hits = np.ones((1, 200), np.bool_)

    (one, three) = (compare(hits, hits, None, pairs=pairs).interval for pairs in (1, 3))

    expected = tango(0, 0, 200, LEVEL / 3)
    assert (three.low, three.high) == pytest.approx((expected.low, expected.high))
    assert three.low < one.low < 0 < one.high < three.high
