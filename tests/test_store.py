"""The tracking store: where it is, and that it is made once."""

import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from image_classification import store
from image_classification.errors import UserError


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_four_processes_that_start_at_once_share_one_store(tmp_path: Path) -> None:
    code = "from image_classification import store; print(store.connect('race'))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = {process.communicate()[0].strip() for process in started}

    assert [process.returncode for process in started] == [0] * 4
    assert len(said) == 1  # the same experiment for all
    assert [path.name for path in tmp_path.glob("mlflow.db*")] == ["mlflow.db"]


def test_a_relative_store_is_the_projects_own_also_in_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")

    store.connect("mine")

    assert (tmp_path / "runs.db").exists()
    assert list(copy.iterdir()) == []
    experiment = mlflow.get_experiment_by_name("mine")
    assert experiment is not None
    assert experiment.artifact_location.startswith(tmp_path.as_uri())


def test_a_store_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/proc")  # where not even root may write
    start = time.monotonic()

    with pytest.raises(UserError, match=r"/proc/mlflow\.db can't be made: No such file"):
        store.connect("mine")

    assert time.monotonic() - start < 10


def test_a_store_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text(
        "this is no database, and long enough to be read as one" * 9
    )

    with pytest.raises(UserError, match=r"can't be used: .*file is not a database"):
        store.connect("mine")


def test_only_what_no_longer_runs_is_closed() -> None:
    experiment = store.connect("mine")
    client = mlflow.MlflowClient()
    alive = client.create_run(experiment, tags=store.process_tags())
    dead = client.create_run(experiment, tags={**store.process_tags(), "process.started": "1"})
    elsewhere = client.create_run(
        experiment, tags={**store.process_tags(), "process.host": "x", "process.started": "1"}
    )

    store.connect("mine")

    status = [client.get_run(run.info.run_id).info.status for run in (alive, dead, elsewhere)]
    assert status == ["RUNNING", "KILLED", "RUNNING"]
