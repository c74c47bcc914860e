from dataclasses import replace

import numpy as np
import pytest

from image_classification.comparison import verdict, verdict_text
from image_classification.comparison.contributions import Hits
from image_classification.comparison.intervals import Interval
from image_classification.comparison.statistical_tests import (
    Difference,
    Probability,
    RunsNeeded,
)
from image_classification.comparison.verdict import Pair, Score, Verdict


def runs(accuracies: list[float], examples: int = 2000, seed: int = 0) -> Hits:
    generator = np.random.default_rng(seed)
    return generator.random((len(accuracies), examples)) < np.array(accuracies)[:, None]


DIFFERENCE = Difference(
    0.0123,
    Interval(-0.0245, 0.0491),
    0.2,
    Probability(0.875, Interval(0.61, 0.98)),
    "a test",
    0.1,
    0.1,
)


def made_up_of(pair: Pair, seeds: int) -> Verdict:
    """A verdict on the models of one pair."""
    scores = [Score(name, seeds, 0.9, None, None, Interval(0.8, 1)) for name in "ab"]
    return Verdict(scores, [pair], ["a"], seeds, 1000)


def made_up(wins: str, models: str = "abc", seeds: int = 3) -> Verdict:
    """A verdict on these models in which these pairs alone are significant: "ab" if a beats b."""
    scores = [Score(model, seeds, 0.9, 0.01, None, Interval(0.8, 1)) for model in models]
    pairs = [
        Pair(first, second, DIFFERENCE, 0.25, f"{first}{second}" in wins.split(), None)
        for index, first in enumerate(models)
        for second in models[index + 1 :]
    ]
    beaten = {pair.second for pair in pairs if pair.significant}
    unbeaten = [model for model in models if model not in beaten]
    return Verdict(scores, pairs, unbeaten, seeds, 1000)


def test_a_clear_winner_beats_every_other() -> None:
    judged = verdict.judge(
        {
            "poor": runs([0.70, 0.71, 0.69], seed=1),
            "good": runs([0.90, 0.91, 0.90], seed=2),
            "fair": runs([0.80, 0.81, 0.80], seed=3),
        }
    )

    assert [score.model for score in judged.scores] == ["good", "fair", "poor"]
    assert judged.unbeaten == ["good"]
    assert verdict_text.headline(judged) == "good beats every other model."
    sentences = [verdict_text.sentence(pair, judged) for pair in judged.pairs]
    assert sentences[0].startswith("good beats fair (+")
    assert len(sentences) == 3
    page = verdict_text.markdown(judged)
    assert all(sentence in page for sentence in sentences)


def test_models_that_differ_by_chance_are_not_ranked() -> None:
    judged = verdict.judge(
        {
            "one": runs([0.90, 0.92, 0.91], seed=1),
            "other": runs([0.91, 0.90, 0.92], seed=2),
            "poor": runs([0.50, 0.52, 0.51], seed=3),
        }
    )

    assert set(judged.unbeaten) == {"one", "other"}
    assert verdict_text.headline(judged) == (
        f"No significant difference between {' and '.join(judged.unbeaten)}; "
        "both beat every other model."
    )
    (tie,) = [pair for pair in judged.pairs if not pair.significant]
    said = verdict_text.sentence(tie, judged)
    assert said.startswith(
        f"no significant difference between {tie.first} and {tie.second} at n = "
    )


@pytest.mark.parametrize(
    ("wins", "said"),
    [
        ("ab ac bc", "a beats every other model."),
        ("ab bc", "a is the only model that no other beats."),
        ("ac bc", "No significant difference between a and b; both beat every other model."),
        ("bc", "every other model is beaten by at least one model."),
        ("", "No significant difference among a, b and c."),
    ],
)
def test_the_headline_claims_no_more_than_the_pairs_show(wins: str, said: str) -> None:
    assert verdict_text.headline(made_up(wins)).endswith(said)


def test_three_unbeaten_models_that_beat_the_rest() -> None:
    judged = made_up("ad bd cd", models="abcd")

    assert verdict_text.headline(judged) == (
        "No significant difference among a, b and c; all of them beat every other model."
    )


def test_one_run_each_asks_for_more_seeds() -> None:
    judged = verdict.judge({"one": runs([0.9], seed=1), "other": runs([0.9], seed=2)})

    assert "more seeds may" in verdict_text.sentence(judged.pairs[0], judged)
    assert "single runs; more seeds are needed" in verdict_text.headline(judged)
    assert judged.scores[0].over_seeds is None
    assert judged.scores[0].deviation is None


