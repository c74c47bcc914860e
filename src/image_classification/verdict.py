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
    """

    first: str
    second: str
    difference: Difference
    corrected: float

    @property
    def told_apart(self) -> bool:
        """Whether the first is better beyond chance."""
        return self.corrected < SIGNIFICANCE


@dataclass(frozen=True)
class Verdict:
    """Scores, best mean first; all pairs of models; the number of test examples."""

    scores: Sequence[Score]
    pairs: Sequence[Pair]
    examples: int

    @property
    def unbeaten(self) -> list[str]:
        """The models that no other beats beyond chance, best mean first."""
        beaten = {pair.second for pair in self.pairs if pair.told_apart}
        return [score.model for score in self.scores if score.model not in beaten]


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
    pairs = [
        Pair(first, second, difference, float(p_value))
        for (first, second), difference, p_value in zip(
            couples, differences, corrected, strict=True
        )
    ]
    return Verdict(scores, pairs, next(iter(hits.values())).shape[1])


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
    """Which model is best, or which cannot be told apart from the best."""
    best, *others = verdict.unbeaten
    if not others:
        return f"{best} is the best model: it beats every other beyond chance."
    named = f"{', '.join([best, *others][:-1])} and {others[-1]}"
    return f"{named} cannot be told apart; every other model is beaten."


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
    trainings = min(
        score.trainings for score in verdict.scores if score.model in (pair.first, pair.second)
    )
    if trainings == 1:
        way_out = "one training each says little of the models, train with more seeds"
    elif difference.seeds is None:
        way_out = f"with {verdict.examples:,} test examples more seeds alone would not do"
    else:
        way_out = f"about n = {difference.seeds} would do"
    return (
        f"{pair.first} and {pair.second} cannot be told apart at n = {trainings} ({shown}); "
        f"{way_out}"
    )


def markdown(verdict: Verdict) -> str:
    """The verdict as a section of a page: words, scores, pairs."""
    lines = [
        f"**{headline(verdict)}**",
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
