"""The records of decisions on disk."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from image_classification.core.errors import UserError
from image_classification.promotion import decision_text, records, registry_state
from image_classification.promotion.records import JudgedRun, Record, Validation


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def judged(run: str, version: int | None = 1) -> JudgedRun:
    split = {"seed": 0, "split_per_seed": False, "folds": None}
    return JudgedRun(run, run[:-2], f"key of {run}", version, "a" * 64, "b" * 64, "c.dir", split)


def record(decision: str, to: str, before: str | None, **fields: Any) -> Record:
    paired = {
        "metric": "accuracy",
        "examples": 12_000,
        "candidate": 0.99,
        "champion": 0.985,
        "difference": 0.005,
        "low": 0.003,
        "high": 0.007,
        "p_value": 0.001,
    }
    return Record(
        time="2026-01-02T03:04:05+00:00",
        who="ann",
        command="promote",
        decision=decision,
        to=judged(to),
        from_=judged(before) if before else None,
        reason="for a reason",
        numbers={"to": dict.fromkeys(records.NUMBERS, 0.5), "paired": paired if before else None},
        validation=Validation("d" * 64, 12_000, "d" * 64, 12_000, 3, "eJw="),
        **fields,
    )


FIRST = record(records.PROMOTED, "nn-0", None)
SECOND = record(records.PROMOTED, "cnn-0", "nn-0")
THIRD = record(records.REFUSED, "dcnn-0", "cnn-0")


def test_what_is_appended_is_read_again_and_nothing_before_it_changes() -> None:
    before = b""
    for one in (FIRST, SECOND, THIRD):
        records.append("mnist", one)
        after = Path("promotions/mnist.jsonl").read_bytes()
        assert after.startswith(before)
        before = after

    assert records.read("mnist") == [FIRST, SECOND, THIRD]
    assert records.names() == ["mnist"]
    line = json.loads(before.splitlines()[1])
    assert (line["from"]["run"], line["to"]["run"]) == ("nn-0", "cnn-0")


def test_the_champion_is_the_last_that_was_promoted_or_rolled_back_to() -> None:
    back = record(records.ROLLED_BACK, "nn-0", "cnn-0")

    assert records.champion([]) is None
    assert records.champion([THIRD]) is None
    assert records.champion([FIRST, SECOND, THIRD]) == SECOND
    assert records.champion([FIRST, SECOND, back, THIRD]) == back


def test_there_are_no_records_without_a_file() -> None:
    assert records.read("mnist") == []
    assert records.names() == []


def test_what_a_kill_left_of_a_line_does_not_count_and_goes_with_the_next_record() -> None:
    records.append("mnist", FIRST)
    path = Path("promotions/mnist.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])

    assert records.read("mnist") == [FIRST]
    records.append("mnist", SECOND)
    assert records.read("mnist") == [FIRST, SECOND]


def change(**values: object) -> bytes:
    records.append("other", FIRST)
    line = json.loads(Path("promotions/other.jsonl").read_text())
    return json.dumps({**line, **values}).encode()


@pytest.mark.parametrize(
    "values",
    [
        {"decision": "crowned"},
        {"to": None},
        {"to": {"run": "nn-0"}},
        {"reason": 3},
        {"numbers": []},
        {"numbers": {"to": {"accuracy": 0.9}}},
        {"numbers": {"to": dict.fromkeys(records.NUMBERS, 1), "paired": {"low": "x"}}},
        {"validation": {"sha256": 1}},
    ],
)
def test_a_damaged_line_is_named(values: dict[str, object]) -> None:
    records.append("mnist", FIRST)
    with Path("promotions/mnist.jsonl").open("ab") as stream:
        stream.write(change(**values) + b"\n")

    with pytest.raises(UserError, match=r"^promotions/mnist.jsonl, line 2: not a record of a deci"):
        records.read("mnist")


@pytest.mark.parametrize("contents", [b"\xff\n", b"[]\n", b"{}\n", b"[" * 9999 + b"\n", b"\n\n"])
def test_what_is_no_record_at_all_is_one_line(contents: bytes) -> None:
    Path("promotions").mkdir()
    Path("promotions/mnist.jsonl").write_bytes(contents)

    with pytest.raises(UserError, match="line 1: not a record"):
        records.read("mnist")


def test_a_reason_is_one_line_of_characters_that_can_be_stored() -> None:
    assert records.one_line(" too\nslow\udcff ") == "too slow?"
    assert records.one_line(" \n") is None
    assert records.one_line(None) is None
    assert len(records.one_line("x" * 9999) or "") == records.LONGEST_REASON


def test_a_record_that_cannot_be_written_is_one_line() -> None:
    Path("promotions").write_text("a file where the folder should be")

    with pytest.raises(UserError, match=r"^promotions/mnist.jsonl can't be written: "):
        records.append("mnist", FIRST)


def test_the_records_are_read_without_the_libraries_of_a_stage() -> None:
    """A server reads them, which must start in a moment."""
    code = (
        "import sys\nfrom image_classification.promotion import records\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"tensorflow", "keras", "mlflow", "pandas"} & set(done.stdout.split())


def test_history_marks_the_champion_and_says_how_often_the_examples_have_judged() -> None:
    lines = decision_text.history([FIRST, SECOND, THIRD]).splitlines()

    assert [line[:4] for line in lines[:3]] == ["  1 ", "  2*", "  3 "]
    assert "promoted: cnn-0 (version 1) is champion instead of nn-0 (version 1)" in lines[1]
    assert "+0.50 points, 95 % interval 0.30 to 0.70, p = 0.001" in lines[1]
    assert "refused: dcnn-0 (version 1) does not replace the champion cnn-0" in lines[2]
    assert "were used to judge 3 candidates" in lines[3]


def test_mlflow_is_told_the_last_decision_about_each_version_and_all_in_its_text() -> None:
    back = replace(record(records.ROLLED_BACK, "nn-0", "cnn-0"), numbers={"paired": None})

    state = registry_state.of_records([FIRST, SECOND, THIRD, back])

    assert state.champion == "key of nn-0"
    assert state.tags["key of nn-0"]["promotion.decision"] == "rolled back"
    assert state.tags["key of nn-0"]["promotion.number"] == "4"
    assert state.tags["key of cnn-0"]["promotion.interval"] == "0.30 to 0.70 points"
    assert state.tags["key of dcnn-0"]["promotion.decision"] == "refused"
    assert state.texts["key of cnn-0"].count("\n") == 2  # promoted, defended, rolled back from
    assert registry_state.of_records([]).champion is None


def test_each_decision_sets_all_tags_so_that_none_of_an_earlier_one_has_to_be_deleted() -> None:
    """A team's server may let only the creator of a version delete its tags."""
    bare = replace(SECOND, numbers={"paired": None}, validation=None)

    (before,) = registry_state.of_records([SECOND]).tags.values()
    (after,) = registry_state.of_records([bare]).tags.values()

    assert before.keys() == after.keys()
    names = ("promotion.difference", "promotion.interval", "promotion.validation")
    assert [after[name] for name in names] == ["none"] * 3