@pytest.mark.parametrize(
    ("significant", "runs_needed", "runs_each", "start", "end"),
    [
        (True, None, 3, "a beats b", ""),
        (
            *(False, RunsNeeded(7, 9), 3, "no significant difference between a and b at n = 3"),
            "; if there is one, n = 7 to 9 would probably show it",
        ),
        (
            *(False, RunsNeeded(7, 7), 3, "no significant difference between a and b at n = 3"),
            "; if there is one, n = about 7 would probably show it",
        ),
        (
            *(False, RunsNeeded(7, None), 3, "no significant difference between a and b at n = 3"),
            "; if there is one, n = 7 or more would probably show it",
        ),
        (False, None, 3, "no significant difference between a and b at n = 3", ""),
        (
            *(False, None, 1, "no significant difference between a and b at n = 1"),
            "; more seeds may show one",
        ),
    ],
)
def test_a_sentence_gives_the_numbers_and_what_would_show_a_difference(
    significant: bool, runs_needed: RunsNeeded | None, runs_each: int, start: str, end: str
) -> None:
    pair = Pair("a", "b", DIFFERENCE, 0.034, significant, runs_needed)
    several = Verdict([], [pair, pair], [], runs_each, 1000)
    numbers = "(+1.23 points, simultaneous 95 % interval -2.45 to 4.91, adjusted p = 0.034)"

    assert verdict_text.sentence(pair, several) == f"{start} {numbers}{end}"
    assert "(+1.23 points, 95 % interval" in verdict_text.sentence(
        pair, replace(several, pairs=[pair])
    )
    # Who is told to add seeds is told not to do so until they show what he wants.
    assert ("Fix the number of seeds" in verdict_text.markdown(made_up_of(pair, runs_each))) == (
        end != ""
    )


def test_the_page_is_the_headline_the_sentences_and_two_tables() -> None:
    single = replace(DIFFERENCE, probability=None, test="another test")
    judged = Verdict(
        scores=[
            Score("a", 3, 0.91, 0.0123, Interval(0.88, 0.94), Interval(0.89, 0.92)),
            Score("b", 1, 0.9, None, None, Interval(0.87, 0.93)),
        ],
        pairs=[
            Pair("a", "b", DIFFERENCE, 0.034, True, None),
            Pair("b", "c", single, 0.25, False, None),
        ],
        unbeaten=["a"],
        runs=3,
        examples=1000,
    )

    parts = verdict_text.markdown(judged).split("\n\n")
    headline, sentences, above_scores, scores, above_pairs, pairs = parts
    assert headline.startswith(f"**{verdict_text.headline(judged)}** ")
    assert sentences.splitlines() == [
        f"- {verdict_text.sentence(pair, judged)}" for pair in judged.pairs
    ]
    assert above_scores.endswith("new examples (Wilson):")
    assert scores.splitlines() == [
        "| model | n | mean | standard deviation | interval over seeds | interval over examples |",
        "|---|--:|--:|--:|--:|--:|",
        "| a | 3 | 0.9100 | 0.0123 | 0.8800 to 0.9400 | 0.8900 to 0.9200 |",
        "| b | 1 | 0.9000 | - | - | 0.8700 to 0.9300 |",
    ]
    assert above_pairs == verdict_text.explanation(judged)
    assert "simultaneous (Bonferroni)" in above_pairs
    assert "Holm's method" in above_pairs
    assert pairs.splitlines() == [
        "| pair | difference | interval | p | P | interval of P | test |",
        "|---|--:|--:|--:|--:|--:|---|",
        "| a, b | +1.23 | -2.45 to +4.91 | 0.034 | 0.88 | 0.61 to 0.98 | a test |",
        "| b, c | +1.23 | -2.45 to +4.91 | 0.25 | - | - | another test |",
    ]


@pytest.mark.parametrize(
    ("models", "seeds", "said", "not_said"),
    [
        ("ab", 1, ["over new test examples only", "McNemar"], ["simultaneous", "pooled"]),
        ("abc", 1, ["over new test examples only", "simultaneous", "Holm"], ["pooled"]),
        ("ab", 2, ["over new runs and test examples", "pooled"], ["Holm", "McNemar"]),
    ],
)
def test_the_explanation_is_of_what_the_table_shows(
    models: str, seeds: int, said: list[str], not_said: list[str]
) -> None:
    text = verdict_text.explanation(made_up("", models, seeds))

    assert all(part in text for part in said)
    assert not any(part in text for part in not_said)


def test_where_all_differences_are_significant_nobody_is_told_to_add_seeds() -> None:
    assert not verdict_text.advises_more_seeds(made_up("ab", "ab", seeds=1))
    assert verdict_text.advises_more_seeds(made_up("", "ab", seeds=1))


def test_a_single_model_has_a_verdict_too() -> None:
    judged = verdict.judge({"alone": runs([0.9, 0.8])})

    assert judged.unbeaten == ["alone"]
    assert "alone is the only model" in verdict_text.markdown(judged)
