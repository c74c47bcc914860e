import numpy as np
import pytest
from numpy.typing import NDArray

from image_classification import failures


def sure(predicted: list[int], classes: int = 3) -> NDArray[np.float64]:
    """The probabilities of one training that takes each example for one class."""
    return np.eye(classes)[predicted] * 0.9 + 0.1 / classes


LABELS = np.array([0, 1, 2, 0])
PROBABILITIES = {
    "nn": np.stack([sure([1, 1, 0, 0]), sure([1, 2, 0, 0]), sure([1, 1, 2, 0])]),
    "cnn": np.stack([sure([1, 1, 2, 1]), sure([1, 1, 2, 1]), sure([0, 1, 2, 0])]),
}


def test_a_miss_is_what_most_trainings_get_wrong() -> None:
    found = failures.misses(LABELS, PROBABILITIES)

    assert {model: list(indices) for model, indices in found.by_model.items()} == {
        "nn": [0, 2],
        "cnn": [0, 3],
    }
    assert list(found.shared) == [0]
    assert {model: list(indices) for model, indices in found.alone.items()} == {
        "nn": [2],
        "cnn": [3],
    }


def test_an_example_is_taken_for_its_commonest_wrong_class() -> None:
    assert failures.mistaken_for(LABELS, PROBABILITIES["nn"]).tolist() == [1, 2, 0, 0]
    # Two are wrong, each in its own way, and the third so sure that the mean is right.
    split = np.array([[[0.4, 0.6, 0]], [[0.4, 0, 0.6]], [[1, 0, 0]]])
    assert failures.mistaken_for(np.array([0]), split).tolist() == [1]


def test_confused_pairs_are_counted_a_training() -> None:
    pairs = failures.confused_pairs(LABELS, PROBABILITIES, ["a", "b", "c"], most=2)

    assert list(zip(pairs["actual"], pairs["predicted"], strict=True)) == [("a", "b"), ("c", "a")]
    assert pairs["nn"].tolist() == pytest.approx([1, 2 / 3])
    assert pairs["cnn"].tolist() == pytest.approx([4 / 3, 0])


def test_a_perfect_model_confuses_nothing() -> None:
    pairs = failures.confused_pairs(LABELS, {"nn": sure([0, 1, 2, 0])[None]}, ["a", "b", "c"], 5)

    assert pairs.empty


def noisy(truth: NDArray[np.int64], trainings: int, noise: float) -> NDArray[np.float64]:
    """Probabilities (trainings, examples, classes) of models that learned the truth, nearly."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, noise, (trainings, len(truth), 10)) + 6 * np.eye(10)[truth]
    exponentials = np.exp(logits)
    return np.asarray(exponentials / exponentials.sum(axis=2, keepdims=True))


def test_planted_label_errors_are_found_and_few_others() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 10, 5000)
    planted = generator.choice(5000, 50, replace=False)
    labels = truth.copy()
    labels[planted] = (labels[planted] + 3) % 10

    found = failures.likely_label_errors(labels, noisy(truth, trainings=5, noise=1.5))

    assert np.isin(planted, found["example"]).mean() > 0.8
    assert found["example"].isin(planted).mean() > 0.95
    assert (found["suggested"] == truth[found["example"]]).mean() > 0.95
    assert found["probability_of_label"].is_monotonic_increasing


def test_more_trainings_doubt_fewer_labels() -> None:
    truth = np.random.default_rng(1).integers(0, 10, 5000)
    values = noisy(truth, trainings=5, noise=2.5)

    one, all_five = (failures.likely_label_errors(truth, part) for part in (values[:1], values))

    assert len(one) > 100
    assert len(all_five) < 10
    assert set(all_five["example"]) <= set(one["example"])
