"""The verdict on several models: their hits in, scores, pairs and plain words out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from image_classification import statistics
from image_classification.statistics import Difference, Hits, Interval

SIGNIFICANCE = 0.05  # of the p-values after Holm's correction


@dataclass(frozen=True)
class Score:
    """The test accuracy of a model, from 0 to 1, over its trainings.

    deviation: the standard deviation over them; None for a single one, like `over_seeds`.
    over_seeds: 95 % interval of the mean, over new trainings tested on these examples.
    over_examples: 95 % interval of the mean, over new examples given to these trainings.
    """

    model: str
    trainings: int
    mean: float
    deviation: float | None
    over_seeds: Interval | None
    over_examples: Interval


@dataclass(frozen=True)
class Pair:
    """Two models, the first with the higher mean, and their difference.

    corrected: the p-value after Holm's correction over all pairs of the verdict.
    told_apart: whether it is below `SIGNIFICANCE`: the first is better beyond chance.
    seeds: trainings of each model that would tell them apart if the difference is as large as it
        looks; None if they are told apart, or where there is one training each, or where more
        trainings alone would not do.
    """

    first: str
    second: str
    difference: Difference
    corrected: float
    told_apart: bool
    seeds: int | None


@dataclass(frozen=True)
class Verdict:
    """What is known of several models.

    scores: best mean first.
    pairs: all of them.
    unbeaten: the models that no other beats beyond chance, best mean first.
    trainings: of each model.
    examples: that all were tested on.
    """

    scores: Sequence[Score]
    pairs: Sequence[Pair]
    unbeaten: Sequence[str]
    trainings: int
    examples: int


def judge(hits: Mapping[str, Hits]) -> Verdict:
    """Score every model and compare every pair.

    Args:
        hits: by model, as in `statistics`.
    """
    scores = sorted((_score(model, hits[model]) for model in hits), key=lambda score: -score.mean)
    couples = list(combinations([score.model for score in scores], 2))
    differences = [statistics.compare(hits[first], hits[second]) for first, second in couples]
    p_values = np.array([difference.p_value for difference in differences])
    corrected = statistics.holm(p_values) if couples else p_values
    trainings, examples = next(iter(hits.values())).shape
    pairs = [
        _pair(*models, difference, float(p_value), trainings, level=SIGNIFICANCE / len(couples))
        for models, difference, p_value in zip(couples, differences, corrected, strict=True)
    ]
    beaten = {pair.second for pair in pairs if pair.told_apart}
    unbeaten = [score.model for score in scores if score.model not in beaten]
    return Verdict(scores, pairs, unbeaten, trainings, examples)


def _pair(
    first: str,
    second: str,
    difference: Difference,
    corrected: float,
    trainings: int,
    level: float,
) -> Pair:
    told_apart, seeds = corrected < SIGNIFICANCE, None
    if not told_apart and difference.seed_variance is not None:
        seeds = statistics.seeds_needed(
            difference.difference,
            difference.seed_variance,
            difference.example_variance,
            beyond=trainings,
            level=level,
        )
    return Pair(first, second, difference, corrected, told_apart, seeds)


def _score(model: str, hits: Hits) -> Score:
    scores = hits.mean(axis=1)
    return Score(
        model=model,
        trainings=len(scores),
        mean=float(scores.mean()),
        deviation=float(scores.std(ddof=1)) if len(scores) > 1 else None,
        over_seeds=statistics.interval_over_seeds(scores),
        over_examples=statistics.interval_over_examples(hits),
    )


def headline(verdict: Verdict) -> str:
    """Which model scores best on test, or which cannot be told apart from the best."""
    best, *others = verdict.unbeaten
    if not verdict.pairs:
        return f"{best} is the only model."
    beaten = len(verdict.scores) - len(verdict.unbeaten)
    if not others:
        said = f"{best} beats every other model beyond chance."
    else:
        said = f"{', '.join([best, *others][:-1])} and {others[-1]} cannot be told apart"
        said += "; every other model is beaten." if beaten else "."
    if verdict.trainings == 1:
        said += " This is about one training of each: more seeds would tell of the models."
    return said


def words(pair: Pair, verdict: Verdict) -> str:
    """What is known of two models, in a sentence."""
    difference = pair.difference
    low, high = 100 * difference.interval.low, 100 * difference.interval.high
    shown = (
        f"{100 * difference.difference:+.2f} points, 95 % interval {low:.2f} to {high:.2f}, "
        f"corrected p = {pair.corrected:.2g}"
    )
    if pair.told_apart:
        return f"{pair.first} beats {pair.second} ({shown})"
    if verdict.trainings == 1:
        way_out = "more seeds may"
    elif pair.seeds is None:
        way_out = f"with {verdict.examples:,} test examples more seeds alone would not do"
    else:
        way_out = f"about n = {pair.seeds} would do"
    return (
        f"{pair.first} and {pair.second} cannot be told apart at n = {verdict.trainings} "
        f"({shown}); {way_out}"
    )


def markdown(verdict: Verdict) -> str:
    """The verdict as a section of a page: words, scores, pairs."""
    lines = [
        f"**{headline(verdict)}** By test accuracy; the champion is chosen by validation.",
        "",
        *(f"- {words(pair, verdict)}" for pair in verdict.pairs),
        "",
        f"Test accuracy over {verdict.examples:,} examples; 95 % intervals of its mean, over new "
        "trainings (Student's t) and over new examples (Wilson):",
        "",
        "| model | n | mean | standard deviation | interval over seeds | interval over examples |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for score in verdict.scores:
        deviation = "-" if score.deviation is None else f"{score.deviation:.4f}"
        lines.append(
            f"| {score.model} | {score.trainings} | {score.mean:.4f} | {deviation} "
            f"| {_shown(score.over_seeds)} | {_shown(score.over_examples)} |"
        )
    lines += [
        "",
        "Differences of mean test accuracy, in points (hundredths), with their 95 % interval over "
        "new trainings and examples (one training each: over new examples alone); p after Holm's "
        "correction over the pairs; P: the probability that one training of the first model scores "
        "higher than one of the second on these examples:",
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
            f"| {low:+.2f} to {high:+.2f} | {pair.corrected:.2g} | {probability} "
            f"| {difference.test} |"
        )
    return "\n".join(lines) + "\n"


def _shown(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"
