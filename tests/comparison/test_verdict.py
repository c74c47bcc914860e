from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from image_classification.comparison import intervals, statistical_tests, verdict
from image_classification.comparison.contributions import Hits
from image_classification.comparison.verdict import Score


def runs(accuracies: list[float], examples: int = 2000, seed: int = 0) -> Hits:
    generator = np.random.default_rng(seed)
    return generator.random((len(accuracies), examples)) < np.array(accuracies)[:, None]


def test_a_score_is_the_mean_and_deviation_over_runs() -> None:
    hits = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)
    (score,) = verdict.judge({"a": hits}).scores

    assert score.deviation == pytest.approx((0.125**2 + 0.125**2) ** 0.5)
    assert replace(score, deviation=None) == Score(
        model="a",
        runs=2,
        mean=0.625,
        deviation=None,
        over_seeds=intervals.interval_over_seeds(np.array([0.75, 0.5])),
        over_examples=intervals.interval_over_examples(hits),
    )


def test_significant_is_below_5_percent_after_adjustment_for_the_pairs() -> None:
    """Which models are right on how many of 100 examples; "ac": a and c, but not b."""
    right = {"a": 15, "b": 6, "c": 2, "ab": 5, "ac": 6, "bc": 3, "abc": 63}
    hits = {
        model: np.repeat([[model in models for models in right]], list(right.values()), axis=1)
        for model in "abc"
    }
    judged = verdict.judge(hits)

    # a alone against b alone, b being right: 15 + 6 to 6 + 3; so with a and c, b and c.
    p_values = [binomtest(fewer, all_).pvalue for fewer, all_ in ((9, 30), (5, 25), (8, 19))]
    assert p_values == pytest.approx([0.043, 0.0041, 0.648], rel=0.02)
    adjusted = [2 * p_values[0], 3 * p_values[1], p_values[2]]
    assert [(pair.first, pair.second) for pair in judged.pairs] == [*map(tuple, ("ab", "ac", "bc"))]
    assert [pair.adjusted for pair in judged.pairs] == pytest.approx(adjusted)
    assert [pair.significant for pair in judged.pairs] == [False, True, False]
    assert [pair.runs_needed for pair in judged.pairs] == [None, None, None]
    assert (judged.unbeaten, judged.runs, judged.examples) == (["a", "b"], 1, 100)


def test_the_pairs_share_their_variance_over_seeds_and_their_level() -> None:
    hits = {
        "a": runs([0.91, 0.925, 0.905], seed=1),
        "b": runs([0.90, 0.91, 0.89], seed=2),
        "c": runs([0.50, 0.51, 0.49], seed=3),
    }
    judged = verdict.judge(hits)

    pooled = statistical_tests.pooled_variance(list(hits.values()))
    assert pooled is not None
    for pair in judged.pairs:
        found = statistical_tests.compare(hits[pair.first], hits[pair.second], pooled, pairs=3)
        assert pair.difference == found
    assert [pair.significant for pair in judged.pairs] == [False, True, True]
    first, *others = judged.pairs
    found = first.difference
    assert found.seed_variance == pytest.approx(2 * pooled.variance)
    assert first.runs_needed == statistical_tests.runs_needed(
        *(found.difference, 2 * pooled.variance, found.example_variance), runs=3, level=0.05 / 3
    )
    assert [pair.runs_needed for pair in others] == [None, None]


def test_a_single_model_has_a_verdict_too() -> None:
    judged = verdict.judge({"alone": runs([0.9, 0.8])})

    assert (judged.pairs, judged.unbeaten, judged.runs) == ([], ["alone"], 2)


def test_a_single_run_has_no_deviation() -> None:
    (score,) = verdict.judge({"alone": runs([0.9])}).scores

    assert (score.deviation, score.over_seeds) == (None, None)
