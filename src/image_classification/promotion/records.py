"""The records of decisions: one append-only file per registered model, a JSON object per line.

They are the single source of truth for who is champion; MLflow's alias, tags and texts are a view.
"""

import errno
import getpass
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.core.files import sync_to_disk
from image_classification.core.locks import locked

PROMOTED, REFUSED, ROLLED_BACK = "promoted", "refused", "rolled back"
MAKES_CHAMPION = (PROMOTED, ROLLED_BACK)
LARGEST = 2**28  # bytes of a file
LONGEST_REASON = 500  # characters
NUMBERS = (  # of each run that is judged
    *("accuracy", "worst_class_recall", "calibration_error"),
    *("parameters", "model_bytes", "microseconds_batch_1", "microseconds_batch_256"),
)
PAIRED = ("examples", "candidate", "champion", "difference", "low", "high", "p_value")


@dataclass(frozen=True)
class JudgedRun:
    """A run whose model a decision is about.

    run: its name, such as cnn-0, and model, such as cnn.
    key: of the run's event log.
    version: in MLflow's registry; None where MLflow could not be asked.
    sha256: of model.keras, and weights_sha256 of the weights in it, which MLflow's copy has too.
    data: DVC's hash of the split that it was trained on.
    split: the settings that gave it its validation examples: seed, split_per_seed, folds.
    """

    run: str
    model: str
    key: str
    version: int | None
    sha256: str
    weights_sha256: str
    data: str
    split: dict[str, Any]


@dataclass(frozen=True)
class Validation:
    """The examples that a decision rests on.

    sha256, examples: of the validation examples of the run that was judged, and their number.
    judged_sha256, judged: of those that both were compared on; None and 0 without a comparison.
    times: how many candidates they have judged, this one included.
    answers: the run's predictions for its validation examples, packed (see evidence).
    """

    sha256: str
    examples: int
    judged_sha256: str | None
    judged: int
    times: int
    answers: str


@dataclass(frozen=True)
class Record:
    """A decision.

    time: ISO 8601, UTC.
    who: the user's name on the machine, and command, what was called.
    decision: PROMOTED, REFUSED or ROLLED_BACK.
    to: the run that was judged, or rolled back to; from_: the champion until then.
    reason: a sentence.
    numbers: `to` and `from`, what was measured of each; `paired`, their difference; `settings`.
    """

    time: str
    who: str
    command: str
    decision: str
    to: JudgedRun
    from_: JudgedRun | None
    reason: str
    numbers: dict[str, Any]
    validation: Validation | None = field(default=None)


def now() -> str:
    """The time of a record, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def who() -> str:
    """The user's name on this machine."""
    with suppress(OSError, KeyError, ImportError):  # a container's user may have no name
        return getpass.getuser()
    return "unknown"


@contextmanager
def locked_for_decision() -> Iterator[None]:
    """Keep other processes from deciding on what is read in the block."""
    with locked(paths.home() / paths.OUTBOX / "promotions.lock", "is deciding on the champion"):
        yield


def one_line(reason: str | None) -> str | None:
    """A person's reason as a record takes it; None for an empty one."""
    words = (reason or "").encode(errors="replace").decode().split()
    return " ".join(words)[:LONGEST_REASON] or None


def champion(records: Sequence[Record]) -> Record | None:
    """The last record that made a champion."""
    return next((one for one in reversed(records) if one.decision in MAKES_CHAMPION), None)


def names() -> list[str]:
    """The registered models that have records."""
    return sorted(path.stem for path in paths.PROMOTIONS.glob("*.jsonl"))


def file_of(name: str) -> Path:
    """The file of a registered model's records."""
    return paths.PROMOTIONS / f"{name}.jsonl"


def read(name: str) -> list[Record]:
    """The records of a registered model, oldest first; none without a file.

    A last line that a kill cut short does not count.

    Raises:
        UserError: a line is not a record; names it.
    """
    path = file_of(name)
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST} bytes: {_hint(path)}")
        whole, _, _ = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        try:
            found.append(_record(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            cause = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path}, line {number}: not a record of a decision ({cause}): {_hint(path)}"
            ) from error
    return found


def append(name: str, record: Record) -> None:
    """Add a record, which then survives a loss of power; what a kill left of a line is cut off.

    Raises:
        UserError: the file can't be written.
    """
    path = file_of(name)
    values = asdict(record)
    values["from"] = values.pop("from_")
    line = json.dumps(values).encode() + b"\n"
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("a+b", buffering=0) as stream:
            stream.seek(0)
            end = stream.truncate(stream.read().rfind(b"\n") + 1)
            if stream.write(line) != len(line):
                stream.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(stream.fileno())
        sync_to_disk(path.parent)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror or error}") from error


def _hint(path: Path) -> str:
    return f"restore it: `git checkout {path}`"


def _record(values: dict[str, Any]) -> Record:
    texts = ("time", "who", "command", "decision", "reason")
    for name in texts:
        _require(values[name], str, name)
    _require(values["numbers"], dict, "numbers")
    if values["decision"] not in (*MAKES_CHAMPION, REFUSED):
        raise ValueError(f"decision is {values['decision']!r:.50}")
    _require_numbers(values["numbers"]["to"], NUMBERS)
    if (paired := values["numbers"].get("paired")) is not None:
        _require_numbers(paired, PAIRED)
        _require(paired["metric"], str, "metric")
    before, validation = values["from"], values["validation"]
    return Record(
        **{name: values[name] for name in texts},
        to=_judged(values["to"]),
        from_=None if before is None else _judged(before),
        numbers=values["numbers"],
        validation=None if validation is None else _validation(validation),
    )


def _judged(values: dict[str, Any]) -> JudgedRun:
    found = JudgedRun(**values)
    for name in ("run", "model", "key", "sha256", "weights_sha256", "data"):
        _require(getattr(found, name), str, name)
    if found.version is not None:
        _require(found.version, int, "version")
    _require(found.split["seed"], int, "split.seed")
    _require(found.split["split_per_seed"], bool, "split.split_per_seed")
    if found.split["folds"] is not None:
        _require(found.split["folds"], int, "split.folds")
    return found


def _validation(values: dict[str, Any]) -> Validation:
    found = Validation(**values)
    for name in ("sha256", "answers"):
        _require(getattr(found, name), str, name)
    for name in ("examples", "judged", "times"):
        _require(getattr(found, name), int, name)
    return found


def _require_numbers(values: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        _require(values[name], (int, float), name)


def _require(value: object, kind: type | tuple[type, ...], name: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r:.50}")
