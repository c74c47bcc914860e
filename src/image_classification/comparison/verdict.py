"""The verdict on several models: their contributions in, scores and pairs out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from image_classification.comparison import intervals, statistical_tests
from image_classification.comparison.contributions import Contributions
from image_classification.comparison.intervals import Interval
from image_classification.comparison.statistical_tests import Difference, RunsNeeded

SIGNIFICANCE = 0.05  # an adjusted p-value below it counts as significant


@dataclass(frozen=True)
class Score:
    """The score of a model on test, from 0 to 1, over its runs.

    deviation: the standard deviation; None for a single run, as is `over_seeds`.
    over_seeds: 95 % interval of the mean, over new runs tested on these examples.
    over_examples: 95 % interval of the mean, over new examples given to these runs.
    """

    model: str
    runs: int
    mean: float
    deviation: float | None
    over_seeds: Interval | None
    over_examples: Interval


@dataclass(frozen=True)
class Pair:
    """Two models, the one with the higher mean first, and their difference.

    adjusted: the p-value, adjusted by Holm's method for all pairs of the verdict.
    significant: whether that is below `SIGNIFICANCE`; the first model then beats the second.
    runs_needed: how many runs of each model would show the difference; None if it is significant,
        if there is one run each, or if the runs do not say.
    """

    first: str
    second: str
    difference: Difference
    adjusted: float
    significant: bool
    runs_needed: RunsNeeded | None


@dataclass(frozen=True)
class Verdict:
    """Which models are better than which.

    scores: best mean first.
    pairs: all of them.
    unbeaten: the models that no other beats, best mean first.
    runs: of each model.
    examples: that all models were tested on.
    metric: that decides, one of `contributions.METRICS`.
    """

    scores: Sequence[Score]
    pairs: Sequence[Pair]
    unbeaten: Sequence[str]
    runs: int
    examples: int
    metric: str = "accuracy"


def judge(contributions: Mapping[str, Contributions], metric: str = "accuracy") -> Verdict:
    """Score every model and compare every pair.

    Args:
        contributions: by model, (runs, examples), to the metric.
        metric: one of `contributions.METRICS`.
    """
    scores = sorted(
        (_score(model, values) for model, values in contributions.items()),
        key=lambda score: -score.mean,
    )
    couples = list(combinations([score.model for score in scores], 2))
    pooled = statistical_tests.pooled_variance(list(contributions.values()))
    differences = [
        statistical_tests.compare(contributions[first], contributions[second], pooled, len(couples))
        for first, second in couples
    ]
    p_values = np.array([difference.p_value for difference in differences])
    adjusted = statistical_tests.holm(p_values) if couples else p_values
    runs, examples = next(iter(contributions.values())).shape
    pairs = [
        _pair(*models, difference, float(p_value), runs, level=SIGNIFICANCE / len(couples))
        for models, difference, p_value in zip(couples, differences, adjusted, strict=True)
    ]
    beaten = {pair.second for pair in pairs if pair.significant}
    unbeaten = [score.model for score in scores if score.model not in beaten]
    return Verdict(scores, pairs, unbeaten, runs, examples, metric)


def _pair(
    first: str,
    second: str,
    difference: Difference,
    adjusted: float,
    runs: int,
    level: float,
) -> Pair:
    significant, runs_needed = adjusted < SIGNIFICANCE, None
    if not significant and difference.seed_variance is not None:
        runs_needed = statistical_tests.runs_needed(
            difference.difference,
            difference.seed_variance,
            difference.example_variance,
            runs=runs,
            level=level,
        )
    return Pair(first, second, difference, adjusted, significant, runs_needed)


def _score(model: str, contributions: Contributions) -> Score:
    scores = contributions.mean(axis=1, dtype=np.float64)
    return Score(
        model=model,
        runs=len(scores),
        mean=float(scores.mean()),
        deviation=float(scores.std(ddof=1)) if len(scores) > 1 else None,
        over_seeds=intervals.interval_over_seeds(scores),
        over_examples=intervals.interval_over_examples(contributions),
    )
