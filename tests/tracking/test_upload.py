"""How event logs reach MLflow, whatever state it, the disk or the outbox is in."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pytest
from conftest import at_once
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from image_classification.commands import sync
from image_classification.tracking import (
    background_logger,
    event_log,
    live_run,
    mlflow_model,
    mlflow_promotions,
    outbox,
    run_folder,
    uploader,
)
from image_classification.tracking.background_logger import BackgroundLogger
from image_classification.tracking.event_log import Event
from image_classification.tracking.mlflow_promotions import EARLIER, HEADING, described
from image_classification.tracking.mlflow_registry import LONGEST_DESCRIPTION
from image_classification.tracking.mlflow_run import MlflowRun
from image_classification.tracking.uploader import Uploader


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """A project that has nothing but a store."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path


def logged_run(folder: Path, *more: Event, name: str = "it") -> Path:
    """A folder with the event log of a run."""
    folder.mkdir(parents=True)
    run = {"type": "run", **live_run.opening("mine", name, {"seed": "0"})}
    end = {"type": "end", "status": "FINISHED", "time": event_log.now()}
    event_log.write(folder, [run, *more, end])
    return folder


def found() -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, run_view_type=ViewType.ALL))


def waiting(project: Path) -> list[str]:
    return [path.name for path in (project / "outbox").glob("*-*")]


def test_a_half_removed_entry_of_the_outbox_holds_up_nothing(project: Path) -> None:
    (project / "outbox/1-half").mkdir(parents=True)
    folder = logged_run(project / "outputs/it")

    assert outbox.upload(folder) == outbox.NOT_UPLOADED

    assert [run.info.status for run in found()] == ["FINISHED"]
    assert waiting(project) == ["1-half"]


def test_what_is_refused_waits_once_and_is_uploaded_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = logged_run(project / "outputs/it", {"type": "params", "values": {"a": "1"}})
    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert outbox.upload(folder) == outbox.NOT_UPLOADED
        assert outbox.upload(folder) == outbox.NOT_UPLOADED
    assert "127.0.0.1:9 can't be used: it does not respond" in capsys.readouterr().err
    assert len(waiting(project)) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")

    assert outbox.upload() == 0

    (run,) = found()
    assert run.data.params["a"] == "1"
    assert waiting(project) == []


