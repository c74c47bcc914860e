"""The tracking store: where it is, and that it is made once."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from conftest import at_once, small_disk
from sqlalchemy.exc import SQLAlchemyError

from image_classification.core.errors import UserError
from image_classification.core.locks import locked
from image_classification.tracking import mlflow_pages, mlflow_store, mlflow_tags


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "count", [pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
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


def copied_store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a project's store, which is in the folder `original`."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    shutil.copy(empty_store, original)
    monkeypatch.chdir(original)
    experiment = mlflow_store.connect("mine")
    client = mlflow.MlflowClient()
    client.log_text(client.create_run(experiment).info.run_id, "text", "it.txt")
    shutil.copytree(original, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    return copy


@pytest.mark.slow
def test_a_copied_store_is_set_aside_and_nothing_is_written_where_it_was(
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = copied_store(tmp_path, empty_store, monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "original").rglob("*")}

    experiment = mlflow_store.connect("mine")
    client = mlflow.MlflowClient()
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "text", "it.txt")

    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "original").rglob("*")} == before
    assert (copy / "mlartifacts" / run.info.run_id / "artifacts/it.txt").is_file()
    assert len(client.search_runs([experiment])) == 1
    kept = sorted(path.name.partition("-mlf")[2] or "a" for path in copy.glob("quarantined-*"))
    assert kept == ["a", "low.db"]  # the files of its runs, and the database
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"was made in {tmp_path / 'original'}" in said
    assert "`image-classification sync` uploads every run" in said


@pytest.mark.slow
def test_processes_that_notice_a_copied_store_at_once_set_it_aside_once(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied_store(tmp_path, empty_store, monkeypatch)

    assert at_once(mlflow_store.connect, *[("mine",)] * 3) == [0] * 3

    assert len(list(copy.glob("quarantined-*-mlflow.db"))) == 1


@pytest.mark.parametrize("way", ["link to the project", "link to the database"])
def test_a_store_that_is_reached_another_way_stays(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    copied_store(tmp_path, empty_store, monkeypatch)
    original = tmp_path / "original"
    if way == "link to the project":
        (tmp_path / "link").symlink_to(original)
        monkeypatch.chdir(tmp_path / "link")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/link/mlflow.db")
    else:
        (original / "mlflow.db").rename(tmp_path / "kept.db")
        (original / "mlflow.db").symlink_to(tmp_path / "kept.db")
        monkeypatch.chdir(original)

    experiment = mlflow_store.connect("mine")

    assert len(mlflow.MlflowClient().search_runs([experiment])) == 1
    assert list(original.glob("quarantined-*")) == []


def test_what_a_kill_left_of_a_new_database_is_removed_unless_one_is_being_made(
    tmp_path: Path, empty_store: Path
) -> None:
    shutil.copy(empty_store, tmp_path)
    left = [tmp_path / f"mlflow.db.{'0a' * 16}{kind}" for kind in ("", "-journal", "-wal")]
    for path in left:
        path.touch()
    (tmp_path / "mlflow.db.backup").touch()

    with locked(tmp_path / ".mlflow.lock"):
        mlflow_store.initialize(tmp_path / "mlflow.db")
    assert all(path.exists() for path in left)

    mlflow_store.initialize(tmp_path / "mlflow.db")
    assert sorted(path.name for path in tmp_path.glob("mlflow*")) == [
        "mlflow.db",
        "mlflow.db.backup",
    ]


def test_a_database_that_cannot_be_written_is_one_line(empty_store: Path, tmp_path: Path) -> None:
    """MLflow prints hundreds of lines of tracebacks for each call."""
    code = (
        "from image_classification.tracking import mlflow_store\n"
        "try:\n"
        "    mlflow_store.connect('mine')\n"
        "except mlflow_store.UnreachableError as error:\n"
        "    print(error)\n"
    )
    with small_disk(tmp_path / "disk", "20m") as remount:
        shutil.copy(empty_store, tmp_path / "disk/mlflow.db")
        remount("ro")
        store = f"sqlite:///{tmp_path}/disk/mlflow.db"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "MLFLOW_TRACKING_URI": store},
            capture_output=True,
            text=True,
            check=True,
        )

    assert "readonly database" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_the_cause_of_an_outage_is_what_happened_and_not_advice_to_programmers() -> None:
    error = SQLAlchemyError(
        "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush "
        "block if this flush is occurring prematurely)\n"
        "(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT INTO tags]"
    )

    assert mlflow_store.cause_of(error) == "(sqlite3.OperationalError) database or disk is full"


def test_no_message_or_link_shows_a_password(
    monkeypatch: pytest.MonkeyPatch, empty_store: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    with pytest.raises(UserError, match=r"the tracking store http://127\.0\.0\.1:9 can't be used"):
        mlflow_store.connect("mine")

    monkeypatch.setattr(mlflow_store, "connect", lambda experiment: "1")
    assert mlflow_pages.find("mine", []).runs().startswith("http://127.0.0.1:9/#/experiments/1")
