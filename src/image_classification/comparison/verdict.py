"""The verdict on several models: their hits in; scores, pairs and sentences about them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from image_classification.comparison import statistical_tests
from image_classification.comparison.statistical_tests import Difference, Hits, Interval

SIGNIFICANCE = 0.05  # an adjusted p-value below it counts as significant


@dataclass(frozen=True)
class Score:
    """The test accuracy of a model, from 0 to 1, over its runs.

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
    runs_needed: how many runs of each model would show a difference of this size; None if it is
        significant, if there is one run each, or if more runs alone would not be enough.
    """

    first: str
    second: str
    difference: Difference
    adjusted: float
    significant: bool
    runs_needed: int | None


@dataclass(frozen=True)
class Verdict:
    """Which models are better than which.

    scores: best mean first.
    pairs: all of them.
    unbeaten: the models that no other beats, best mean first.
    runs: of each model.
    examples: that all models were tested on.
    """

    scores: Sequence[Score]
    pairs: Sequence[Pair]
    unbeaten: Sequence[str]
    runs: int
    examples: int


def judge(hits: Mapping[str, Hits]) -> Verdict:
    """Score every model and compare every pair.

    Args:
        hits: by model, booleans (runs, examples) as in `statistical_tests`.
    """
    scores = sorted((_score(model, hits[model]) for model in hits), key=lambda score: -score.mean)
    couples = list(combinations([score.model for score in scores], 2))
    differences = [
        statistical_tests.compare(hits[first], hits[second]) for first, second in couples
    ]
    p_values = np.array([difference.p_value for difference in differences])
    adjusted = statistical_tests.holm(p_values) if couples else p_values
    runs, examples = next(iter(hits.values())).shape
    pairs = [
        _pair(*models, difference, float(p_value), runs, level=SIGNIFICANCE / len(couples))
        for models, difference, p_value in zip(couples, differences, adjusted, strict=True)
    ]
    beaten = {pair.second for pair in pairs if pair.significant}
    unbeaten = [score.model for score in scores if score.model not in beaten]
    return Verdict(scores, pairs, unbeaten, runs, examples)


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
            beyond=runs,
            level=level,
        )
    return Pair(first, second, difference, adjusted, significant, runs_needed)


def _score(model: str, hits: Hits) -> Score:
    scores = hits.mean(axis=1)
    return Score(
        model=model,
        runs=len(scores),
        mean=float(scores.mean()),
        deviation=float(scores.std(ddof=1)) if len(scores) > 1 else None,
        over_seeds=statistical_tests.interval_over_seeds(scores),
        over_examples=statistical_tests.interval_over_examples(hits),
    )


def headline(verdict: Verdict) -> str:
    """Which model is best on test, or which of the best do not differ significantly."""
    best, *others = verdict.unbeaten
    if not verdict.pairs:
        return f"{best} is the only model."
    text = _tie(verdict) if others else _winner(verdict)
    if verdict.runs == 1:
        text += " This compares single runs; more seeds are needed to compare the models."
    return text


def _winner(verdict: Verdict) -> str:
    (best,) = verdict.unbeaten
    if _beats_all_beaten(best, verdict):
        return f"{best} beats every other model."
    return f"{best} is the only model that no other beats."


def _tie(verdict: Verdict) -> str:
    tied = verdict.unbeaten
    between = "between" if len(tied) == 2 else "among"
    text = f"No significant difference {between} {', '.join(tied[:-1])} and {tied[-1]}"
    if len(tied) == len(verdict.scores):
        return f"{text}."
    if all(_beats_all_beaten(model, verdict) for model in tied):
        return f"{text}; {'both' if len(tied) == 2 else 'all of them'} beat every other model."
    return f"{text}; every other model is beaten by at least one model."


def _beats_all_beaten(model: str, verdict: Verdict) -> bool:
    """Whether a model beats every model that is not unbeaten."""
    beats = {pair.second for pair in verdict.pairs if pair.significant and pair.first == model}
    return beats >= {score.model for score in verdict.scores} - set(verdict.unbeaten)


def sentence(pair: Pair, verdict: Verdict) -> str:
    """Whether one model of a pair beats the other, with the numbers, without a full stop."""
    difference = pair.difference
    low, high = 100 * difference.interval.low, 100 * difference.interval.high
    numbers = (
        f"{100 * difference.difference:+.2f} points, 95 % interval {low:.2f} to {high:.2f}, "
        f"adjusted p = {pair.adjusted:.2g}"
    )
    if pair.significant:
        return f"{pair.first} beats {pair.second} ({numbers})"
    if verdict.runs == 1:
        hint = "more seeds may show one"
    elif pair.runs_needed is None:
        hint = (
            f"more seeds alone cannot show one of this size with {verdict.examples:,} test examples"
        )
    else:
        hint = f"it takes about n = {pair.runs_needed} to show one of this size"
    return (
        f"no significant difference between {pair.first} and {pair.second} at n = {verdict.runs} "
        f"({numbers}); {hint}"
    )


def markdown(verdict: Verdict) -> str:
    """The verdict as a section of a page: sentences, scores, pairs."""
    lines = [
        f"**{headline(verdict)}** By test accuracy; the champion is chosen by validation.",
        "",
        *(f"- {sentence(pair, verdict)}" for pair in verdict.pairs),
        "",
        *_score_table(verdict),
        "",
        *_pair_table(verdict),
    ]
    return "\n".join(lines) + "\n"


def _score_table(verdict: Verdict) -> list[str]:
    lines = [
        f"Test accuracy over {verdict.examples:,} examples, with 95 % intervals of its mean over "
        "new runs (Student's t) and over new examples (Wilson):",
        "",
        "| model | n | mean | standard deviation | interval over seeds | interval over examples |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for score in verdict.scores:
        deviation = "-" if score.deviation is None else f"{score.deviation:.4f}"
        lines.append(
            f"| {score.model} | {score.runs} | {score.mean:.4f} | {deviation} "
            f"| {_shown(score.over_seeds)} | {_shown(score.over_examples)} |"
        )
    return lines


def _pair_table(verdict: Verdict) -> list[str]:
    lines = [
        "Differences of mean test accuracy, in points (hundredths), with 95 % intervals over new "
        "runs and examples (with one run each, over new examples only); p is adjusted for the "
        "number of pairs by Holm's method; P is the probability that one run of the first model "
        "scores higher than one of the second on these examples:",
        "",
        "| pair | difference | interval | p | P | test |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for pair in verdict.pairs:
        difference = pair.difference
        low, high = 100 * difference.interval.low, 100 * difference.interval.high
        probability = "-" if difference.probability is None else f"{difference.probability:.2f}"
        lines.append(
            f"| {pair.first}, {pair.second} | {100 * difference.difference:+.2f} "
            f"| {low:+.2f} to {high:+.2f} | {pair.adjusted:.2g} | {probability} "
            f"| {difference.test} |"
        )
    return lines


def _shown(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"
