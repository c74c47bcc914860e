"""The gate's rule, and how often it lets pass what is no better."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from image_classification.core.config import PromotionConfig, RequirementsConfig
from image_classification.promotion import gate
from image_classification.promotion.gate import Evidence, decide
from image_classification.promotion.paired import PairedComparison, compare

SETTINGS = PromotionConfig("default", "evidence", margin=-0.2, cheaper=20)
NUMBERS: dict[str, Any] = {
    "accuracy": 0.98,
    "worst_class_recall": 0.9,
    "calibration_error": 0.01,
    "microseconds_batch_1": 100.0,
    "microseconds_batch_256": 10.0,
    "model_bytes": 2e6,
    "parameters": 1000,
    "machine": "this",
}
SLIM = {**NUMBERS, "microseconds_batch_1": 80.0, "microseconds_batch_256": 8.0, "parameters": 900}
EVEN = PairedComparison("accuracy", 12_000, 0.98, 0.98, 0.0, -0.001, 0.001, 1.0)
BETTER = replace(EVEN, candidate=0.983, difference=0.003, low=0.001, high=0.005, p_value=0.001)


def evidence(
    paired: PairedComparison | None = EVEN,
    candidate: dict[str, Any] = NUMBERS,
    champion: dict[str, Any] | None = NUMBERS,
    chosen_from: int = 6,
    reason: str | None = None,
) -> Evidence:
    return Evidence(candidate, champion, paired, chosen_from, reason)


def test_a_first_model_is_champion_even_if_it_meets_no_requirement_and_that_is_said() -> None:
    assert decide(evidence(None, champion=None), SETTINGS).reason == "there was no champion"

    strict = replace(SETTINGS, requirements=RequirementsConfig(accuracy=0.99))
    found = decide(evidence(None, champion=None), strict)
    assert found.promoted
    assert (
        found.reason
        == "there was no champion, though its accuracy of 0.98 is below the minimum of 0.99"
    )


def test_what_is_no_worse_stays_out_without_a_reason() -> None:
    found = decide(evidence(), SETTINGS)

    assert not found.promoted
    assert "no reason to change" in found.reason


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (evidence(BETTER), "significantly better (adjusted p = 0.006)"),
        (evidence(candidate=SLIM), "at least 20 % cheaper to run"),
        (evidence(reason="fewer 7s lost"), "a person's reason: fewer 7s lost"),
        (
            evidence(BETTER, SLIM, reason="x"),
            "significantly better (adjusted p = 0.006); at least 20 % cheaper to run; a person's "
            "reason: x",
        ),
    ],
)
def test_each_reason_is_enough(given: Evidence, said: str) -> None:
    found = decide(given, SETTINGS)

    assert (found.promoted, found.reason) == (True, said)


def test_no_reason_helps_what_may_be_worse_than_the_margin() -> None:
    worse = replace(EVEN, difference=-0.001, low=-0.0021)

    found = decide(evidence(worse, SLIM, reason="please"), SETTINGS)

    assert not found.promoted
    assert found.reason == (
        "the difference may be as low as -0.21 points, and promotion.margin requires more than -0.2"
    )
    assert decide(evidence(worse, SLIM), replace(SETTINGS, margin=-0.3)).promoted
    at_the_margin = replace(EVEN, low=-0.002)
    assert not decide(evidence(at_the_margin, SLIM), SETTINGS).promoted


def test_the_best_of_many_must_be_better_by_more() -> None:
    luck = replace(BETTER, p_value=0.04)

    assert decide(evidence(luck, chosen_from=1), SETTINGS).promoted
    assert not decide(evidence(luck, chosen_from=2), SETTINGS).promoted
    assert gate.adjusted(evidence(luck, chosen_from=100)) == 1
    at_the_level = replace(BETTER, p_value=0.05)
    assert not decide(evidence(at_the_level, chosen_from=1), SETTINGS).promoted


def test_significantly_worse_is_no_reason() -> None:
    worse = replace(EVEN, difference=-0.0005, low=-0.0009, high=-0.0001, p_value=1e-6)

    assert not decide(evidence(worse), SETTINGS).promoted


@pytest.mark.parametrize(
    "change",
    [
        {"microseconds_batch_1": 81.0},
        {"microseconds_batch_256": 8.1},
        {"parameters": 1000},  # the same architecture: measured at a better moment
        {"machine": "a faster one"},
    ],
)
def test_cheaper_is_less_time_one_by_one_and_in_batches(change: dict[str, Any]) -> None:
    assert gate.is_cheaper(SLIM, NUMBERS, 20)
    assert not gate.is_cheaper({**SLIM, **change}, NUMBERS, 20)


@pytest.mark.parametrize(
    ("requirements", "said"),
    [
        (RequirementsConfig(accuracy=0.99), "its accuracy of 0.98 is below the minimum of 0.99"),
        (
            RequirementsConfig(worst_class_recall=0.95),
            "its worst class recall of 0.9 is below the minimum of 0.95",
        ),
        (
            RequirementsConfig(calibration_error=0.005),
            "its calibration error of 0.01 is above the maximum of 0.005",
        ),
        (
            RequirementsConfig(microseconds=99),
            "its µs for an image of 100 is above the maximum of 99",
        ),
        (RequirementsConfig(megabytes=1.9), "its size in MB of 2 is above the maximum of 1.9"),
    ],
)
def test_a_candidate_that_misses_a_requirement_is_refused_for_any_reason(
    requirements: RequirementsConfig, said: str
) -> None:
    found = decide(evidence(BETTER, reason="x"), replace(SETTINGS, requirements=requirements))

    assert (found.promoted, found.reason) == (False, said)


def test_a_requirement_that_is_just_met_holds_and_several_unmet_are_all_named() -> None:
    just = RequirementsConfig(0.98, 0.9, 0.01, 100, 2)
    assert gate.unmet_requirements(NUMBERS, replace(SETTINGS, requirements=just)) == []

    two = replace(SETTINGS, requirements=RequirementsConfig(accuracy=1, megabytes=1))
    assert decide(evidence(), two).reason.count(" and ") == 1


def test_without_common_examples_only_a_person_promotes() -> None:
    assert "no validation examples" in decide(evidence(None, SLIM), SETTINGS).reason
    assert not decide(evidence(None, SLIM), SETTINGS).promoted

    found = decide(evidence(None, reason="another split"), SETTINGS)
    assert found.promoted
    assert found.reason == "not compared with the champion; a person's reason: another split"


def test_without_a_gate_every_candidate_passes() -> None:
    worse = replace(EVEN, low=-0.5)
    strict = RequirementsConfig(accuracy=1)

    assert decide(evidence(worse), replace(SETTINGS, gate="none", requirements=strict)).promoted


def promoted_share(
    chosen_from: int, trials: int, seed: int, gain: float = 0.0, examples: int = 4_000
) -> float:
    """How often the best of so many equally good retrainings is promoted over one more.

    Each model errs on a share of the examples that are hard for all, and on some of its own, as
    retrainings of one model do: 1 % in all, of which two differ on about half.
    """
    generator = np.random.default_rng(seed)
    labels = np.zeros(examples, int)
    promoted = 0
    for _ in range(trials):
        hard = generator.random(examples) < 0.015
        chances = np.array([0.67] + [0.67 - gain / 0.015] * chosen_from)
        wrong = hard & (generator.random((1 + chosen_from, examples)) < chances[:, None])
        best = wrong[1:][wrong[1:].sum(axis=1).argmin()]
        paired = compare("accuracy", labels, best.astype(int), wrong[0].astype(int))
        promoted += decide(evidence(paired, chosen_from=chosen_from), SETTINGS).promoted
    return promoted / trials


@pytest.mark.parametrize("chosen_from", [1, 6])
def test_a_retraining_that_is_no_better_seldom_passes(chosen_from: int) -> None:
    """At most 2.5 % by construction; the bound leaves room for the luck of 300 trials."""
    assert promoted_share(chosen_from, trials=300, seed=1) <= 0.05


def test_a_model_that_is_better_passes() -> None:
    """Half of its errors gone: the simulation above does not refuse whatever comes."""
    assert promoted_share(6, trials=30, seed=2, gain=0.005, examples=12_000) >= 0.9
