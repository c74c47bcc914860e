"""The difference of two models on the same examples."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from image_classification.promotion.paired import compare, tango

Z = 1.959963984540054  # the quantile of a 95 % interval


def answers(both: int, gained: int, lost: int, neither: int) -> tuple[Any, Any, Any]:
    """Labels, and the answers of two models that are right on so many of them."""
    first = [0] * (both + gained) + [1] * (lost + neither)
    second = [0] * both + [1] * gained + [0] * lost + [1] * neither
    return np.zeros(len(first), int), np.array(first), np.array(second)


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
    found = tango(gained, lost, examples)

    score = [likelihood_score(gained, lost, examples, end) for end in (found.low, found.high)]
    assert score == pytest.approx([Z, -Z], abs=1e-3)
    mirrored = tango(lost, gained, examples)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_models_that_agree_on_few_examples_may_still_differ() -> None:
    """A variance of the answers would be 0 there, and promise that they are equally good."""
    few, many = tango(0, 0, 100), tango(0, 0, 12_000)

    assert few.high == -few.low == pytest.approx(Z**2 / (100 + Z**2))
    assert many.high == pytest.approx(Z**2 / (12_000 + Z**2))


@pytest.mark.parametrize(("gained", "lost", "end"), [(100, 0, 1.0), (0, 100, -1.0)])
def test_models_that_never_agree_are_as_far_apart_as_can_be(
    gained: int, lost: int, end: float
) -> None:
    found = tango(gained, lost, 100)

    assert end in (found.low, found.high)
    assert 0.9 < abs(found.low + found.high) / 2 < 1


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    truth, draws = 0.01, 2000
    drawn = generator.multinomial(1000, [0.03, 0.02, 0.95], draws)
    held = [tango(int(b), int(c), 1000) for b, c, _ in drawn]

    share = np.mean([interval.low <= truth <= interval.high for interval in held])
    assert 0.935 < share < 0.965  # 3 standard errors about 95 %


def test_accuracies_are_compared_by_mcnemar_and_tango() -> None:
    found = compare("accuracy", *answers(900, 30, 10, 60))

    assert (found.metric, found.examples) == ("accuracy", 1000)
    assert (found.candidate, found.champion, found.difference) == pytest.approx((0.93, 0.91, 0.02))
    interval = tango(30, 10, 1000)
    assert (found.low, found.high) == (interval.low, interval.high)
    assert found.p_value == pytest.approx(scipy.stats.binomtest(10, 40).pvalue)


def test_the_better_of_two_is_better_whichever_is_named_first() -> None:
    labels, first, second = answers(900, 30, 10, 60)
    there, back = (
        compare("accuracy", labels, first, second),
        compare("accuracy", labels, second, first),
    )

    assert (back.difference, back.low) == pytest.approx((-there.difference, -there.high))
    assert back.p_value == pytest.approx(there.p_value)


def test_another_metric_is_compared_by_what_each_example_contributes() -> None:
    """Right on all of the large class, on half of the small one: 0.98 accurate, 0.75 balanced."""
    labels = np.array([0] * 480 + [1] * 20)
    poor = np.array([0] * 490 + [1] * 10)

    found = compare("balanced_accuracy", labels, labels, poor)

    assert (found.candidate, found.champion) == pytest.approx((1.0, 0.75))
    assert found.difference == pytest.approx(0.25)
    assert found.low < 0.25 < found.high
    assert found.p_value < 0.01
