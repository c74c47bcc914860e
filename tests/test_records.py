"""What runs tell of themselves, on disk."""

import json
from pathlib import Path

import pytest

from image_classification import records
from image_classification.errors import UserError
from image_classification.records import Records


def begun(path: Path) -> Records:
    file = Records(path)
    file.append("run", key="a", experiment="mine", tags={"seed": "0", "x": "1"})
    file.append("metrics", values={"loss": 1.5}, step=0, time=12, of_model=False)
    return file


def test_records_are_read_as_they_were_told(tmp_path: Path) -> None:
    file = begun(tmp_path / "records.jsonl")
    file.append("end", status="KILLED", time=14)
    file.close()

    found = records.read(tmp_path / "records.jsonl")
    assert [record["type"] for record in found] == ["run", "metrics", "end"]
    assert found == file.all
    assert found[1]["values"] == {"loss": 1.5}


@pytest.mark.parametrize("kept", [1, 10, 30])
def test_a_line_that_a_kill_cut_short_does_not_count(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "records.jsonl"
    begun(path).close()
    whole = path.read_bytes()
    torn = json.dumps({"type": "metrics", "values": {"loss": 0.5}, "step": 1, "time": 13})
    path.write_bytes(whole + torn.encode()[:kept])

    assert len(records.read(path)) == 2
    again = Records(path)
    again.append("end", status="FINISHED", time=15)
    again.close()
    assert [record["type"] for record in records.read(path)] == ["run", "metrics", "end"]


@pytest.mark.parametrize(
    "text",
    [
        "no JSON\n",
        "[]\n",
        '{"type": "run"}\n',
        '{"type": "unheard of"}\n',
        '{"type": "end", "status": "FINISHED", "time": 1}\n',
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "records.jsonl").write_text(text)

    with pytest.raises(UserError, match="holds no records of a run"):
        records.read(tmp_path / "records.jsonl")


def test_damaged_records_of_a_live_run_are_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("damaged\nrecords\n")

    file = begun(path)
    file.close()

    assert len(records.read(path)) == 2
    assert "a new run begins" in capsys.readouterr().err
    (aside,) = tmp_path.glob("set-aside-*")
    assert aside.read_text() == "damaged\nrecords\n"


def test_a_record_that_does_not_fit_on_the_disk_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl"
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

    assert [record["type"] for record in records.read(path)] == ["run", "metrics", "end"]


def test_later_tags_count(tmp_path: Path) -> None:
    file = begun(tmp_path / "records.jsonl")
    file.append("tags", values={"precision": "float32"})
    file.append("resume", tags={"x": "2"})
    file.close()

    assert records.tags(file.all) == {"seed": "0", "x": "2", "precision": "float32"}
