"""The folder of a run: held by one process, and gone when it is no longer needed."""

import contextlib
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from image_classification.core.errors import UserError
from image_classification.tracking import run_folder


def test_a_run_is_the_work_of_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    message = f"process {os.getpid()} is working on this run: wait until it ends"
    with (
        run_folder.locked_folder(folder),
        pytest.raises(UserError, match=message),
        run_folder.locked_folder(folder),
    ):
        pass
    with run_folder.locked_folder(folder):
        run_folder.discard(folder)
    assert list(tmp_path.iterdir()) == []


def test_under_dvc_the_second_waits_until_the_first_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, order = tmp_path / "run", list[str]()

    def second() -> None:
        with run_folder.locked_folder(folder, wait=True):
            order.append("second")

    waiting = threading.Thread(target=second)
    with run_folder.locked_folder(folder):
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        order.append("first")
    waiting.join(30)

    assert order == ["first", "second"]
    assert "is working on this run: waiting for it to end" in capsys.readouterr().out


def test_a_process_that_dies_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def lock_and_die() -> None:
        with run_folder.locked_folder(folder):
            os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=lock_and_die)
    process.start()
    process.join()

    assert process.exitcode == 9
    with run_folder.locked_folder(folder):
        pass


@pytest.mark.parametrize(
    ("key", "left"), [("a", ["b", "c"]), (None, ["c"]), ("*", ["a", "b", "c"])]
)
def test_finished_runs_are_discarded_by_their_key_or_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, left: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for each in ("a", "b", "c"):
        with run_folder.locked_folder(run_folder.run_folder(each)):
            (run_folder.run_folder(each) / "events.jsonl").touch()
            if each != "c":
                run_folder.finish(run_folder.run_folder(each))

    run_folder.discard_finished(key)

    assert [folder.name for folder in run_folder.run_folders()] == left


def test_a_run_that_has_just_ended_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process removes the lock file between the look at the lock and that at its holder."""
    folder, read_text = tmp_path / "run", Path.read_text
    held = contextlib.ExitStack()
    held.enter_context(run_folder.locked_folder(folder))

    def end_before(path: Path) -> str:
        run_folder.discard(folder)
        held.close()
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", end_before)

    with run_folder.locked_folder(folder):
        assert folder.is_dir()
