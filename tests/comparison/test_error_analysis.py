import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from image_classification.comparison import error_analysis


def sure(predicted: list[int], classes: int = 3) -> NDArray[np.float64]:
    """The probabilities of one run that predicts these classes."""
    return np.eye(classes)[predicted] * 0.9 + 0.1 / classes


LABELS = np.array([0, 1, 2, 0])
PROBABILITIES = {
    "nn": np.stack([sure([1, 1, 0, 0]), sure([1, 2, 0, 0]), sure([1, 1, 2, 0])]),
    "cnn": np.stack([sure([1, 1, 2, 1]), sure([1, 1, 2, 1]), sure([0, 1, 2, 0])]),
}


def test_a_miss_is_what_most_runs_get_wrong() -> None:
    found = error_analysis.misses(LABELS, PROBABILITIES)

    assert {model: list(indices) for model, indices in found.by_model.items()} == {
        "nn": [0, 2],
        "cnn": [0, 3],
    }
    assert list(found.shared) == [0]
    assert {model: list(indices) for model, indices in found.alone.items()} == {
        "nn": [2],
        "cnn": [3],
    }


def test_what_half_of_the_runs_get_right_is_no_miss() -> None:
    found = error_analysis.misses(np.array([0, 0]), {"nn": np.stack([sure([1, 1]), sure([1, 0])])})

    assert found.by_model["nn"].tolist() == [0]


def test_an_example_is_taken_for_its_commonest_wrong_class() -> None:
    assert error_analysis.mistaken_for(LABELS, PROBABILITIES["nn"]).tolist() == [1, 2, 0, 0]
    assert error_analysis.mistaken_for(LABELS, PROBABILITIES["cnn"]).tolist() == [1, 1, 2, 1]
    # Two runs are wrong in different ways; the third is so confident that the mean is right.
    split = np.array([[[0.4, 0.6, 0]], [[0.4, 0, 0.6]], [[1, 0, 0]]])
    assert error_analysis.mistaken_for(np.array([0]), split).tolist() == [1]


def test_confused_pairs_are_counted_per_run() -> None:
    pairs = error_analysis.confused_pairs(LABELS, PROBABILITIES, ["a", "b", "c"], most=2)

    assert list(zip(pairs["actual"], pairs["predicted"], strict=True)) == [("a", "b"), ("c", "a")]
    assert pairs["nn"].tolist() == pytest.approx([1, 2 / 3])
    assert pairs["cnn"].tolist() == pytest.approx([4 / 3, 0])


def test_a_models_mistakes_count_by_their_share() -> None:
    """One model has 10 mistakes, 8 of the first kind; the other a single one, of the second."""
    labels = np.repeat([0, 1], [8, 2])
    many, one = sure([1] * 8 + [0] * 2, 2)[None], sure([0] * 8 + [0, 1], 2)[None]

    pairs = error_analysis.confused_pairs(labels, {"many": many, "one": one}, ["a", "b"], most=2)

    assert pairs.to_dict("list") == {
        **{"actual": ["b", "a"], "predicted": ["a", "b"]},
        **{"many": [2, 8], "one": [1, 0]},
    }


def test_equal_shares_stay_in_the_order_of_the_classes() -> None:
    taken_for = [1, 2, 3, 4, 5, 0]
    pairs = error_analysis.confused_pairs(
        np.arange(6), {"nn": sure(taken_for, 6)[None]}, list("abcdef"), most=6
    )

    assert "".join(pairs["actual"]) == "abcdef"
    assert "".join(pairs["predicted"]) == "bcdefa"


def test_a_perfect_model_confuses_nothing() -> None:
    pairs = error_analysis.confused_pairs(
        LABELS, {"nn": sure([0, 1, 2, 0])[None]}, ["a", "b", "c"], 5
    )

    assert pairs.empty


def test_a_label_that_all_runs_contradict_alike_is_doubted() -> None:
    """Of the first two examples all runs say 2, less of the second; of the third they differ."""
    one = np.array([[0.2, 0.2, 0.6], [0.1, 0.2, 0.7], [0.1, 0.9, 0.0], [0.1, 0.1, 0.8]])
    other = np.array([[0.4, 0.0, 0.6], [0.0, 0.1, 0.9], [0.1, 0.0, 0.9], [0.2, 0.2, 0.6]])

    found = error_analysis.likely_label_errors(np.array([0, 1, 0, 2]), np.stack([one, other] * 3))

    pd.testing.assert_frame_equal(
        found,
        pd.DataFrame(
            {
                "example": [1, 0],
                "label": [1, 0],
                "suggested": [2, 2],
                "probability_of_label": [0.15, 0.3],
                "probability_of_suggested": [0.8, 0.6],
            }
        ),
    )


def test_a_doubted_label_is_found_by_its_file() -> None:
    wrong = np.tile([[0.9, 0.1], [0.2, 0.8]], (5, 1, 1))

    found = error_analysis.likely_label_errors(np.array([0, 0]), wrong, ["x.png", "y.png"])

    assert found[["example", "file"]].to_dict("records") == [{"example": 1, "file": "y.png"}]


def test_equally_doubtful_labels_stay_in_order() -> None:
    found = error_analysis.likely_label_errors(
        np.zeros(100, int), np.array([[[0.1, 0.9], [0.2, 0.8]] * 50] * 5)
    )

    assert found["example"].tolist() == [*range(0, 100, 2), *range(1, 100, 2)]


def noisy(truth: NDArray[np.int64], runs: int, noise: float) -> NDArray[np.float64]:
    """Probabilities (runs, examples, classes) of models that have nearly learned the truth."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, noise, (runs, len(truth), 10)) + 6 * np.eye(10)[truth]
    exponentials = np.exp(logits)
    return np.asarray(exponentials / exponentials.sum(axis=2, keepdims=True))


def test_planted_label_errors_are_found_and_few_others() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 10, 5000)
    planted = generator.choice(5000, 50, replace=False)
    labels = truth.copy()
    labels[planted] = (labels[planted] + 3) % 10

    found = error_analysis.likely_label_errors(labels, noisy(truth, runs=5, noise=1.5))

    assert np.isin(planted, found["example"]).mean() > 0.8
    assert found["example"].isin(planted).mean() > 0.95
    assert (found["suggested"] == truth[found["example"]]).mean() > 0.95
    assert found["probability_of_label"].is_monotonic_increasing


def test_more_runs_doubt_fewer_labels() -> None:
    wrong = np.random.default_rng(1).random((15, 1000)) < 0.8
    values = np.stack([~wrong, wrong], axis=2).astype(float)

    five, all_runs = (
        error_analysis.likely_label_errors(np.zeros(1000, int), part)
        for part in (values[:5], values)
    )

    assert len(five) > 2 * len(all_runs) > 0
    assert set(all_runs["example"]) <= set(five["example"])


def test_a_few_runs_doubt_no_label_since_they_agree_on_their_own_mistakes() -> None:
    truth = np.zeros(100, int)
    wrong = np.tile([0.1, 0.9], (5, 100, 1))

    assert len(error_analysis.likely_label_errors(truth, wrong[:4])) == 0
    assert len(error_analysis.likely_label_errors(truth, wrong)) == 100
