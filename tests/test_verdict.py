import numpy as np

from image_classification import verdict
from image_classification.statistics import Hits


def trainings(accuracies: list[float], examples: int = 2000, seed: int = 0) -> Hits:
    generator = np.random.default_rng(seed)
    return generator.random((len(accuracies), examples)) < np.array(accuracies)[:, None]


def test_a_clear_winner_beats_every_other() -> None:
    judged = verdict.judge(
        {
            "poor": trainings([0.70, 0.71, 0.69], seed=1),
            "good": trainings([0.90, 0.91, 0.90], seed=2),
            "fair": trainings([0.80, 0.81, 0.80], seed=3),
        }
    )

    assert [score.model for score in judged.scores] == ["good", "fair", "poor"]
    assert judged.unbeaten == ["good"]
    assert verdict.headline(judged).startswith("good beats every other model")
    sentences = [verdict.words(pair, judged) for pair in judged.pairs]
    assert sentences[0].startswith("good beats fair (+")
    assert len(sentences) == 3
    page = verdict.markdown(judged)
    assert all(sentence in page for sentence in sentences)


def test_models_that_differ_by_chance_are_not_ranked() -> None:
    judged = verdict.judge(
        {
            "one": trainings([0.90, 0.92, 0.91], seed=1),
            "other": trainings([0.91, 0.90, 0.92], seed=2),
            "poor": trainings([0.50, 0.52, 0.51], seed=3),
        }
    )

    assert set(judged.unbeaten) == {"one", "other"}
    assert "cannot be told apart; every other model is beaten" in verdict.headline(judged)
    (tie,) = [pair for pair in judged.pairs if not pair.told_apart]
    assert tie.seeds is None or tie.seeds > 3
    assert "cannot be told apart at n = 3" in verdict.words(tie, judged)


def test_one_training_each_asks_for_more_seeds() -> None:
    judged = verdict.judge({"one": trainings([0.9], seed=1), "other": trainings([0.9], seed=2)})

    assert "more seeds may" in verdict.words(judged.pairs[0], judged)
    assert "one training of each" in verdict.headline(judged)
    assert judged.scores[0].over_seeds is None
    assert judged.scores[0].deviation is None


def test_a_single_model_has_a_verdict_too() -> None:
    judged = verdict.judge({"alone": trainings([0.9, 0.8])})

    assert judged.unbeaten == ["alone"]
    assert "alone is the only model" in verdict.markdown(judged)
