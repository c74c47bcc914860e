"""A team's tracking server as compose.yaml has it, without Docker: PostgreSQL, S3, passwords.

Needs Debian's postgresql, and the dependency group `cluster` (`make test-cluster`).
"""

import configparser
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import servers
import yaml
from conftest import ROOT, Project
from mlflow.entities import Run
from servers import Bucket, free_port, wait_for

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not PROGRAMS, reason="needs postgresql"),
    servers.NEEDS_GROUP,
]
CLIENTS = 4
EPOCHS = 150
USER, PASSWORD = "ann", "correct horse battery"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty database in a PostgreSQL of its own."""
    # PostgreSQL does not run as root; then its own user has to reach the folder.
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(f"/tmp/postgresql-{os.getpid()}")
    folder.mkdir()
    if user:
        shutil.chown(folder, user)
    port = free_port()
    programs = PROGRAMS[-1]
    made = [str(programs / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "mlflow"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, user=user)
    run = [
        str(programs / "postgres"),
        "-D",
        str(folder / "data"),
        "-p",
        str(port),
        "-k",
        str(folder),
    ]
    log = (tmp_path_factory.mktemp("database") / "log").open("w")
    process = subprocess.Popen(run, cwd=folder, stdout=log, stderr=log, user=user)
    try:
        ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        latest = time.monotonic() + 60
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            assert time.monotonic() < latest
            time.sleep(0.5)
        made = [
            str(programs / "createdb"),
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-U",
            "mlflow",
            "mlflow",
        ]
        subprocess.run(made, check=True, cwd=folder)
        yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with servers.s3(tmp_path_factory.mktemp("storage")) as bucket:
        yield bucket


@dataclass
class Server:
    """MLflow's server on PostgreSQL and S3, which can be restarted."""

    folder: Path
    database: str
    storage: Bucket
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        composed = yaml.safe_load((ROOT / "compose.yaml").read_text())
        settings = configparser.ConfigParser(interpolation=None)
        settings.read_string(composed["configs"]["auth"]["content"])
        own = {"database_uri": self.database, "admin_username": USER, "admin_password": PASSWORD}
        settings["mlflow"].update(own)
        with (self.folder / "auth.ini").open("w") as file:
            settings.write(file)
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
            *("--backend-store-uri", self.database),
            *("--artifacts-destination", self.storage.address),
            *("--host", "127.0.0.1", "--port", str(self.port), "--workers", "2"),
        ]
        variables = {
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret of this test",
        }
        variables |= {**self.storage.variables, "MLFLOW_TRACKING_URI": ""}
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **variables}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        wait_for(f"{self.address}/health")

    def kill(self) -> None:
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(
    tmp_path_factory: pytest.TempPathFactory, database: str, storage: Bucket
) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"), database, storage, free_port())
    try:
        made.start()
        yield made
    finally:
        made.kill()


def test_four_clients_one_killed_and_a_restart_lose_nothing(
    split_project: Project, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    variables = {"MLFLOW_TRACKING_URI": server.address, **login}
    assert (
        "wait in outbox"
        in split_project.run(
            *(sys.executable, "-m", "image_classification", "train", "model=tiny_lm", "seed=9"),
            MLFLOW_TRACKING_URI=server.address,  # without a password
        ).stderr
    )

    def start(seed: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "image_classification", "train", "model=tiny_lm"),
                *(f"seed={seed}", f"recipe.epochs={EPOCHS}", f"hydra.run.dir=outputs/{seed}"),
            ],
            cwd=split_project.root,
            env=split_project.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    clients = [start(seed) for seed in range(CLIENTS)]
    killed = clients[-1]
    assert killed.stdout is not None
    while "epoch 5 of" not in killed.stdout.readline():
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    server.kill()
    time.sleep(3)
    server.start()
    for client in clients[:-1]:
        client.communicate(timeout=300)
    again = start(CLIENTS - 1)
    said = again.communicate(timeout=300)[0]
    assert "resuming after epoch" in said
    split_project.must("image-classification", "sync", **variables)

    for name, value in login.items():
        monkeypatch.setenv(name, value)
    store = mlflow.MlflowClient(server.address)
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is not None
    runs: list[Run] = list(store.search_runs([experiment.experiment_id]))
    assert sorted(run.data.tags["seed"] for run in runs) == ["0", "1", "2", "3", "9"]
    for run in runs:
        assert run.info.status == "FINISHED"
        if run.data.tags["seed"] == "9":
            continue
        for metric in ("loss", "val_accuracy"):
            history = store.get_metric_history(run.info.run_id, metric)
            assert [entry.step for entry in history] == list(range(EPOCHS))
        files = {entry.path for entry in store.list_artifacts(run.info.run_id, "training")}
        assert "training/history.csv" in files
    models = store.search_logged_models([experiment.experiment_id])
    assert len({model.source_run_id for model in models}) == CLIENTS + 1
