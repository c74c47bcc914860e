"""Contributions are held against scikit-learn's scores, the bootstrap, and simulated models."""

import numpy as np
import pytest
import sklearn.metrics
from numpy.typing import NDArray

from image_classification.comparison import contributions as contributing
from image_classification.comparison import statistical_tests
from image_classification.comparison.contributions import METRICS, contributions
from image_classification.core import config
from image_classification.evaluation import metrics

INFLUENTIAL = [metric for metric in METRICS if metric != "accuracy"]
SHARES = np.array([0.5, 0.3, 0.1, 0.06, 0.04])  # of the classes
RECALLS = np.array([0.95, 0.9, 0.8, 0.7, 0.6])


def labels_of(examples: int, chance: np.random.Generator) -> NDArray[np.intp]:
    return np.asarray(chance.choice(len(SHARES), examples, p=SHARES))


def predict(
    labels: NDArray[np.intp], runs: int, chance: np.random.Generator, spread: float = 0
) -> NDArray[np.intp]:
    """Predictions (runs, examples) of a model; seeds change its recalls by the spread."""
    recalls = RECALLS[labels] + spread * chance.standard_normal((runs, 1))
    others = 1 + chance.integers(0, len(SHARES) - 1, (runs, len(labels)))
    right = chance.random((runs, len(labels))) < recalls
    return np.where(right, labels, (labels + others) % len(SHARES))


def test_every_metric_that_can_be_set_can_decide() -> None:
    assert tuple(METRICS) == config.METRICS
    names = [metric.name for metric in METRICS.values()]
    assert names == ["accuracy", "balanced accuracy", "macro F1"]


@pytest.mark.parametrize("metric", METRICS)
def test_their_mean_is_the_score_of_each_run(metric: str) -> None:
    chance = np.random.default_rng(0)
    labels = 2 * labels_of(300, chance)  # classes 1, 3, ... do not occur
    predicted = 2 * predict(labels // 2, 3, chance)
    predicted[:, :20] = 1  # but one of them is predicted
    predicted[:, 20:30] = 11  # and one beyond the last label

    found = contributions(metric, labels, predicted)

    expected = [metrics.of_predictions(labels, run)[metric] for run in predicted]
    assert found.mean(axis=1) == pytest.approx(expected, abs=1e-12)
    assert found.shape == predicted.shape


def test_those_to_the_accuracy_are_the_hits() -> None:
    found = contributions("accuracy", np.array([0, 1, 1]), np.array([[0, 1, 0], [1, 1, 1]]))

    assert found.dtype == np.bool_
    assert found.tolist() == [[True, True, False], [False, True, True]]


def test_balanced_accuracy_as_worked_by_hand() -> None:
    """Recalls 2/3 and 1/2; without a hit of class 0 its recall is 1/2, without the mistake 1."""
    found = contributing.balanced_accuracy(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0]))

    score = (2 / 3 + 1 / 2) / 2
    losses = np.array([2 / 3 - 1 / 2, 2 / 3 - 1 / 2, 2 / 3 - 1, 1 / 2, -1 / 2]) / 2
    assert found == pytest.approx(score + 4 * losses)


def test_macro_f1_loses_what_scikit_learn_says_it_does() -> None:
    chance = np.random.default_rng(1)
    labels = labels_of(120, chance)
    (predicted,) = predict(labels, 1, chance)

    def f1(rest: NDArray[np.intp]) -> float:
        return float(sklearn.metrics.f1_score(labels[rest], predicted[rest], average="macro"))

    everything = np.arange(120)
    losses = [f1(everything) - f1(np.delete(everything, left_out)) for left_out in everything]
    influences = 119 * (np.array(losses) - np.mean(losses))
    assert contributing.f1_macro(labels, predicted) == pytest.approx(f1(everything) + influences)


@pytest.mark.parametrize("metric", INFLUENTIAL)
def test_a_class_with_a_single_example_and_one_that_is_always_missed(metric: str) -> None:
    found = contributions(metric, np.array([0, 0, 1, 2, 2]), np.array([[0, 0, 1, 0, 0]]))

    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx((1 + 1) / 3 if "acc" in metric else (2 / 3 + 1) / 3)


@pytest.mark.parametrize("metric", INFLUENTIAL)
def test_their_variance_is_that_of_the_bootstrap(metric: str) -> None:
    chance = np.random.default_rng(2)
    labels = labels_of(2000, chance)
    predicted = predict(labels, 1, chance)

    scores = []
    for _ in range(1500):
        drawn = chance.integers(0, 2000, 2000)
        scores.append(contributions(metric, labels[drawn], predicted[:, drawn]).mean())
    variance = contributions(metric, labels, predicted).var() / 2000
    assert variance == pytest.approx(np.var(scores), rel=0.1)


@pytest.mark.parametrize("metric", INFLUENTIAL)
@pytest.mark.parametrize(("runs", "spread"), [(1, 0), (3, 0.01)])
def test_equal_models_differ_significantly_by_chance_alone(
    metric: str, runs: int, spread: float
) -> None:
    chance, times = np.random.default_rng(3), 1000
    alarms = covered = 0
    for _ in range(times):
        labels = labels_of(300, chance)
        first, second = (
            contributions(metric, labels, predict(labels, runs, chance, spread)) for _ in range(2)
        )
        pooled = statistical_tests.pooled_variance([first, second])
        found = statistical_tests.compare(first, second, pooled, pairs=1)
        alarms += found.p_value < 0.05
        covered += found.interval.low <= 0 <= found.interval.high

    assert 0.02 < alarms / times <= 0.05 + 3 * (0.05 * 0.95 / times) ** 0.5
    assert covered == times - alarms


def test_two_models_that_differ_on_the_only_image_of_a_class_are_not_told_apart() -> None:
    labels = np.array([0] * 40 + [1] * 40 + [2])
    second = labels.copy()
    second[-1] = 0
    right, wrong = (
        contributions("balanced_accuracy", labels, run[None]) for run in (labels, second)
    )

    found = statistical_tests.compare(right, wrong, None, pairs=1)

    assert found.difference == pytest.approx(1 / 3)
    assert found.p_value > 0.3
    assert found.interval.low < 0
