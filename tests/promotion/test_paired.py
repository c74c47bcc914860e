"""The difference of two models on the same examples."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from image_classification.comparison.intervals import tango
from image_classification.promotion.paired import compare


def answers(both: int, gained: int, lost: int, neither: int) -> tuple[Any, Any, Any]:
    """Labels, and the answers of two models that are right on so many of them."""
    first = [0] * (both + gained) + [1] * (lost + neither)
    second = [0] * both + [1] * gained + [0] * lost + [1] * neither
    return np.zeros(len(first), int), np.array(first), np.array(second)


def test_accuracies_are_compared_by_mcnemar_and_tango() -> None:
    found = compare("accuracy", *answers(900, 30, 10, 60))

    assert (found.metric, found.examples) == ("accuracy", 1000)
    assert (found.candidate, found.champion, found.difference) == pytest.approx((0.93, 0.91, 0.02))
    interval = tango(30, 10, 1000, level=0.05)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
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


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1_macro"])
def test_models_that_agree_may_still_differ_in_a_rare_class(metric: str) -> None:
    """Six examples of a class show little, even if both models get all of them right."""
    labels = np.array([0] * 494 + [1] * 6)
    of_many, of_few = (compare(metric, each, each, each) for each in (np.tile([0, 1], 250), labels))

    assert of_many.difference == of_few.difference == 0
    assert of_few.low == pytest.approx(-tango(0, 0, 6, level=0.05).high / 2)
    assert of_few.low < of_many.low < 0 < of_many.high < of_few.high
