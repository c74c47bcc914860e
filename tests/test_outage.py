"""A tracking server that is down, goes away, is silent, comes back, or never does."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import Project, TrackingServer
from mlflow.entities import Run

EPOCHS = 200


class Line:
    """A line to a server, which can be cut (connections are refused) or silent (never answered)."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._silent = False
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.unanswered = 0  # connections while the line was silent

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def mend(self) -> None:
        self.cut()
        self._silent = False
        self._listen()

    def be_silent(self) -> None:
        self.cut()
        self._silent = True
        self._listen()

    def cut(self) -> None:
        for connection in [*self._open, *([self._listener] if self._listener else [])]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open, self._listener = [], None

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = listener.accept()
                self._open.append(caller)
                if self._silent:
                    self.unanswered += 1
                    continue
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open.append(server)
                for one, other in ((caller, server), (server, caller)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(1 << 16):
                other.sendall(piece)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    server = TrackingServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def line(server: TrackingServer) -> Iterator[Line]:
    line = Line(server.port)
    yield line
    line.cut()


def run_of(server: TrackingServer, folder: Path) -> Run:
    """The one run in MLflow that the records of a folder tell of."""
    key = json.loads((folder / "records.jsonl").read_text().partition("\n")[0])["key"]
    client = mlflow.MlflowClient(server.address)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`run.key` = '{key}'")
    return client.get_run(run.info.run_id)


def assert_all_is_there_once(server: TrackingServer, folder: Path) -> int:
    """Every metric that the records tell of, at its step, value and time; how many they are."""
    lines = (folder / "records.jsonl").read_text().splitlines()
    told: dict[str, list[tuple[int, float, int]]] = {}
    for record in map(json.loads, lines):
        for name, value in record["values"].items() if record["type"] == "metrics" else ():
            told.setdefault(name, []).append((record["step"], value, record["time"]))
    run = run_of(server, folder)
    client = mlflow.MlflowClient(server.address)
    for name, expected in told.items():
        found = client.get_metric_history(run.info.run_id, name)
        entries = [(entry.step, entry.value, entry.timestamp) for entry in found]
        assert sorted(entries) == sorted(expected), name
    assert run.info.status == "FINISHED"
    assert set(told) == set(run.data.metrics)
    assert run.outputs is not None
    assert len(run.outputs.model_outputs) >= 1
    logged = {entry.path for entry in client.list_artifacts(run.info.run_id, "training")}
    assert "training/history.csv" in logged
    return sum(map(len, told.values()))


def start(project: Project, address: str, epochs: int, model: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "image_classification.train", f"model={model}"),
            *(f"recipe.epochs={epochs}", "hydra.run.dir=outputs/it"),
        ],
        cwd=project.root,
        env=project.environment(MLFLOW_TRACKING_URI=address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(training: "subprocess.Popen[str]", epoch: int) -> None:
    assert training.stdout is not None
    while f"epoch {epoch} of" not in (said := training.stdout.readline()):
        assert said, "the training ended before"


def test_outages_on_the_way_lose_nothing_and_tell_nothing_twice(
    project: Project, server: TrackingServer, line: Line
) -> None:
    """Down at the start, then there, cut three times, silent, and gone at the end."""
    project.must("dvc", "repro", "split")
    training = start(project, line.address, EPOCHS, "lm")
    wait_for(training, 20)
    for epoch in (50, 100):
        line.mend()
        wait_for(training, epoch)
        line.cut()
        wait_for(training, epoch + 20)
    line.be_silent()
    epoch, before = 120, time.monotonic()
    while not line.unanswered:  # somebody is waiting for an answer, and it is not the training
        epoch += 1
        wait_for(training, epoch)
    wait_for(training, epoch + 20)
    assert time.monotonic() - before < 20
    line.cut()
    said, errors = training.communicate(timeout=60)

    assert training.returncode == 75
    assert f"epoch {EPOCHS} of {EPOCHS}" in said
    assert "the records of 1 folder(s) wait in outbox/, to be told" in errors
    assert "Traceback" not in errors
    assert errors.count("the training goes on, and its records wait on disk") >= 2
    assert (project.root / "outputs/it/model.keras").exists()

    done = project.run("image-classification", "sync", MLFLOW_TRACKING_URI=line.address)
    assert done.returncode == 75
    line.mend()
    project.must("image-classification", "sync", MLFLOW_TRACKING_URI=line.address)
    project.must("image-classification", "sync", MLFLOW_TRACKING_URI=line.address)
    assert assert_all_is_there_once(server, project.root / "outputs/it") >= 6 * EPOCHS
    assert [path.name for path in (project.root / "outbox").iterdir()] == ["lock"]


def test_a_pipeline_without_its_server_is_delivered_later(
    project: Project, server: TrackingServer, line: Line
) -> None:
    project.edit("params.yaml", "models: [lm, cnn]", "models: [lm]")
    said = project.must("dvc", "repro", MLFLOW_TRACKING_URI=line.address)
    assert said.count("wait in outbox/") == 3  # train, evaluate, compare
    assert (project.root / "reports/index.html").exists()

    line.mend()
    project.must("image-classification", "sync", MLFLOW_TRACKING_URI=line.address)

    client = mlflow.MlflowClient(server.address)
    run = run_of(server, project.root / "models/lm-0")
    version = client.get_model_version_by_alias("tiny", "champion")
    assert version.run_id == run.info.run_id
    measured = json.loads((project.root / "evaluations/lm-0/metrics.json").read_text())
    assert run.data.metrics["test_accuracy"] == pytest.approx(measured["test_accuracy"])
    assert run_of(server, project.root / "reports").info.status == "FINISHED"