def test_a_stage_of_dvc_does_not_fail_for_mlflow(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("DVC_STAGE", "train@it")

    assert outbox.upload(logged_run(project / "runs/it")) == 0
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

    run = live_run.LiveRun(project / "it", project / "it", live_run.opening("mine", "it", {}))
    assert not run.end("KILLED")

    assert time.monotonic() - start < 20
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.count("the run continues, and its events wait on disk") == 1
    assert [event["type"] for event in event_log.read(project / "it/events.jsonl")] == [
        "run",
        "end",
    ]


@pytest.mark.slow
def test_an_interruption_does_not_wait_for_thousands_of_events(project: Path) -> None:
    (project / "it").mkdir()
    run = live_run.LiveRun(project / "it", project / "it", live_run.opening("mine", "it", {}))
    for step in range(1500):
        values = {f"system/{i}": float(i) for i in range(10)}
        run.log("metrics", **event_log.metrics(values, step, event_log.now()))
    start = time.monotonic()

    run.end("KILLED")

    assert time.monotonic() - start < live_run.LAST_SECONDS + 5
    assert sync.sync() == 0
    (logged,) = found()
    client = mlflow.MlflowClient()
    history = client.get_metric_history(logged.info.run_id, "system/3")
    assert [entry.step for entry in history] == list(range(1500))


def unfinished(project: Path, name: str) -> Path:
    """A checkpoint's folder of a run that has no end."""
    folder = logged_run(project / "checkpoints" / name)
    event_log.write(folder, event_log.read(folder / "events.jsonl")[:-1])
    return folder


def test_a_run_that_is_resumed_after_sync_is_not_killed_by_what_waited(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unfinished(project, "key")
    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert sync.sync() == outbox.NOT_UPLOADED
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    run = live_run.LiveRun(folder, folder, live_run.opening("mine", "it", {}))
    assert run.end("FINISHED")

    assert sync.sync() == 0

    assert [run.info.status for run in found()] == ["FINISHED"]


def test_a_run_with_its_results_is_not_killed_by_sync(project: Path) -> None:
    """Killed after its results are there, before its last folder is removed."""
    run_folder.finish(unfinished(project, "key"))

    assert sync.sync() == 0

    assert (project / "checkpoints/key/finished").exists()  # DVC may ask for them again
    assert found() == []


def test_a_run_that_had_no_time_to_log_anything_holds_up_nothing(project: Path) -> None:
    (project / "checkpoints/key").mkdir(parents=True)
    (project / "checkpoints/key/events.jsonl").touch()

    assert sync.sync() == 0
    assert waiting(project) == []


def test_an_event_log_without_a_line_holds_up_nothing(project: Path) -> None:
    """As a full disk leaves it."""
    (project / "multirun/swept").mkdir(parents=True)
    (project / "multirun/swept/events.jsonl").touch()
    folder = logged_run(project / "outputs/one")

    assert outbox.upload(project / "multirun/swept", folder) == 0
    assert [run.info.run_name for run in found()] == ["it"]


def test_what_a_kill_left_of_an_uploaded_entry_holds_up_nothing(project: Path) -> None:
    (project / "outbox/uploaded/images").mkdir(parents=True)
    (project / "outbox/uploaded/images/one.png").touch()
    logged_run(project / "outbox/1-a")

    assert outbox.upload() == 0
    assert waiting(project) == []


def test_a_deleted_experiment_is_a_line_that_says_how_to_restore_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outbox.upload(logged_run(project / "outputs/one")) == 0
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)

    assert outbox.upload(logged_run(project / "outputs/two", name="other")) == 75
    restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
    assert "experiment mine was deleted in MLflow: MLFLOW_TRACKING_URI=" in (
        said := capsys.readouterr().err
    )
    assert restore in said
    client.restore_experiment(experiment.experiment_id)
    assert outbox.upload() == 0
    assert sorted(str(run.info.run_name) for run in found()) == ["it", "other"]


def about(folder: Path, key: str) -> Path:
    """A folder with an event log about a run that another folder begins, as an export writes it."""
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_text("a model")
    run = {"type": "run", "key": key, "experiment": "mine"}
    event_log.write(folder, [run, {"type": "artifacts", "path": "served"}])
    return folder


def test_a_deleted_experiment_holds_up_no_other(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged_run(project / "outputs/1")
    assert sync.sync() == 0
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    (run,) = found()
    client.delete_experiment(run.info.experiment_id)
    other = logged_run(project / "outputs/2", name="other")
    first, *rest = event_log.read(other / "events.jsonl")
    event_log.write(other, [first | {"experiment": "theirs"}, *rest])

    assert sync.sync() == outbox.NOT_UPLOADED

    assert "other" in {run.info.run_name for run in found()}
    said = capsys.readouterr().err
    assert "experiment mine was deleted in MLflow" in said
    assert "the event logs of 1 folder(s) wait" in said


def test_a_log_about_a_run_that_is_nowhere_is_named_and_holds_up_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a change of the store: what was exported is still here, its run is not."""
    about(project / "exported/gone", "0" * 32)
    logged_run(project / "outputs/one")

    assert sync.sync() == 0

    assert [run.info.run_name for run in found()] == ["it"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("exported/gone is not uploaded: sqlite:///")
    assert line.endswith("nor does any folder here: make it anew or remove it")


def test_a_log_that_comes_before_its_run_is_uploaded_after_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = logged_run(project / "runs/it")
    key = event_log.read(training / "events.jsonl")[0]["key"]

    assert outbox.upload(about(project / "exported/key", key), training) == 0

    (run,) = found()
    listed = mlflow.MlflowClient().list_artifacts(run.info.run_id, "served")
    assert [entry.path for entry in listed] == ["served/model.tflite"]
    assert capsys.readouterr().err == ""


def test_a_run_that_was_deleted_in_mlflow_stays_so_and_holds_up_no_comparison(
    project: Path,
) -> None:
    training = logged_run(project / "runs/it")
    assert outbox.upload(training) == 0
    (run,) = found()
    mlflow.MlflowClient().delete_run(run.info.run_id)
    key = event_log.read(training / "events.jsonl")[0]["key"]
    compared = logged_run(
        project / "reports",
        {"type": "inputs", "runs": [key]},
        {"type": "versions", "name": "mine", "description": "", "cards": {key: "card"}},
        {"type": "aliases", "name": "mine", "values": {"champion": key}},
        name="comparison",
    )

    assert outbox.upload(training, compared) == 0

    status = {run.info.run_name: (run.info.lifecycle_stage, run.info.status) for run in found()}
    assert status == {"it": ("deleted", "FINISHED"), "comparison": ("active", "FINISHED")}


def test_names_that_mlflow_refuses_are_changed(project: Path) -> None:
    values = {"model.layers.conv(1).units": 8, "classes": ["a long name"] * 2000}
    folder = logged_run(project / "it", {"type": "params", "values": values})

    assert outbox.upload(folder) == 0

    (run,) = found()
    assert run.data.params["model.layers.conv_1_.units"] == "8"
    assert run.data.params["classes"].startswith("['a long name', 'a long name'")


@pytest.mark.parametrize("chosen", [True, False])
def test_the_run_that_mlflow_run_opened_is_taken_where_its_experiment_was_chosen(
    project: Path, chosen: bool
) -> None:
    folder = logged_run(project / "it")
    first, *others = event_log.read(folder / "events.jsonl")
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    opened = client.create_run(client.create_experiment("theirs") if chosen else "0").info.run_id
    event_log.write(folder, [first | {"mlflow_run": opened}, *others])

    assert outbox.upload(folder) == 0

    by_experiment = {
        client.get_experiment(run.info.experiment_id).name: run.info.run_name for run in found()
    }
    (run,) = (run for run in found() if run.info.run_name == "it")
    if chosen:
        assert by_experiment == {"theirs": "it"}
    else:  # as without `--experiment-name`
        assert by_experiment == {"mine": "it", "Default": by_experiment["Default"]}
        note = client.get_run(opened).data.tags["mlflow.note.content"]
        assert f"(#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})" in note


def test_a_repeated_evaluation_is_logged_where_it_differs(project: Path) -> None:
    folder = logged_run(project / "it")
    assert outbox.upload(folder) == 0
    (run,) = found()
    client = mlflow.MlflowClient()
    model = client.create_logged_model(run.info.experiment_id, "it", source_run_id=run.info.run_id)
    client.finalize_logged_model(model.model_id, "READY")
    key = event_log.read(folder / "events.jsonl")[0]["key"]
    for at, accuracy, seconds in ((1, 0.5, 3.0), (2, 0.5, 4.0)):
        evaluation = project / f"evaluation-{at}"
        evaluation.mkdir()
        values = {"test_accuracy": accuracy, "seconds": seconds}
        measured = {"type": "metrics", **event_log.metrics(values, 0, at, of_model=True)}
        event_log.write(evaluation, [{"type": "run", "key": key, "experiment": "mine"}, measured])
        assert outbox.upload(evaluation) == 0

    history = {
        name: [entry.value for entry in client.get_metric_history(run.info.run_id, name)]
        for name in ("test_accuracy", "seconds")
    }
    assert history == {"test_accuracy": [0.5], "seconds": [3.0, 4.0]}


def test_a_half_logged_model_that_may_not_be_deleted_stops_no_upload(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team's server lets only those with MANAGE delete it."""
    begun = logged_run(project / "begun")
    assert outbox.upload(begun) == 0
    (run,) = found()
    client = mlflow.MlflowClient()
    client.create_logged_model(run.info.experiment_id, "it", source_run_id=run.info.run_id)
    opening, *_ = event_log.read(begun / "events.jsonl")
    (project / "it").mkdir()
    model = {"type": "model", "name": "it", "sha256": "", "image_shape": [], "classes": 10}
    event_log.write(project / "it", [opening, model])
    logged: list[str] = []

    def refuse(*_: object) -> None:
        raise MlflowException("Permission denied")

    monkeypatch.setattr(mlflow.MlflowClient, "delete_logged_model", refuse)
    monkeypatch.setattr(mlflow_model, "_description", lambda *_: {})
    monkeypatch.setattr(mlflow_model, "_load", lambda *_: "the model")
    monkeypatch.setattr(mlflow_model, "_log_new", lambda *given: logged.append(given[2]["model"]))

    assert outbox.upload(project / "it") == 0
    assert logged == ["the model"]


@pytest.mark.slow
def test_processes_that_upload_the_same_at_once_make_one_run(project: Path) -> None:
    folder = logged_run(project / "it")

    assert at_once(outbox.upload, *[(folder,)] * 3) == [0, 0, 0]

    assert [run.info.status for run in found()] == ["FINISHED"]
    assert waiting(project) == []


@pytest.mark.slow
def test_versions_that_are_registered_at_once_do_not_clash(project: Path) -> None:
    keys = []
    for name in ("a", "b", "c"):
        training = logged_run(project / "runs" / name, name=name)
        assert outbox.upload(training) == 0
        keys.append(event_log.read(training / "events.jsonl")[0]["key"])
    client = mlflow.MlflowClient()
    for run in found():
        experiment, run_id = run.info.experiment_id, run.info.run_id
        model = client.create_logged_model(experiment, "it", source_run_id=run_id)
        client.finalize_logged_model(model.model_id, "READY")
    compared = [
        logged_run(
            project / key,
            {"type": "versions", "name": "mine", "description": "", "cards": {key: f"card {key}"}},
            {"type": "aliases", "name": "mine", "values": {f"alias-{key}": key, "champion": key}},
        )
        for key in keys
    ]

    assert at_once(outbox.upload, *[(folder,) for folder in compared]) == [0, 0, 0]

    assert waiting(project) == []
    versions = client.search_model_versions("name = 'mine'")
    assert sorted(int(version.version) for version in versions) == [1, 2, 3]
    for key in keys:
        version = client.get_model_version_by_alias("mine", f"alias-{key}")
        assert version.description == f"card {key}"
    assert client.get_model_version_by_alias("mine", "champion").run_id


def test_the_alias_moves_though_the_description_cannot_be_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = logged_run(project / "runs/it")
    assert outbox.upload(folder) == 0
    key = event_log.read(folder / "events.jsonl")[0]["key"]
    (run,) = found()
    client = mlflow.MlflowClient()
    client.create_registered_model("mine")
    client.create_model_version("mine", str(folder), run_id=run.info.run_id)

    def refuse(*_: object) -> None:
        raise MlflowException("value too long for type character varying(5000)")

    monkeypatch.setattr(mlflow.MlflowClient, "update_model_version", refuse)

    code = mlflow_promotions.update_registry("mine", key, {}, {key: "promoted"})

    assert code == outbox.NOT_UPLOADED
    assert client.get_model_version_by_alias("mine", "champion").run_id == run.info.run_id


def test_a_description_keeps_the_last_decisions_that_fit() -> None:
    card = "card " * 400
    lines = [f"- {number} {'x' * 400}" for number in range(30)]

    few = described(card, "\n".join(lines[:3]))
    many = described(card, "\n".join(lines))

    assert few == card + HEADING + "\n".join(lines[:3])
    kept = many.partition(HEADING)[2].splitlines()
    assert many.startswith(card + HEADING + EARLIER)
    assert LONGEST_DESCRIPTION - 450 < len(many) <= LONGEST_DESCRIPTION
    assert kept[1:] == lines[-len(kept) + 1 :]
    assert described(card, "") == card


def test_a_card_that_is_too_long_leaves_room_for_the_last_decision() -> None:
    lines = ["- promoted", "- defended"]

    both = described("x" * 6000, "\n".join(lines))

    assert len(both) == LONGEST_DESCRIPTION
    assert both.endswith(f"x{HEADING}{EARLIER}\n- defended")
    assert len(described("x" * 6000, "")) == LONGEST_DESCRIPTION


def test_sync_copies_nothing_that_stays_where_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged_run(project / "runs/it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    assert sync.sync() == outbox.NOT_UPLOADED

    assert "does not respond: the event logs of 1 folder(s) wait for" in capsys.readouterr().err
    assert waiting(project) == []


def test_every_type_of_event_has_one_that_logs_it() -> None:
    assert {"run", "model", *uploader.HANDLERS} == set(event_log.FIELDS)
    assert not {"run", "model"} & set(uploader.HANDLERS)


def test_a_file_that_vanishes_while_it_is_logged_is_not_taken_for_uploaded(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = logged_run(project / "it", {"type": "artifacts", "path": "training"})
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text(name)
    log_artifact = mlflow.MlflowClient.log_artifact

    def removing(client: mlflow.MlflowClient, run_id: str, *place: str | None) -> None:
        log_artifact(client, run_id, *place)
        (folder / "b.csv").unlink()

    with monkeypatch.context() as dvc_removes_the_folder:
        dvc_removes_the_folder.setattr(mlflow.MlflowClient, "log_artifact", removing)
        assert outbox.upload(folder, keep=False) == outbox.NOT_UPLOADED
    (folder / "b.csv").write_text("b.csv")

    assert outbox.upload(folder) == 0

    (run,) = found()
    listed = mlflow.MlflowClient().list_artifacts(run.info.run_id, "training")
    assert [entry.path for entry in listed] == ["training/a.csv", "training/b.csv"]


def test_an_interrupted_wait_does_not_take_an_upload_at_work_for_done(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(run: MlflowRun, event: Event) -> None:
        started.set()
        go_on.wait()

    def interrupt(number: int, frame: object) -> None:
        raise InterruptedError

    monkeypatch.setitem(uploader.HANDLERS, "params", slow)
    folder = logged_run(project / "it", {"type": "params", "values": {}})
    logger = BackgroundLogger(folder)
    for event in event_log.read(folder / "events.jsonl"):
        logger.log(event)
    assert started.wait(30)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(InterruptedError):
            logger.finish("digest")
        assert not logger.finish("digest", seconds=0.1)
    finally:
        signal.signal(signal.SIGUSR1, before)
        go_on.set()

    assert logger.finish("digest")
    assert [run.info.status for run in found()] == ["FINISHED"]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The events that a handler with a programming error was given."""
    given: list[Event] = []

    def handle(run: object, event: Event) -> None:
        given.append(event)
        raise TypeError("a fault of this project")

    monkeypatch.setitem(uploader.HANDLERS, "params", handle)
    return given


def test_a_programming_error_in_an_upload_is_raised_and_nothing_waits(
    project: Path, faulty: list[Event]
) -> None:
    folder = logged_run(project / "it", {"type": "params", "values": {}})

    with pytest.raises(TypeError, match="a fault of this project"):
        outbox.upload(folder)

    assert len(faulty) == 1
    assert waiting(project) == []


def test_a_programming_error_in_the_background_is_raised_at_the_end_and_not_tried_again(
    project: Path, faulty: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_logger, "RETRY_SECONDS", 0.0)
    folder = logged_run(project / "it", {"type": "params", "values": {}})
    logger = BackgroundLogger(folder)
    for event in event_log.read(folder / "events.jsonl"):
        logger.log(event)

    with pytest.raises(TypeError, match="a fault of this project"):
        logger.finish("digest")

    assert len(faulty) == 1
    assert [run.info.status for run in found()] == ["RUNNING"]


def test_an_outage_in_the_background_is_tried_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The counterpart of the programming error: the same handler, but MLflow's own exception."""
    monkeypatch.setattr(background_logger, "RETRY_SECONDS", 0.0)
    handle, failures = uploader.HANDLERS["params"], iter([MlflowException("down")] * 3)

    def failing(run: MlflowRun, event: Event) -> None:
        for failure in failures:
            raise failure
        handle(run, event)

    monkeypatch.setitem(uploader.HANDLERS, "params", failing)
    folder = logged_run(project / "it", {"type": "params", "values": {"a": "1"}})
    logger = BackgroundLogger(folder)
    for event in event_log.read(folder / "events.jsonl"):
        logger.log(event)
    deadline = time.monotonic() + 30
    while [run.info.status for run in found()] != ["FINISHED"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert logger.finish("digest")

    assert next(failures, None) is None
    assert [run.data.params for run in found()] == [{"a": "1"}]
    said = capsys.readouterr().err
    assert said.count("MLflow: down: the run continues") == 1
    assert said.count("MLflow is back") == 1


def test_metrics_are_gathered_so_that_uploads_hold_the_training_up_less(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_logger, "GATHERING_SECONDS", 3600.0)
    batches: list[int] = []
    log = Uploader.log

    def counted(self: Uploader, batch: Sequence[Event]) -> None:
        batches.append(len(batch))
        log(self, batch)

    monkeypatch.setattr(Uploader, "log", counted)
    metrics = [
        {"type": "metrics", "values": {"loss": 1.0}, "step": step, "time": 1, "of_model": False}
        for step in range(4)
    ]
    folder = logged_run(project / "it", *metrics)
    logger = BackgroundLogger(folder)
    run, *waiting, end = event_log.read(folder / "events.jsonl")
    for event in (run, *waiting):
        logger.log(event)
    deadline = time.monotonic() + 30
    while not batches:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    logger.log(end)

    assert logger.finish("digest")

    assert batches == [1, 4, 1]
