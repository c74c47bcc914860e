"""The folder of a run: held by one process, and gone when it is no longer needed."""

import multiprocessing
import os
from pathlib import Path

import pytest

from image_classification.core.errors import UserError
from image_classification.tracking import run_folder


def test_a_run_is_the_work_of_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    message = f"process {os.getpid()} is at work on this very run: wait until it ends"
    with (
        run_folder.locked_folder(folder),
        pytest.raises(UserError, match=message),
        run_folder.locked_folder(folder),
    ):
        pass
    with run_folder.locked_folder(folder):
        run_folder.discard(folder)
    assert list(tmp_path.iterdir()) == []


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


def test_finished_runs_are_discarded_but_for_the_one_to_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("a", "b", "c"):
        with run_folder.locked_folder(run_folder.run_folder(key)):
            (run_folder.run_folder(key) / "events.jsonl").touch()
            if key != "c":
                run_folder.finish(run_folder.run_folder(key))

    run_folder.discard_finished(keep="b")

    assert [folder.name for folder in run_folder.run_folders()] == ["b", "c"]
