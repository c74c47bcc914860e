"""Decisions in sentences, for people."""

from collections.abc import Sequence
from typing import Any

from image_classification.promotion import records
from image_classification.promotion.decisions import ALREADY_CHAMPION, REPEATED, UNMEASURED, Outcome
from image_classification.promotion.records import JudgedRun, Record


def outcome(found: Outcome, name: str) -> str:
    """What came of a request about a candidate, in one line."""
    if found.decision == ALREADY_CHAMPION:
        return f"{name} is already champion"
    if found.decision == UNMEASURED:
        return f"{name}: the champion was judged on other validation examples, and is measured now"
    assert found.record is not None
    said = sentence(found.record)
    return f"{said}; decided before, on {found.record.time}" if found.decision == REPEATED else said


def sentence(record: Record) -> str:
    """A decision in one line."""
    to, before = title(record.to), title(record.from_) if record.from_ else None
    if record.decision == records.REFUSED:
        said = f"refused: {to} does not replace the champion {before}: {record.reason}"
    elif record.decision == records.ROLLED_BACK:
        return f"rolled back: {to} is champion again instead of {before}: {record.reason}"
    else:
        said = f"promoted: {to} is champion{f' instead of {before}' if before else ''}"
        said += f": {record.reason}"
    return "; ".join([said, *_numbers(record)])


def title(judged: JudgedRun) -> str:
    """A run's name, with its version if that is known."""
    return judged.run if judged.version is None else f"{judged.run} (version {judged.version})"


def history(known: Sequence[Record]) -> str:
    """All decisions, a line each, and how many candidates the latest validation examples judged."""
    champion_record = records.champion(known)
    lines = [
        f"{number:>3}{'*' if record is champion_record else ' '} {record.time}  {record.who} by "
        f"{record.command}  {sentence(record)}"
        for number, record in enumerate(known, start=1)
    ]
    validations = [
        one.validation for one in known if one.validation and one.validation.judged_sha256
    ]
    if validations:
        last = validations[-1]
        lines.append(
            f"The validation examples {str(last.judged_sha256)[:12]} ({last.judged:,}) were used "
            f"to judge {_times(last.times)}; the more they judge, the likelier it is that one "
            "passed by luck."
        )
    return "\n".join(lines)


def _numbers(record: Record) -> list[str]:
    paired: dict[str, Any] | None = record.numbers.get("paired")
    if not paired or record.validation is None:
        return []
    difference, low, high = (100 * paired[key] for key in ("difference", "low", "high"))
    return [
        f"{paired['metric'].replace('_', ' ')} on {paired['examples']:,} validation examples "
        f"{difference:+.2f} points, 95 % interval {low:.2f} to {high:.2f}, "
        f"p = {paired['p_value']:.2g}",
        f"these examples were used to judge {_times(record.validation.times)}",
    ]


def _times(count: int) -> str:
    return f"{count} candidate{'s' if count != 1 else ''}"
