"""A tracking server that is down, goes away, is silent, comes back, or never does."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import Compose, Project, TrackingServer
from mlflow.entities import Run

from image_classification import train
from image_classification.commands import sync
from image_classification.tracking import background_logger, outbox
from image_classification.tracking.mlflow_tags import RUN_KEY
from image_classification.training import checkpoint

EPOCHS = 200
# `python -m image_classification` that does not gather metrics, and whose epochs last longer than
# they would: long enough that an upload is tried anew in between, however fast the machine is.
EAGER = """
import runpy, time
from image_classification.tracking import background_logger
from image_classification.training import checkpoint
background_logger.GATHERING_SECONDS = 0.0
save = checkpoint.save
checkpoint.save = lambda *given: (save(*given), time.sleep(0.1))
runpy.run_module("image_classification", run_name="__main__", alter_sys=True)
"""


class Line:
    """A line to a server that can be cut (connections are refused) or silent (never answered)."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._silent = False
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.unanswered = 0  # connections while the line was silent
        self.served = 0  # pieces of questions and answers since the line was mended

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def mend(self) -> None:
        self.cut()
        self._silent, self.served = False, 0
        self._listen()

    def be_silent(self) -> None:
        self.cut()
        self._silent = True
        self._listen()

    def cut(self) -> None:
        with self._lock:
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
                if not self._keep(caller, listener):
                    return
                if self._silent:
                    self.unanswered += 1
                    continue
                server = socket.create_connection(("127.0.0.1", self._server_port))
                if not self._keep(server, listener):
                    return
                for one, other in ((caller, server), (server, caller)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _keep(self, connection: socket.socket, listener: socket.socket) -> bool:
        """Whether the line still holds; a connection that was just made would outlive its cut."""
        with self._lock:
            if listener is not self._listener:
                connection.close()
                return False
            self._open.append(connection)
            return True

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(1 << 16):
                other.sendall(piece)
                self.served += 1
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


def run_of(server: TrackingServer, folder: Path, experiment: str) -> Run:
    """The one run in MLflow that the event log of a folder is of."""
    key = json.loads((folder / "events.jsonl").read_text().partition("\n")[0])["key"]
    client = mlflow.MlflowClient(server.address)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id], f"tags.`{RUN_KEY}` = '{key}'")
    return client.get_run(run.info.run_id)


def assert_all_is_there_once(server: TrackingServer, folder: Path, experiment: str = "tiny") -> int:
    """Every metric of the event log, at its step, value and time; how many there are."""
    lines = (folder / "events.jsonl").read_text().splitlines()
    logged: dict[str, list[tuple[int, float, int]]] = {}
    for event in map(json.loads, lines):
        for name, value in event["values"].items() if event["type"] == "metrics" else ():
            logged.setdefault(name, []).append((event["step"], value, event["time"]))
    run = run_of(server, folder, experiment)
    client = mlflow.MlflowClient(server.address)
    for name, expected in logged.items():
        found = client.get_metric_history(run.info.run_id, name)
        entries = [(entry.step, entry.value, entry.timestamp) for entry in found]
        assert sorted(entries) == sorted(expected), name
    assert run.info.status == "FINISHED"
    assert set(logged) == set(run.data.metrics)
    assert run.outputs is not None
    assert len(run.outputs.model_outputs) >= 1
    files = {entry.path for entry in client.list_artifacts(run.info.run_id, "training")}
    assert "training/history.csv" in files
    return sum(map(len, logged.values()))


