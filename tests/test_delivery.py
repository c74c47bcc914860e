"""How records reach MLflow, whatever state it, the disk or the outbox is in."""

import shutil
import subprocess
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run, ViewType

from image_classification import checkpoint, delivery, records, runs, store, sync
from image_classification.records import Record


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """A project that has nothing but a store."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path


def told_by(folder: Path, *more: Record, name: str = "it") -> Path:
    """A folder with the records of a run."""
    folder.mkdir(parents=True)
    run = {"type": "run", **runs.opening("mine", name, {"seed": "0"})}
    end = {"type": "end", "status": "FINISHED", "time": records.now()}
    records.write(folder, [run, *more, end])
    return folder


def found() -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, run_view_type=ViewType.ALL))


def waiting(project: Path) -> list[str]:
    return [path.name for path in (project / "outbox").glob("*-*")]


def test_a_half_removed_entry_of_the_outbox_holds_up_nothing(project: Path) -> None:
    (project / "outbox/1-half").mkdir(parents=True)
    folder = told_by(project / "outputs/it")

    assert delivery.publish(folder) == delivery.UNDELIVERED

    assert [run.info.status for run in found()] == ["FINISHED"]
    assert waiting(project) == ["1-half"]


def test_what_is_refused_waits_once_and_is_told_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = told_by(project / "outputs/it", {"type": "tags", "values": {"a": "1"}})
    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert delivery.publish(folder) == delivery.UNDELIVERED
        assert delivery.publish(folder) == delivery.UNDELIVERED
    assert "127.0.0.1:9 can't be used: it does not answer" in capsys.readouterr().err
    assert len(waiting(project)) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")

    assert delivery.publish() == 0

    (run,) = found()
    assert run.data.tags["a"] == "1"
    assert waiting(project) == []


def test_a_stage_of_dvc_does_not_fail_for_mlflow(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("DVC_STAGE", "train@it")

    assert delivery.publish(told_by(project / "models/it")) == 0
    assert len(waiting(project)) == 1


@pytest.mark.parametrize("kind", ["garbage", "folder", "nonsense://store"])
def test_a_store_that_cannot_be_one_costs_a_line_and_no_time(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    if kind == "garbage":
        (project / "mlflow.db").write_text("no database at all, and long enough to be one" * 9)
    elif kind == "folder":
        (project / "mlflow.db").unlink()
        (project / "mlflow.db").mkdir()
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", kind)
    (project / "it").mkdir()
    start = time.monotonic()

    run = runs.LiveRun(project / "it", project / "it", runs.opening("mine", "it", {}))
    assert not run.end("KILLED")

    assert time.monotonic() - start < 20
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.count("the training goes on, and its records wait on disk") == 1
    assert [record["type"] for record in records.read(project / "it/records.jsonl")] == [
        "run",
        "end",
    ]


def test_an_interruption_does_not_wait_for_thousands_of_records(project: Path) -> None:
    (project / "it").mkdir()
    run = runs.LiveRun(project / "it", project / "it", runs.opening("mine", "it", {}))
    for step in range(1500):
        values = {f"system/{i}": float(i) for i in range(10)}
        run.tell("metrics", **records.metrics(values, step, records.now()))
    start = time.monotonic()

    run.end("KILLED")

    assert time.monotonic() - start < runs.LAST_SECONDS + 5
    assert sync.sync() == 0
    (told,) = found()
    client = mlflow.MlflowClient()
    history = client.get_metric_history(told.info.run_id, "system/3")
    assert [entry.step for entry in history] == list(range(1500))


def unfinished(project: Path, name: str) -> Path:
    """A checkpoint's folder of a run that has no end."""
    folder = told_by(project / "checkpoints" / name)
    records.write(folder, records.read(folder / "records.jsonl")[:-1])
    return folder


