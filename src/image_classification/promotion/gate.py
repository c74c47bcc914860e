"""The gate: evidence in, a decision out. No worse is not enough: there must be a reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from image_classification.comparison.verdict import SIGNIFICANCE
from image_classification.core.config import PromotionConfig
from image_classification.promotion.paired import PairedComparison

TIMES = ("microseconds_batch_1", "microseconds_batch_256")


@dataclass(frozen=True)
class Evidence:
    """What is known of a candidate and of the champion.

    candidate: accuracy, worst_class_recall and calibration_error on validation (0 to 1),
        microseconds_batch_1 and microseconds_batch_256 (for an image), model_bytes, parameters,
        and the machine on which it was timed; not of old records.
    champion: the same; None without a standing champion.
    paired: both on the same validation examples; None if there are none to compare them on.
    chosen_from: how many runs the candidate is the best of, on these examples.
    reason: a person's; None without one.
    """

    candidate: Mapping[str, Any]
    champion: Mapping[str, Any] | None
    paired: PairedComparison | None
    chosen_from: int
    reason: str | None


@dataclass(frozen=True)
class Decision:
    """Whether the candidate becomes champion, and why or why not, in a sentence."""

    promoted: bool
    reason: str


def decide(evidence: Evidence, settings: PromotionConfig) -> Decision:
    """Decide by the rule of `settings.gate`."""
    if settings.gate == "none":
        return Decision(True, "without a gate, the best run by validation is champion")
    unmet = unmet_requirements(evidence.candidate, settings)
    if evidence.champion is None:
        but = f", though {' and '.join(unmet)}" if unmet else ""
        return Decision(True, f"there was no champion{but}")
    if unmet:
        return Decision(False, " and ".join(unmet))
    grounds = _grounds(evidence, settings)
    paired = evidence.paired
    if paired is None:
        if evidence.reason:
            return Decision(True, f"not compared with the champion; {grounds[-1]}")
        return Decision(
            False, "no validation examples to compare them on: a person may give a --reason"
        )
    if 100 * paired.low <= settings.margin:
        return Decision(
            False,
            f"the difference may be as low as {100 * paired.low:+.2f} points, and promotion.margin "
            f"requires more than {settings.margin:+g}",
        )
    if not grounds:
        timed = _same_machine(evidence.candidate, evidence.champion)
        known = "" if timed else " (they were timed on different machines)"
        return Decision(
            False,
            "no worse, but no reason to change: neither significantly better (adjusted "
            f"p = {adjusted(evidence):.2g}) nor {settings.cheaper:g} % cheaper to run{known}",
        )
    return Decision(True, "; ".join(grounds))


def unmet_requirements(candidate: Mapping[str, float], settings: PromotionConfig) -> list[str]:
    """The requirements that a candidate does not meet, one sentence each."""
    required = settings.requirements
    least = {"accuracy": required.accuracy, "worst_class_recall": required.worst_class_recall}
    most = {
        "calibration_error": (required.calibration_error, 1),
        "microseconds_batch_1": (required.microseconds, 1),
        "model_bytes": (required.megabytes, 1e6),
    }
    return [
        f"its {_name(key)} of {candidate[key]:.4g} is below the minimum of {minimum:g}"
        for key, minimum in least.items()
        if minimum is not None and candidate[key] < minimum
    ] + [
        f"its {_name(key)} of {candidate[key] / unit:.4g} is above the maximum of {maximum:g}"
        for key, (maximum, unit) in most.items()
        if maximum is not None and candidate[key] / unit > maximum
    ]


def adjusted(evidence: Evidence) -> float:
    """The p-value, adjusted by Bonferroni's method for the runs that the candidate is best of."""
    assert evidence.paired is not None
    return min(1.0, evidence.paired.p_value * evidence.chosen_from)


def is_cheaper(candidate: Mapping[str, Any], champion: Mapping[str, Any], percent: float) -> bool:
    """Whether a prediction takes that much less time, one at a time and in batches.

    Never with the same number of parameters: a retrained model that is measured faster was only
    measured at a better moment. Nor where the two were timed on different machines.
    """
    if candidate["parameters"] == champion["parameters"] or not _same_machine(candidate, champion):
        return False
    return all(candidate[key] <= (1 - percent / 100) * champion[key] for key in TIMES)


def _same_machine(candidate: Mapping[str, Any], champion: Mapping[str, Any]) -> bool:
    """Whether both are known to have been timed on the same kind of machine."""
    return bool(candidate["machine"] == champion.get("machine"))


def _grounds(evidence: Evidence, settings: PromotionConfig) -> list[str]:
    """The reasons to change the champion, a person's last."""
    assert evidence.champion is not None
    grounds = []
    paired = evidence.paired
    if paired and paired.difference > 0 and adjusted(evidence) < SIGNIFICANCE:
        grounds.append(f"significantly better (adjusted p = {adjusted(evidence):.2g})")
    if is_cheaper(evidence.candidate, evidence.champion, settings.cheaper):
        grounds.append(f"at least {settings.cheaper:g} % cheaper to run")
    if evidence.reason:
        grounds.append(f"a person's reason: {evidence.reason}")
    return grounds


def _name(key: str) -> str:
    named = {"microseconds_batch_1": "µs for an image", "model_bytes": "size in MB"}
    return named.get(key, key.replace("_", " "))
