"""The tracking store: where it is, and that it is made once."""

import shutil
import subprocess
import time
from pathlib import Path

import mlflow
import pytest
from conftest import at_once

from image_classification.core.errors import UserError
from image_classification.tracking import mlflow_store, mlflow_tags


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_that_start_at_once_share_one_store(tmp_path: Path, count: int) -> None:
    assert at_once(mlflow_store.connect, *[("race",)] * count) == [0] * count

    assert [path.name for path in tmp_path.glob("mlflow.db*")] == ["mlflow.db"]
    experiments = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()
    assert sorted(experiment.name for experiment in experiments) == ["Default", "race"]


def test_a_relative_store_is_the_projects_own_also_in_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    shutil.copy(empty_store, tmp_path / "runs.db")
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")

    mlflow_store.connect("mine")

    assert list(copy.iterdir()) == []
    store = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs.db")
    experiment = store.get_experiment_by_name("mine")
    assert experiment is not None
    assert experiment.artifact_location.startswith(tmp_path.as_uri())


def test_a_store_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/proc")  # where not even root may write
    start = time.monotonic()

    with pytest.raises(UserError, match=r"/proc/mlflow\.db can't be made: No such file"):
        mlflow_store.connect("mine")

    assert time.monotonic() - start < 10


def test_a_store_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text(
        "this is no database, and long enough to be read as one" * 9
    )

    with pytest.raises(UserError, match=r"can't be used: .*file is not a database"):
        mlflow_store.connect("mine")


def test_only_what_no_longer_runs_is_closed(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path)
    experiment = mlflow_store.connect("mine")
    client = mlflow.MlflowClient()
    own = mlflow_tags.all_stored(mlflow_store.process_tags())
    alive = client.create_run(experiment, tags=own)
    long_ago = {mlflow_tags.stored("process.started"): "1"}
    dead = client.create_run(experiment, tags={**own, **long_ago})
    another = {mlflow_tags.stored("process.host"): "x"}
    elsewhere = client.create_run(experiment, tags={**own, **long_ago, **another})

    mlflow_store.connect("mine")

    status = [client.get_run(run.info.run_id).info.status for run in (alive, dead, elsewhere)]
    assert status == ["RUNNING", "KILLED", "RUNNING"]


def test_a_database_whose_making_is_killed_without_a_word_is_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(-9, command, stderr=b"")

    monkeypatch.setattr(subprocess, "run", killed)

    with pytest.raises(mlflow_store.UnreachableError, match=r"can't be made: .* died with"):
        mlflow_store.initialize(tmp_path / "mlflow.db")