def test_a_training_that_goes_on_after_sync_is_not_killed_by_what_waited(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unfinished(project, "key")
    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert sync.sync() == delivery.UNDELIVERED
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    run = runs.LiveRun(folder, folder, runs.opening("mine", "it", {}))
    assert run.end("FINISHED")

    assert sync.sync() == 0

    assert [run.info.status for run in found()] == ["FINISHED"]


def test_a_training_with_its_results_is_not_killed_by_sync(project: Path) -> None:
    """Killed after its results are there, before its last folder is removed."""
    checkpoint.finish(unfinished(project, "key"))

    assert sync.sync() == 0

    assert (project / "checkpoints/key/finished").exists()  # DVC may ask for them again
    assert found() == []


def test_a_run_that_had_no_time_to_tell_anything_holds_up_nothing(project: Path) -> None:
    (project / "checkpoints/key").mkdir(parents=True)
    (project / "checkpoints/key/records.jsonl").touch()

    assert sync.sync() == 0
    assert waiting(project) == []


def test_a_run_that_was_deleted_in_mlflow_stays_so_and_holds_up_no_comparison(
    project: Path,
) -> None:
    training = told_by(project / "models/it")
    assert delivery.publish(training) == 0
    (run,) = found()
    mlflow.MlflowClient().delete_run(run.info.run_id)
    key = records.read(training / "records.jsonl")[0]["key"]
    compared = told_by(
        project / "reports",
        {"type": "inputs", "runs": [key]},
        {"type": "versions", "name": "mine", "description": "", "cards": {key: "card"}},
        {"type": "aliases", "name": "mine", "values": {"champion": key}},
        name="comparison",
    )

    assert delivery.publish(training, compared) == 0

    status = {run.info.run_name: (run.info.lifecycle_stage, run.info.status) for run in found()}
    assert status == {"it": ("deleted", "FINISHED"), "comparison": ("active", "FINISHED")}


def test_names_that_mlflow_refuses_are_told_otherwise(project: Path) -> None:
    values = {"model.layers.conv(1).units": 8, "classes": ["a long name"] * 2000}
    folder = told_by(project / "it", {"type": "params", "values": values})

    assert delivery.publish(folder) == 0

    (run,) = found()
    assert run.data.params["model.layers.conv_1_.units"] == "8"
    assert run.data.params["classes"].startswith("['a long name', 'a long name'")


def test_a_repeated_evaluation_is_told_where_it_differs(project: Path) -> None:
    folder = told_by(project / "it")
    assert delivery.publish(folder) == 0
    (run,) = found()
    client = mlflow.MlflowClient()
    model = client.create_logged_model(run.info.experiment_id, "it", source_run_id=run.info.run_id)
    client.finalize_logged_model(model.model_id, "READY")
    key = records.read(folder / "records.jsonl")[0]["key"]
    for at, accuracy, seconds in ((1, 0.5, 3.0), (2, 0.5, 4.0)):
        evaluation = project / f"evaluation-{at}"
        evaluation.mkdir()
        values = {"test_accuracy": accuracy, "seconds": seconds}
        told = {"type": "metrics", **records.metrics(values, 0, at, of_model=True)}
        records.write(evaluation, [{"type": "run", "key": key, "experiment": "mine"}, told])
        assert delivery.publish(evaluation) == 0

    history = {
        name: [entry.value for entry in client.get_metric_history(run.info.run_id, name)]
        for name in ("test_accuracy", "seconds")
    }
    assert history == {"test_accuracy": [0.5], "seconds": [3.0, 4.0]}


def test_two_processes_that_tell_the_same_make_one_run(project: Path) -> None:
    folder = told_by(project / "it")
    code = f"from image_classification import delivery; from pathlib import Path; \
        print(delivery.publish(Path({str(folder)!r})))"
    started = [
        subprocess.Popen(["python", "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]

    assert [process.communicate()[0].strip() for process in started] == ["0"] * 3
    store.connect("mine")
    assert len(found()) == 1


def test_versions_that_are_registered_at_once_do_not_clash(project: Path) -> None:
    keys = []
    for name in ("a", "b", "c"):
        training = told_by(project / "models" / name, name=name)
        assert delivery.publish(training) == 0
        keys.append(records.read(training / "records.jsonl")[0]["key"])
    client = mlflow.MlflowClient()
    for run in found():
        experiment, run_id = run.info.experiment_id, run.info.run_id
        model = client.create_logged_model(experiment, "it", source_run_id=run_id)
        client.finalize_logged_model(model.model_id, "READY")
    code = "import sys; from pathlib import Path; from image_classification import delivery; \
        sys.exit(delivery.publish(Path(sys.argv[1])))"
    started = []
    for key in keys:
        compared = told_by(
            project / key,
            {"type": "versions", "name": "mine", "description": "", "cards": {key: f"card {key}"}},
            {"type": "aliases", "name": "mine", "values": {f"alias-{key}": key, "champion": key}},
        )
        started.append(subprocess.Popen(["python", "-c", code, compared]))

    assert [process.wait() for process in started] == [0, 0, 0]
    versions = client.search_model_versions("name = 'mine'")
    assert sorted(int(version.version) for version in versions) == [1, 2, 3]
    for key in keys:
        version = client.get_model_version_by_alias("mine", f"alias-{key}")
        assert version.description == f"card {key}"
    assert client.get_model_version_by_alias("mine", "champion").run_id


def test_sync_copies_nothing_that_stays_where_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told_by(project / "models/it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    assert sync.sync() == delivery.UNDELIVERED

    assert "does not answer: the records of 1 folder(s) wait, to be" in capsys.readouterr().err
    assert waiting(project) == []