@pytest.mark.slow
def test_outages_in_one_run_lose_nothing_and_log_nothing_twice(
    workspace: Path,
    compose: Compose,
    server: TrackingServer,
    line: Line,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Down at the start, then there, cut, there again, silent, and gone at the end."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", line.address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")  # seconds
    monkeypatch.setattr(background_logger, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(background_logger, "GATHERING_SECONDS", 0.0)
    config = compose("model=tiny_lm", "recipe.epochs=60", "output_dir=outputs/it")
    real_save = checkpoint.save
    silent_since = 0.0

    def save_and_switch(folder: Path, state: checkpoint.State, stamp: dict[str, str]) -> None:
        nonlocal silent_since
        real_save(folder, state, stamp)
        epoch = len(state.rows)
        if epoch in (10, 30):
            line.mend()
        elif epoch in (20, 40):
            wait_until(lambda: line.served > 20)  # it has logged something meanwhile
            line.cut()
        elif epoch == 45:
            line.be_silent()
            wait_until(lambda: line.unanswered)  # a thread waits for an answer
            silent_since = time.monotonic()
        elif epoch == 55:
            assert time.monotonic() - silent_since < 20  # and the training does not
        elif epoch == 60:
            line.cut()

    monkeypatch.setattr(checkpoint, "save", save_and_switch)

    assert train.main(config) == outbox.NOT_UPLOADED

    assert silent_since
    said, errors = capsys.readouterr()
    assert "epoch 60 of 60" in said
    assert "the event logs of 1 folder(s) wait in outbox/" in errors
    assert errors.count("the run continues, and its events wait on disk") == 3
    assert errors.count("MLflow is back") == 2
    assert (workspace / "outputs/it/model.keras").exists()
    assert sync.sync() == outbox.NOT_UPLOADED
    line.mend()
    assert sync.sync() == 0
    assert sync.sync() == 0
    assert assert_all_is_there_once(server, workspace / "outputs/it", "mnist") >= 6 * 60
    assert [path.name for path in (workspace / "outbox").iterdir()] == ["lock"]


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(project: Project, address: str, epochs: int, model: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-c", EAGER, "train", f"model={model}"),
            *(f"recipe.epochs={epochs}", "hydra.run.dir=outputs/it"),
        ],
        cwd=project.root,
        env=project.environment(MLFLOW_TRACKING_URI=address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def follow(training: "subprocess.Popen[str]", holds: Callable[[], object]) -> None:
    """Read what a training says until something holds."""
    assert training.stdout is not None
    while not holds():
        assert training.stdout.readline(), "the training ended before"


def follow_epochs(training: "subprocess.Popen[str]", count: int) -> None:
    assert training.stdout is not None
    while count:
        said = training.stdout.readline()
        assert said, "the training ended before"
        count -= said.startswith("epoch ")


@pytest.mark.slow
def test_a_command_exits_with_75_after_five_outages_and_its_run_is_uploaded_later(
    split_project: Project, server: TrackingServer, line: Line
) -> None:
    """As above with the real pauses between attempts, and by commands."""
    training = start(split_project, line.address, EPOCHS, "tiny_lm")
    follow_epochs(training, 20)
    for _ in range(2):
        line.mend()
        follow(training, lambda: line.served > 20)  # it has logged something meanwhile
        line.cut()
        follow_epochs(training, 5)
    line.be_silent()
    follow(training, lambda: line.unanswered)
    before = time.monotonic()
    follow_epochs(training, 20)  # a thread waits for an answer, and the training does not
    assert time.monotonic() - before < 20
    line.cut()
    said, errors = training.communicate(timeout=180)

    assert training.returncode == 75
    assert f"epoch {EPOCHS} of {EPOCHS}" in said
    assert "the event logs of 1 folder(s) wait in outbox/" in errors
    assert "Traceback" not in errors
    assert errors.count("the run continues, and its events wait on disk") == 3
    root = split_project.root
    assert (root / "outputs/it/model.keras").exists()

    address = {"MLFLOW_TRACKING_URI": line.address}
    assert split_project.run("image-classification", "sync", **address).returncode == 75
    line.mend()
    split_project.must("image-classification", "sync", **address)
    split_project.must("image-classification", "sync", **address)
    assert assert_all_is_there_once(server, root / "outputs/it") >= 6 * EPOCHS
    assert [path.name for path in (root / "outbox").iterdir()] == ["lock"]


@pytest.mark.slow
def test_a_pipeline_without_its_server_is_uploaded_later(
    split_project: Project, server: TrackingServer, line: Line
) -> None:
    split_project.set("params.yaml", "models", ["tiny_lm"])
    said = split_project.must("dvc", "repro", MLFLOW_TRACKING_URI=line.address)
    assert said.count("wait in outbox/") == 3  # train, evaluate, compare
    root = split_project.root
    assert (root / "reports/index.html").exists()

    line.mend()
    split_project.must("image-classification", "sync", MLFLOW_TRACKING_URI=line.address)

    client = mlflow.MlflowClient(server.address)
    run = run_of(server, root / "runs/tiny_lm-0", "tiny")
    version = client.get_model_version_by_alias("tiny", "champion")
    assert version.run_id == run.info.run_id
    measured = json.loads((root / "evaluations/tiny_lm-0/metrics.json").read_text())
    assert run.data.metrics["test_accuracy"] == pytest.approx(measured["test_accuracy"])
    assert run_of(server, root / "reports", "tiny").info.status == "FINISHED"
