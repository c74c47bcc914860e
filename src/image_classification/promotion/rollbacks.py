"""Rollback: an earlier champion becomes champion again, bypassing the gate."""

from collections.abc import Sequence
from dataclasses import replace

from image_classification.core.errors import UserError
from image_classification.promotion import records
from image_classification.promotion.records import Record


def roll_back(name: str, number: int | None, reason: str | None) -> Record:
    """Make an earlier champion champion again, and append the record of it.

    Args:
        name: of the registered model.
        number: of the record that made it champion, as `history` counts; None for the one before.
        reason: a person's; None without one.

    Raises:
        UserError: there is no such champion, or it is champion now; or the file can't be written.
    """
    with records.locked_for_decision():
        known = records.read(name)
        champion_record = records.champion(known)
        if champion_record is None:
            raise UserError(f"{records.file_of(name)} names no champion: `dvc repro` makes one")
        earlier = _earlier(known, champion_record, number)
        validation = earlier.validation
        record = Record(
            time=records.now(),
            who=records.who(),
            command="rollback",
            decision=records.ROLLED_BACK,
            to=earlier.to,
            from_=champion_record.to,
            reason=f"a person's reason: {reason}" if reason else "no reason given",
            numbers={**earlier.numbers, "from": champion_record.numbers.get("to"), "paired": None},
            validation=validation and replace(validation, judged_sha256=None, judged=0, times=0),
        )
        records.append(name, record)
    return record


def _earlier(known: Sequence[Record], champion_record: Record, number: int | None) -> Record:
    numbered = {
        place: record
        for place, record in enumerate(known, start=1)
        if record.decision in records.MAKES_CHAMPION and record.to.key != champion_record.to.key
    }
    if not numbered:
        raise UserError(
            f"{champion_record.to.run} is the only champion so far: nothing to roll back to"
        )
    if number is None:
        # The one that the standing champion replaced, also after a rollback.
        replaced = champion_record.from_.key if champion_record.from_ else ""
        return next(
            (record for record in reversed(numbered.values()) if record.to.key == replaced),
            next(reversed(numbered.values())),
        )
    if number not in numbered:
        choices = ", ".join(map(str, numbered))
        raise UserError(
            f"{number}: not the record of an earlier champion; `image-classification history` "
            f"shows those: {choices}"
        )
    return numbered[number]
