"""The verdict in words and tables of Markdown."""

from image_classification.comparison.contributions import METRICS
from image_classification.comparison.intervals import Interval
from image_classification.comparison.statistical_tests import Probability, RunsNeeded
from image_classification.comparison.verdict import Pair, Verdict

FIX_THE_NUMBER = (
    "Fix the number of seeds before you look: adding seeds until a difference is significant finds "
    "too many that do not exist (between two equal models, with 3 seeds and, if they show nothing, "
    "with 15, in 9 % of cases instead of 5 %)."
)


def metric_name(verdict: Verdict) -> str:
    """The display name of the metric that decides."""
    return METRICS[verdict.metric].name


def over_examples(verdict: Verdict) -> str:
    """The method behind the scores' intervals over examples."""
    return "Wilson" if verdict.metric == "accuracy" else "jackknife"


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
        f"{100 * difference.difference:+.2f} points, {interval_name(verdict)} {low:.2f} to "
        f"{high:.2f}, adjusted p = {pair.adjusted:.2g}"
    )
    if pair.significant:
        return f"{pair.first} beats {pair.second} ({numbers})"
    return (
        f"no significant difference between {pair.first} and {pair.second} at n = {verdict.runs} "
        f"({numbers}){_advice(pair.runs_needed, verdict)}"
    )


def interval_name(verdict: Verdict) -> str:
    """What the intervals of differences are called; with several pairs, all hold at once."""
    return "95 % interval" if len(verdict.pairs) == 1 else "simultaneous 95 % interval"


def _advice(needed: RunsNeeded | None, verdict: Verdict) -> str:
    if verdict.runs == 1:
        return "; more seeds may show one"
    if needed is None:
        return ""
    if needed.most is None:
        number = f"{needed.fewest} or more"
    elif needed.most == needed.fewest:
        number = f"about {needed.fewest}"
    else:
        number = f"{needed.fewest} to {needed.most}"
    return f"; if there is one, n = {number} would probably show it"


def markdown(verdict: Verdict) -> str:
    """The verdict as a section of a page: sentences, scores, pairs."""
    name = metric_name(verdict)
    lines = [
        f"**{headline(verdict)}** By test {name}; the champion is chosen by validation.",
        "",
        *(f"- {sentence(pair, verdict)}" for pair in verdict.pairs),
        "",
        *([FIX_THE_NUMBER, ""] if advises_more_seeds(verdict) else []),
        *_score_table(verdict),
        "",
        *(_pair_table(verdict) if verdict.pairs else []),
    ]
    return "\n".join(lines) + "\n"


def advises_more_seeds(verdict: Verdict) -> bool:
    """Whether a sentence of the verdict does."""
    without = [pair for pair in verdict.pairs if not pair.significant]
    return any(_advice(pair.runs_needed, verdict) for pair in without)


def _score_table(verdict: Verdict) -> list[str]:
    lines = [
        f"Test {metric_name(verdict)} over {verdict.examples:,} examples, with 95 % intervals of "
        f"its mean over new runs (Student's t) and over new examples ({over_examples(verdict)}):",
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
        explanation(verdict),
        "",
        "| pair | difference | interval | p | P | interval of P | test |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for pair in verdict.pairs:
        difference = pair.difference
        low, high = 100 * difference.interval.low, 100 * difference.interval.high
        value, bounds = shown_probability(difference.probability)
        lines.append(
            f"| {pair.first}, {pair.second} | {100 * difference.difference:+.2f} "
            f"| {low:+.2f} to {high:+.2f} | {pair.adjusted:.2g} | {value} | {bounds} "
            f"| {difference.test} |"
        )
    return lines


def explanation(verdict: Verdict) -> str:
    """What the columns of the table of pairs mean, for those who know some statistics."""
    what = "test examples only" if verdict.runs == 1 else "runs and test examples"
    lines = [
        f"Differences of mean test {metric_name(verdict)} are in points (hundredths), their "
        f"intervals over new {what}."
    ]
    if len(verdict.pairs) > 1:
        lines.append(
            "The intervals are simultaneous (Bonferroni): with 95 % confidence, all of "
            "them contain the true difference. p is adjusted for the number of pairs by Holm's "
            "method, which has slightly more power: a difference can be significant (p below 0.05) "
            "although its interval includes 0."
        )
    if verdict.runs == 1 and verdict.metric == "accuracy":
        lines.append(
            "McNemar's exact test is slightly stricter than Tango's interval: a difference whose "
            "interval just excludes 0 may not be significant."
        )
    if verdict.runs > 1:
        lines.append(
            "The variance over seeds is pooled over the models, unless they differ in it. P is the "
            "probability that one run of the first model scores higher than one of the second on "
            "these examples, with its own 95 % interval."
        )
    return " ".join(lines)


def shown_probability(probability: Probability | None) -> tuple[str, str]:
    """A probability and its interval, as tables show them."""
    if probability is None:
        return "-", "-"
    bounds = probability.interval
    return f"{probability.value:.2f}", f"{bounds.low:.2f} to {bounds.high:.2f}"


def _shown(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"
