"""From a candidate to a record: gather the evidence, let the gate decide, keep the decision."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification.core.config import Config
from image_classification.core.errors import UserError
from image_classification.promotion import evidence, gate, paired, records
from image_classification.promotion.candidates import Candidate
from image_classification.promotion.evidence import EvaluatedRun, ValidationSet
from image_classification.promotion.gate import Decision, Evidence
from image_classification.promotion.paired import PairedComparison
from image_classification.promotion.records import JudgedRun, Record, Validation

# A run's model on these examples; may raise UserError.
Measure = Callable[[JudgedRun, ValidationSet], EvaluatedRun]
ALREADY_CHAMPION, REPEATED, UNMEASURED = "already champion", "repeated", "unmeasured"


@dataclass(frozen=True)
class PromotionRequest:
    """The request to make a run champion.

    version: of the candidate in MLflow's registry, if that is known.
    chosen_from: how many runs it is the best of.
    reason: a person's; None without one.
    command: that makes the request.
    """

    candidate: Candidate
    version: int | None
    chosen_from: int
    reason: str | None
    command: str


@dataclass(frozen=True)
class Outcome:
    """What came of a request.

    decision: of records.Record; or ALREADY_CHAMPION; REPEATED: the same request was
        refused before; UNMEASURED: the champion has to be measured on other examples first.
    record: that was made; None for ALREADY_CHAMPION and UNMEASURED, the earlier one for REPEATED.
    """

    decision: str
    record: Record | None


@dataclass(frozen=True)
class SharedExamples:
    """Both runs on the examples that neither has trained on.

    note: what weakens the comparison, if anything.
    """

    rows: NDArray[np.integer]
    sha256: str
    champion: NDArray[np.integer]
    numbers: dict[str, Any]
    note: str = ""


def decide(
    request: PromotionRequest, config: Config, measure: Measure | None = None, dry_run: bool = False
) -> Outcome:
    """Decide, and append the record of it.

    Args:
        request: about the candidate.
        config: of the project.
        measure: measures a champion on examples that it was not judged on before; without it such
            a request stays UNMEASURED.
        dry_run: decide only.

    Raises:
        UserError: a file is missing or damaged; or can't be written.
    """
    name = config.data.dataset
    with records.locked_for_decision():
        known = records.read(name)
        champion_record = records.champion(known)
        if champion_record and champion_record.to.key == request.candidate.key:
            return Outcome(ALREADY_CHAMPION, None)
        evaluated = evidence.of_run(request.candidate, config.data, request.version)
        if earlier := _refused_before(request, config, evaluated, known):
            return Outcome(REPEATED, earlier)
        shared = None
        if champion_record and config.promotion.gate != "none":
            shared = _shared_examples(evaluated, champion_record, config, measure, request.reason)
            if shared is None:
                return Outcome(UNMEASURED, None)
        outcome = _judge(request, config, evaluated, champion_record, shared, known)
        if outcome.record and not dry_run:
            records.append(name, outcome.record)
    return outcome


def _refused_before(
    request: PromotionRequest, config: Config, evaluated: EvaluatedRun, known: Sequence[Record]
) -> Record | None:
    """The record since the last change of the champion that refused the same request."""
    for record in reversed(known):
        if record.decision in records.MAKES_CHAMPION:
            return None
        same = record.to.key == evaluated.judged.key and record.validation is not None
        if (
            same
            and record.validation is not None
            and record.validation.sha256 == evaluated.validation_set.sha256
            and record.numbers.get("settings") == _settings(request, config)
        ):
            return record
    return None


def _settings(request: PromotionRequest, config: Config) -> dict[str, object]:
    return {
        **asdict(config.promotion),
        "metric": config.compare.metric,
        "chosen_from": request.chosen_from,
        "reason": request.reason,
    }


def _shared_examples(
    evaluated: EvaluatedRun,
    champion_record: Record,
    config: Config,
    measure: Measure | None,
    reason: str | None,
) -> SharedExamples | None:
    """The champion on examples that the candidate holds out; None if it has to be measured."""
    numbers = champion_record.numbers.get("to") or {}
    validation = champion_record.validation
    if validation and validation.sha256 == evaluated.validation_set.sha256:
        rows = np.arange(len(evaluated.predicted))
        answers = evidence.unpack(evaluated.validation_set, validation)
        return SharedExamples(rows, evaluated.validation_set.sha256, answers, numbers)
    if validation and champion_record.to.data == evaluated.judged.data:
        validation_set = evidence.load_validation_set(config.data, champion_record.to.split)
        if validation_set.sha256 == validation.sha256:
            return _intersection(
                evaluated, validation_set, evidence.unpack(validation_set, validation), numbers
            )
    if measure is None:
        return None
    rows = np.arange(len(evaluated.predicted))
    try:
        measured = measure(champion_record.to, evaluated.validation_set)
    except UserError as error:
        if not reason:
            raise UserError(f"the champion can't be measured: {error}") from error
        return SharedExamples(
            rows[:0], "", rows[:0], numbers, f"the champion can't be measured: {error}"
        )
    note = (
        "another data set or split than the champion's: both were measured on the new validation "
        "examples, of which the champion may have trained on some, which favours it"
    )
    return SharedExamples(
        rows, evaluated.validation_set.sha256, measured.predicted, measured.numbers, note
    )


def _intersection(
    evaluated: EvaluatedRun,
    validation_set: ValidationSet,
    answers: NDArray[np.integer],
    numbers: dict[str, Any],
) -> SharedExamples:
    digests, rows, others = np.intersect1d(
        evaluated.validation_set.digests, validation_set.digests, return_indices=True
    )
    note = (
        f"each holds out different examples: compared on the {len(rows)} of "
        f"{len(evaluated.predicted)} that neither has trained on"
    )
    return SharedExamples(rows, evidence.hash_of(digests), answers[others], numbers, note)


def _judge(
    request: PromotionRequest,
    config: Config,
    evaluated: EvaluatedRun,
    champion_record: Record | None,
    shared: SharedExamples | None,
    known: Sequence[Record],
) -> Outcome:
    compared = _compare(evaluated, shared, config.compare.metric)
    champion = champion_record.numbers.get("to") if champion_record else None
    shown = Evidence(
        candidate=evaluated.numbers,
        champion=shared.numbers if shared else champion,
        paired=compared,
        chosen_from=request.chosen_from,
        reason=request.reason,
    )
    decision = gate.decide(shown, config.promotion)
    record = Record(
        time=records.now(),
        who=records.who(),
        command=request.command,
        decision=records.PROMOTED if decision.promoted else records.REFUSED,
        to=evaluated.judged,
        from_=champion_record.to if champion_record else None,
        reason=_reason(decision, shared),
        numbers={
            "to": evaluated.numbers,
            "from": shown.champion,
            "paired": asdict(compared) if compared else None,
            "settings": _settings(request, config),
        },
        validation=_validation(evaluated, shared if compared else None, known),
    )
    return Outcome(record.decision, record)


def _reason(decision: Decision, shared: SharedExamples | None) -> str:
    return f"{decision.reason} ({shared.note})" if shared and shared.note else decision.reason


def _compare(
    evaluated: EvaluatedRun, shared: SharedExamples | None, metric: str
) -> PairedComparison | None:
    if shared is None or len(shared.rows) < paired.FEWEST_EXAMPLES:
        return None
    labels = np.asarray(evaluated.validation_set.examples.labels)[shared.rows]
    return paired.compare(metric, labels, evaluated.predicted[shared.rows], shared.champion)


def _validation(
    evaluated: EvaluatedRun, shared: SharedExamples | None, known: Sequence[Record]
) -> Validation:
    judged = shared.sha256 if shared else None
    before = [one for one in known if one.validation and one.validation.judged_sha256 == judged]
    return Validation(
        sha256=evaluated.validation_set.sha256,
        examples=len(evaluated.predicted),
        judged_sha256=judged,
        judged=len(shared.rows) if shared else 0,
        times=len({one.to.key for one in before} | {evaluated.judged.key}) if shared else 0,
        answers=evidence.pack(evaluated.validation_set, evaluated.predicted),
    )
