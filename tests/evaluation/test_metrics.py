import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from image_classification.evaluation import metrics

pytestmark = pytest.mark.filterwarnings("error")  # scikit-learn's, of classes without examples

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


def test_the_loss_counts_how_wrong_the_worst_mistakes_are() -> None:
    """scikit-learn takes every float32 below 1e-7 for 1e-7, that is for a loss of 16 nats."""
    probabilities = np.array([[1, 1e-30], [1, 0]], np.float32)

    worst, impossible = (
        metrics.classification(np.array([1]), row[None])["loss"] for row in probabilities
    )

    assert worst == pytest.approx(30 * np.log(10))
    assert worst < impossible < 104


def test_weighted_averages_count_examples_and_macro_averages_count_classes() -> None:
    """All four are taken for class 0, three of them rightly; class 2 has no examples at all."""
    values = metrics.classification(np.array([0, 0, 0, 1]), np.array([[0.9, 0.1, 0]] * 4))

    expected = {
        "loss": -np.log([0.9, 0.9, 0.9, 0.1]).mean(),
        "accuracy": 3 / 4,
        "brier": (3 * (0.1**2 + 0.1**2) + (0.9**2 + 0.9**2)) / 4,
        "calibration_error": 0.9 - 3 / 4,
        "precision": 3 / 4 * 3 / 4,
        "recall": 3 / 4,
        "f1": 3 / 4 * 6 / 7,
        "precision_macro": 3 / 4 / 2,
        "recall_macro": 1 / 2,
        "balanced_accuracy": 1 / 2,
        "f1_macro": 6 / 7 / 2,
    }
    assert {key: values[key] for key in expected} == pytest.approx(expected)  # others may be added


def test_balanced_accuracy_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(5, 300, p=[0.6, 0.3, 0.06, 0.04, 0])
    predicted = np.where(generator.random(300) < 0.7, labels, generator.integers(0, 4, 300))

    values = metrics.of_predictions(labels, predicted)

    assert values["balanced_accuracy"] == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(labels, predicted)
    )


def test_a_class_without_examples_does_not_change_the_averages() -> None:
    """One whose predictions are mistakes, and one that is not predicted either."""
    values = metrics.of_predictions(np.array([0, 0, 1, 1]), np.array([0, 5, 1, 1]))

    assert values["balanced_accuracy"] == values["recall_macro"] == 3 / 4
    assert values["precision_macro"] == 1
    assert values["f1_macro"] == pytest.approx((2 / 3 + 1) / 2)


def test_the_majority_class_is_the_most_frequent_one() -> None:
    labels = np.array([2, 1, 1, 2, 0, 2], np.uint8)

    assert metrics.majority_class(labels) == 2
    assert metrics.majority_class(labels[:4]) == 1  # as frequent as 2


def test_each_class_has_its_row_even_without_examples() -> None:
    table = metrics.per_class(LABELS, PREDICTED, ["a", "b", "c", "d"])

    pd.testing.assert_frame_equal(
        table,
        pd.DataFrame(
            {
                "class": ["a", "b", "c", "d"],
                "precision": [2 / 3, 1, 1, 0],
                "recall": [1, 1 / 2, 1, 0],
                "f1": [0.8, 2 / 3, 1, 0],
                "examples": [2, 2, 2, 0],
            }
        ),
    )


def test_confusion_matrix_has_actual_rows_and_predicted_columns() -> None:
    matrix = metrics.confusion_matrix(LABELS, PREDICTED, ["a", "b", "c", "d"])

    assert matrix.to_numpy().tolist() == [[2, 0, 0, 0], [1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    assert (matrix.index.name, matrix.columns.name) == ("actual", "predicted")
    assert list(matrix.index) == list(matrix.columns) == ["a", "b", "c", "d"]


def test_the_most_confident_mistake_comes_first() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.4, 0.6], [0.1, 0.9], [0.9, 0.1], [0.2, 0.8]])

    assert list(metrics.worst_mistakes(labels, probabilities, most=5)) == [1, 0]
    assert list(metrics.worst_mistakes(labels, probabilities, most=1)) == [1]


def test_equally_confident_mistakes_stay_in_order() -> None:
    probabilities = np.array([[0.1, 0.9], [0.4, 0.6]] * 50)

    worst = metrics.worst_mistakes(np.zeros(100, int), probabilities, most=100)

    assert list(worst) == [*range(0, 100, 2), *range(1, 100, 2)]


def test_the_table_of_mistakes_holds_the_most_confident_ones_by_name() -> None:
    labels = np.array([0, 1, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.75, 0.25], [0.125, 0.875], [0.5, 0.5]])

    table = metrics.mistakes(labels, probabilities, ["cat", "dog"], most=2)

    assert table.to_dict("records") == [
        {
            "example": 2,
            "actual": "cat",
            "predicted": "dog",
            "confidence": 0.875,
            "probability_of_actual": 0.125,
        },
        {
            "example": 1,
            "actual": "dog",
            "predicted": "cat",
            "confidence": 0.75,
            "probability_of_actual": 0.25,
        },
    ]


def test_a_mistake_is_found_by_its_file() -> None:
    table = metrics.mistakes(
        np.array([0, 1]), np.array([[0.9, 0.1], [0.7, 0.3]]), ["a", "b"], 5, ["x.png", "y.png"]
    )

    assert table[["example", "file"]].to_dict("records") == [{"example": 1, "file": "y.png"}]


def test_brier_of_a_worked_example() -> None:
    # One certain and right, one certain and wrong, one with even chances.
    labels = np.array([0, 1, 1])
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])

    assert metrics.classification(labels, probabilities)["brier"] == pytest.approx(
        (0 + 2 + 0.5) / 3
    )


def test_confidence_is_divided_into_15_bins() -> None:
    """Six forecasts of 20 classes: even chances, 0.9 twice, 0.6, 1, and 1 but for rounding."""
    confidence = np.array([1 / 20, 0.9, 0.9, 9 / 15, 1, 1 + 1e-7])
    probabilities = np.full((6, 20), (1 - confidence[:, None]) / 19)
    probabilities[:, 0] = confidence
    labels = np.array([0, 0, 5, 5, 0, 0])

    table = metrics.reliability(labels, probabilities)

    pd.testing.assert_frame_equal(
        table,
        pd.DataFrame(
            {
                "low": [0, 8 / 15, 13 / 15, 14 / 15],
                "high": [1 / 15, 9 / 15, 14 / 15, 1],
                "examples": [1, 1, 2, 2],
                "confidence": [0.05, 0.6, 0.9, 1],
                "accuracy": [1, 0, 0.5, 1],
            }
        ),
    )
    assert metrics.calibration_error(table) == pytest.approx((0.95 + 0.6 + 2 * 0.4) / 6)


def test_well_calibrated_probabilities_have_no_calibration_error() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5), 50_000)
    labels = (generator.random((50_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)

    honest = metrics.classification(labels, probabilities)["calibration_error"]
    boastful = metrics.classification(labels, probabilities**3 / (probabilities**3).sum(1)[:, None])

    assert honest < 0.015
    assert boastful["calibration_error"] > 0.1
