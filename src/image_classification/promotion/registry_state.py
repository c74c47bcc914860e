"""The records as MLflow shows them: tags and a text for each version that they are about."""

from collections.abc import Sequence
from dataclasses import dataclass

from image_classification.promotion import decision_text, records
from image_classification.promotion.records import Record

LONGEST = 1000  # characters of a tag
PREFIX = "promotion."


@dataclass(frozen=True)
class RegistryState:
    """What MLflow is to show; runs by their keys.

    champion: the run; None if there is none.
    tags: of the version of each run.
    texts: Markdown, the end of the description of each version.
    """

    champion: str | None
    tags: dict[str, dict[str, str]]
    texts: dict[str, str]


def of_records(known: Sequence[Record]) -> RegistryState:
    """What MLflow is to show of the records, which come oldest first."""
    champion_record = records.champion(known)
    tags: dict[str, dict[str, str]] = {}
    lines: dict[str, list[str]] = {}
    for number, record in enumerate(known, start=1):
        tags[record.to.key] = _tags(number, record)
        for judged in filter(None, (record.to, record.from_)):
            sentence = decision_text.sentence(record)
            line = f"- {record.time}, {record.who} by {record.command}: {sentence}"
            lines.setdefault(judged.key, []).append(line)
    texts = {key: "\n".join(found) for key, found in lines.items()}
    return RegistryState(champion_record.to.key if champion_record else None, tags, texts)


def _tags(number: int, record: Record) -> dict[str, str]:
    """Of the last decision about a run; all names, so that none is left of an earlier one."""
    values = {
        "number": str(number),
        "decision": record.decision,
        "time": record.time,
        "who": record.who,
        "reason": record.reason,
        "from": decision_text.title(record.from_) if record.from_ else "none",
        "sha256": record.to.sha256,
        "difference": "none",
        "interval": "none",
        "validation": record.validation.sha256[:12] if record.validation else "none",
    }
    paired = record.numbers.get("paired")
    if paired:
        values["difference"] = f"{100 * paired['difference']:+.2f} points"
        values["interval"] = f"{100 * paired['low']:.2f} to {100 * paired['high']:.2f} points"
    return {f"{PREFIX}{key}": value[:LONGEST] for key, value in values.items()}
