import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from image_classification.core.errors import UserError
from image_classification.core.files import atomic_folder


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_files_get_their_names_when_the_block_ends(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with atomic_folder(folder) as part:
        (part / "figures").mkdir()
        (part / "figures" / "one.png").write_text("new")
        (part / "table.csv").write_text("new")
        assert not (folder / "table.csv").exists()

    assert names(folder) == ["figures", "figures/one.png", "table.csv"]
    assert (folder / "table.csv").read_text() == "new"


def test_what_was_there_is_replaced_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "one.png").write_text("old")
    (tmp_path / "other.csv").write_text("old")

    with atomic_folder(tmp_path) as part:
        (part / "figures").mkdir()
        (part / "figures" / "one.png").write_text("new")

    assert (tmp_path / "figures" / "one.png").read_text() == "new"
    assert (tmp_path / "other.csv").read_text() == "old"


@pytest.mark.parametrize("error", [FileNotFoundError(2, "missing", "input"), SystemExit(143)])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "table.csv").write_text("old")

    def write() -> None:
        with atomic_folder(tmp_path) as part:
            (part / "table.csv").write_text("ne")
            raise error

    with pytest.raises(type(error)) as raised:
        write()

    assert raised.value is error
    assert names(tmp_path) == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "old"


def test_a_disk_that_fails_late_gives_no_file_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []

    def fail_on_the_second(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) == 2:
            raise OSError(errno.EIO, "broken")

    def write() -> None:
        with atomic_folder(tmp_path) as part:
            (part / "one").write_text("1")
            (part / "two").write_text("2")

    monkeypatch.setattr(os, "fsync", fail_on_the_second)
    with pytest.raises(UserError, match="can't be written: broken"):
        write()

    assert len(flushed) == 2
    assert names(tmp_path) == []


def test_a_killed_process_leaves_no_name_and_the_next_one_starts_afresh(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, pathlib\n"
        "from image_classification.core.files import atomic_folder\n"
        "with atomic_folder(pathlib.Path(sys.argv[1])) as part:\n"
        "    (part / 'half').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".part", ".part/half"]

    with atomic_folder(tmp_path) as part:
        (part / "whole").write_text("whole")

    assert names(tmp_path) == ["whole"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(UserError, match="file can't be written: Not a dir"),
        atomic_folder(tmp_path / "file"),
    ):
        pytest.fail("the block ran")


def test_files_that_are_not_written_anew_go_where_the_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "both.csv").write_text("old")

    with atomic_folder(tmp_path, replace=True) as part:
        (part / "both.csv").write_text("new")

    assert names(tmp_path) == ["both.csv"]
    assert (tmp_path / "both.csv").read_text() == "new"
