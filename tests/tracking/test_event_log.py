"""The event log of a run, on disk."""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from image_classification.core.errors import UserError
from image_classification.tracking import event_log
from image_classification.tracking.event_log import EventLog


def begun(path: Path) -> EventLog:
    file = EventLog(path)
    file.append("run", key="a", experiment="mine", tags={"seed": "0", "x": "1"})
    file.append("metrics", values={"loss": 1.5}, step=0, time=12, of_model=False)
    return file


def test_events_are_read_as_they_were_appended(tmp_path: Path) -> None:
    file = begun(tmp_path / "events.jsonl")
    file.append("end", status="KILLED", time=14)
    file.close()

    found = event_log.read(tmp_path / "events.jsonl")
    assert [event["type"] for event in found] == ["run", "metrics", "end"]
    assert found == file.all
    assert found[1]["values"] == {"loss": 1.5}


def test_a_clock_that_is_set_back_puts_nothing_before_what_has_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, days = tmp_path / "events.jsonl", 86_400_000
    log = EventLog(path)
    log.append("run", key="a", experiment="mine", tags={}, start=event_log.now())
    log.append("metrics", **event_log.metrics({"loss": 1.5}, step=0, at=event_log.now()))
    log.close()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3 * days * 1_000_000)

    resumed = EventLog(path)
    resumed.append("metrics", **event_log.metrics({"loss": 0.5}, step=1, at=event_log.now()))
    end = event_log.now(resumed.all)
    resumed.append("end", status="KILLED", time=event_log.now())
    resumed.close()

    start, *others = event_log.read(path)
    times = [start["start"], *(event["time"] for event in others)]
    assert times == sorted(times)
    assert end == times[-1]


@pytest.mark.parametrize("kept", [1, 10, 30])
def test_a_line_that_a_kill_cut_short_does_not_count(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "events.jsonl"
    begun(path).close()
    whole = path.read_bytes()
    torn = json.dumps({"type": "metrics", "values": {"loss": 0.5}, "step": 1, "time": 13})
    path.write_bytes(whole + torn.encode()[:kept])

    assert len(event_log.read(path)) == 2
    again = EventLog(path)
    again.append("end", status="FINISHED", time=15)
    again.close()
    assert [event["type"] for event in event_log.read(path)] == ["run", "metrics", "end"]


@pytest.mark.parametrize(
    "text",
    [
        "no JSON\n",
        "[]\n",
        '{"type": "run"}\n',
        '{"type": "unheard of"}\n',
        '{"type": "end", "status": "FINISHED", "time": 1}\n',
        '{"type": "run", "key": "a", "experiment": "mine", "start": "now"}\n',
    ],
)
def test_what_is_no_event_log_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "events.jsonl").write_text(text)

    with pytest.raises(UserError, match="is not an event log"):
        event_log.read(tmp_path / "events.jsonl")


def test_a_damaged_event_log_of_a_live_run_is_quarantined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("damaged\nlog\n")

    file = begun(path)
    file.close()

    assert len(event_log.read(path)) == 2
    assert "a new run begins" in capsys.readouterr().err
    (quarantined,) = tmp_path.glob("quarantined-*")
    assert quarantined.read_text() == "damaged\nlog\n"


def test_an_event_that_does_not_fit_on_the_disk_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    file = begun(path)
    before = path.read_bytes()
    real = file._file

    class FullDisk:
        def write(self, line: bytes) -> int:
            return real.write(line[:7])

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    with monkeypatch.context() as full:
        full.setattr(file, "_file", FullDisk())
        with pytest.raises(UserError, match="can't be written: No space left on device"):
            file.append("end", status="FINISHED", time=15)
    assert path.read_bytes() == before
    file.append("end", status="FINISHED", time=16)

    assert [event["type"] for event in event_log.read(path)] == ["run", "metrics", "end"]


def test_a_full_disk_after_a_line_that_was_cut_short_leaves_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    begun(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"type": "metrics", "val')
    file = EventLog(path)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        with pytest.raises(UserError, match="No space left"):
            file.append("end", status="FINISHED", time=15)

    assert path.read_bytes() == whole
