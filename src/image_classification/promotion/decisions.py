"""From a candidate to a record: gather the evidence, let the gate decide, keep the decision."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from image_classification.core.config import Config
from image_classification.core.errors import UserError
from image_classification.promotion import evidence, gate, paired, records
from image_classification.promotion.candidates import Candidate
from image_classification.promotion.evidence import Held, Side
from image_classification.promotion.gate import Decision, Evidence
from image_classification.promotion.paired import Paired
from image_classification.promotion.records import Judged, Record, Validation

Measure = Callable[[Judged, Held], Side]  # a run's model on these examples; may raise UserError
STANDS, REPEATED, UNMEASURED = "stands", "repeated", "unmeasured"


@dataclass(frozen=True)
class Question:
    """Whether a run should become champion.

    version: of the candidate in MLflow's registry, if that is known.
    chosen_from: how many runs it is the best of.
    reason: a person's; None without one.
    command: that asks.
    """

    candidate: Candidate
    version: int | None
    chosen_from: int
    reason: str | None
    command: str


@dataclass(frozen=True)
class Outcome:
    """What came of a question.

    decision: of records.Record; or STANDS: it is champion already; REPEATED: the same question
        was refused before; UNMEASURED: the champion has to be measured on other examples first.
    record: that was made; None for STANDS and UNMEASURED, the earlier one for REPEATED.
    """

    decision: str
    record: Record | None


@dataclass(frozen=True)
class Common:
    """Both runs on the examples that neither has trained on.

    note: what weakens the comparison, if anything.
    """

    rows: NDArray[np.integer]
    sha256: str
    champion: NDArray[np.integer]
    numbers: dict[str, float]
    note: str = ""


def decide(
    question: Question, config: Config, measure: Measure | None = None, dry_run: bool = False
) -> Outcome:
    """Decide, and append the record of it.

    Args:
        question: about the candidate.
        config: of the project.
        measure: measures a champion on examples that it was not judged on before; without it such
            a question stays UNMEASURED.
        dry_run: decide only.

    Raises:
        UserError: a file is missing or damaged; or can't be written.
    """
    name = config.data.dataset
    with records.locked_for_decision():
        known = records.read(name)
        standing = records.champion(known)
        if standing and standing.to.key == question.candidate.key:
            return Outcome(STANDS, None)
        side = evidence.of_run(question.candidate, config.data, question.version)
        if earlier := _refused_before(question, config, side, known):
            return Outcome(REPEATED, earlier)
        common = None
        if standing and config.promotion.gate != "none":
            common = _common(side, standing, config, measure, question.reason)
            if common is None:
                return Outcome(UNMEASURED, None)
        outcome = _judge(question, config, side, standing, common, known)
        if outcome.record and not dry_run:
            records.append(name, outcome.record)
    return outcome


def _refused_before(
    question: Question, config: Config, side: Side, known: Sequence[Record]
) -> Record | None:
    """The record since the last change of the champion that refused the same question."""
    for record in reversed(known):
        if record.decision in records.MAKES_CHAMPION:
            return None
        same = record.to.key == side.judged.key and record.validation is not None
        if (
            same
            and record.validation is not None
            and record.validation.sha256 == side.held.sha256
            and record.numbers.get("settings") == _settings(question, config)
        ):
            return record
    return None


def _settings(question: Question, config: Config) -> dict[str, object]:
    return {
        **asdict(config.promotion),
        "metric": config.compare.metric,
        "chosen_from": question.chosen_from,
        "reason": question.reason,
    }


def _common(
    side: Side, standing: Record, config: Config, measure: Measure | None, reason: str | None
) -> Common | None:
    """The champion on examples that the candidate holds out; None if it has to be measured."""
    numbers = standing.numbers.get("to") or {}
    validation = standing.validation
    if validation and validation.sha256 == side.held.sha256:
        rows = np.arange(len(side.predicted))
        answers = evidence.unpack(side.held, validation)
        return Common(rows, side.held.sha256, answers, numbers)
    if validation and standing.to.data == side.judged.data:
        held = evidence.held_out(config.data, standing.to.split)
        if held.sha256 == validation.sha256:
            return _intersection(side, held, evidence.unpack(held, validation), numbers)
    if measure is None:
        return None
    rows = np.arange(len(side.predicted))
    try:
        measured = measure(standing.to, side.held)
    except UserError as error:
        if not reason:
            raise UserError(f"the champion can't be measured: {error}") from error
        return Common(rows[:0], "", rows[:0], numbers, f"the champion can't be measured: {error}")
    note = (
        "another data set than the champion's: both were measured on the new validation examples, "
        "of which the champion may have trained on some, which favours it"
    )
    return Common(rows, side.held.sha256, measured.predicted, measured.numbers, note)


def _intersection(
    side: Side, held: Held, answers: NDArray[np.integer], numbers: dict[str, float]
) -> Common:
    digests, rows, others = np.intersect1d(side.held.digests, held.digests, return_indices=True)
    note = (
        f"each holds out different examples: compared on the {len(rows)} of {len(side.predicted)} "
        "that neither has trained on"
    )
    return Common(rows, evidence.hash_of(digests), answers[others], numbers, note)


def _judge(
    question: Question,
    config: Config,
    side: Side,
    standing: Record | None,
    common: Common | None,
    known: Sequence[Record],
) -> Outcome:
    compared = _compare(side, common, config.compare.metric)
    champion = standing.numbers.get("to") if standing else None
    shown = Evidence(
        candidate=side.numbers,
        champion=common.numbers if common else champion,
        paired=compared,
        chosen_from=question.chosen_from,
        reason=question.reason,
    )
    decision = gate.decide(shown, config.promotion)
    record = Record(
        time=records.now(),
        who=records.who(),
        command=question.command,
        decision=records.PROMOTED if decision.promoted else records.REFUSED,
        to=side.judged,
        from_=standing.to if standing else None,
        reason=_reason(decision, common),
        numbers={
            "to": side.numbers,
            "from": shown.champion,
            "paired": asdict(compared) if compared else None,
            "settings": _settings(question, config),
        },
        validation=_validation(side, common if compared else None, known),
    )
    return Outcome(record.decision, record)


def _reason(decision: Decision, common: Common | None) -> str:
    return f"{decision.reason} ({common.note})" if common and common.note else decision.reason


def _compare(side: Side, common: Common | None, metric: str) -> Paired | None:
    if common is None or len(common.rows) < paired.FEWEST:
        return None
    labels = np.asarray(side.held.examples.labels)[common.rows]
    return paired.compare(metric, labels, side.predicted[common.rows], common.champion)


def _validation(side: Side, common: Common | None, known: Sequence[Record]) -> Validation:
    judged = common.sha256 if common else None
    before = [one for one in known if one.validation and one.validation.judged_sha256 == judged]
    return Validation(
        sha256=side.held.sha256,
        examples=len(side.predicted),
        judged_sha256=judged,
        judged=len(common.rows) if common else 0,
        times=len({one.to.key for one in before} | {side.judged.key}) if common else 0,
        answers=evidence.pack(side.held, side.predicted),
    )
