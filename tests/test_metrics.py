import numpy as np
import pytest

from image_classification import metrics

# 5 of 6 right: class 0 has 2 of 2 found and 1 too many, class 1 1 of 2, class 2 all.
LABELS = np.array([0, 0, 1, 1, 2, 2], np.uint8)
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.6, 0.3, 0.1],
        [0.1, 0.8, 0.1],
        [0.7, 0.2, 0.1],
        [0.1, 0.1, 0.8],
        [0.2, 0.2, 0.6],
    ]
)
PREDICTED = PROBABILITIES.argmax(axis=1)


def test_metrics_of_a_worked_example() -> None:
    values = metrics.classification(LABELS, PROBABILITIES)

    assert values["accuracy"] == pytest.approx(5 / 6)
    assert values["precision"] == values["precision_macro"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert values["recall"] == values["recall_macro"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert values["f1"] == pytest.approx((0.8 + 2 / 3 + 1) / 3)
    assert values["loss"] == pytest.approx(-np.log([0.8, 0.6, 0.8, 0.2, 0.8, 0.6]).mean())


def test_weighted_averages_count_examples_and_macro_averages_count_classes() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])

    values = metrics.classification(labels, probabilities)

    assert values["recall"] == pytest.approx(0.75)
    assert values["recall_macro"] == pytest.approx(0.5)


def test_a_class_without_examples_keeps_its_row() -> None:
    table = metrics.per_class(np.array([0, 1]), np.array([0, 1]), ["a", "b", "c"])

    assert list(table["class"]) == ["a", "b", "c"]
    assert list(table["examples"]) == [1, 1, 0]


def test_confusion_matrix_has_actual_rows_and_predicted_columns() -> None:
    matrix = metrics.confusion_matrix(LABELS, PREDICTED, ["a", "b", "c"])

    assert matrix.loc["b", "a"] == 1
    assert matrix.loc["a", "b"] == 0
    assert matrix.to_numpy().sum() == len(LABELS)


def test_the_most_confident_mistake_comes_first() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.4, 0.6], [0.1, 0.9], [0.9, 0.1], [0.2, 0.8]])

    assert list(metrics.worst_mistakes(labels, probabilities, most=5)) == [1, 0]
    assert list(metrics.worst_mistakes(labels, probabilities, most=1)) == [1]


def test_brier_of_a_worked_example() -> None:
    # Two certain forecasts, one right and one wrong, and one of even chances.
    labels = np.array([0, 1, 1])
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])

    assert metrics.classification(labels, probabilities)["brier"] == pytest.approx(
        (0 + 2 + 0.5) / 3
    )


def test_calibration_error_of_a_worked_example() -> None:
    # 4 examples at 90 % of which 3 are right, 2 at 60 % of which 2 are.
    labels = np.array([0, 0, 0, 1, 0, 0])
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)

    table = metrics.reliability(labels, probabilities)

    assert table["examples"].tolist() == [2, 4]
    assert table["confidence"].tolist() == pytest.approx([0.6, 0.9])
    assert table["accuracy"].tolist() == pytest.approx([1, 0.75])
    assert metrics.calibration_error(table) == pytest.approx((2 * 0.4 + 4 * 0.15) / 6)


def test_every_confidence_falls_into_one_bin() -> None:
    top = np.array([0.5, 1 / 15 * 9, 1 / 15 * 9 + 1e-9, 1.0])
    table = metrics.reliability(np.zeros(4, int), np.stack([top, 1 - top], axis=1))

    assert table["examples"].sum() == 4
    assert (table["confidence"] <= table["high"] + 1e-12).all()
    assert (table["confidence"] > table["low"] - 1e-12).all()


def test_forecasts_that_keep_their_word_have_no_calibration_error() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5), 50_000)
    labels = (generator.random((50_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)

    honest = metrics.classification(labels, probabilities)["calibration_error"]
    boastful = metrics.classification(labels, probabilities**3 / (probabilities**3).sum(1)[:, None])

    assert honest < 0.015
    assert boastful["calibration_error"] > 0.1
