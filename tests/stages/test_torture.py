"""The long version: kills at random over the whole pipeline, a server that dies again and again.

`make torture` runs it and shows what is printed: each kill, and what was counted.
"""

import contextlib
import ctypes
import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import mlflow
import pandas as pd
import psutil
import pytest
from conftest import Mirror, Project, TrackingServer, tiny_project
from test_outage import assert_all_is_there_once, follow_epochs, start

pytestmark = pytest.mark.torture

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
KILLS = int(os.environ.get("TORTURE_KILLS", "50"))
EPOCHS = 12
RESTARTS = int(os.environ.get("TORTURE_RESTARTS", "20"))
SAME = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
NAMES = ("tiny_lm-0", "tiny_cnn-0")


def outcome(project: Project) -> dict[str, Any]:
    """What must be the same however often the pipeline was killed."""
    found: dict[str, Any] = {}
    for name in NAMES:
        training, evaluation = project.root / "runs" / name, project.root / "evaluations" / name
        model = keras.saving.load_model(training / "model.keras", compile=False)
        found[name] = {
            "weights": [weights.tobytes() for weights in model.get_weights()],
            "history": pd.read_csv(training / "history.csv")[SAME].to_csv(),
            "metrics": json.loads((evaluation / "metrics.json").read_text()),
            "predictions": (evaluation / "predictions/test.csv").read_text(),
        }
    verdict = json.loads((project.root / "reports/verdict.json").read_text())
    return {**found, "verdict": verdict}


def logged(project: Project) -> dict[str, Any]:
    """What MLflow must hold once: epochs at their steps, versions, and no run left RUNNING."""
    client = mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    trained = {run.info.run_name: run for run in runs if run.info.run_name in NAMES}
    counted = Counter(run.info.run_name for run in runs)
    assert [counted[name] for name in NAMES] == [1, 1]
    steps = {
        (name, metric): [entry.step for entry in client.get_metric_history(run.info.run_id, metric)]
        for name, run in trained.items()
        for metric in ("loss", "val_accuracy", "epoch_seconds")
    }
    versions = {
        int(version.version): client.get_run(str(version.run_id)).info.run_name
        for version in client.search_model_versions("name = 'tiny'")
    }
    statuses = {name: run.info.status for name, run in trained.items()}
    aliases = set(client.get_registered_model("tiny").aliases)
    return {"steps": steps, "versions": versions, "statuses": statuses, "aliases": aliases}


def longer(root: Path, mirror: Mirror) -> Project:
    root.mkdir()
    project = tiny_project(root, mirror, epochs=EPOCHS)
    (root / ".venv").mkdir()
    project.must("git", "commit", "--quiet", "--all", "--message", "longer")
    (root / ".venv/.installed").touch()  # what runs is this test's environment
    return project


def test_the_pipeline_killed_at_random_comes_to_the_same(tmp_path: Path, mirror: Mirror) -> None:
    seed = int(os.environ.get("TORTURE_SEED", "0"))
    generator = random.Random(seed)
    print("\nthe pipeline without kills", flush=True)
    whole = longer(tmp_path / "whole", mirror)
    whole.must("make", "repro")
    expected, expected_logged = outcome(whole), logged(whole)
    points: Counter[str] = Counter()
    rounds = 0
    while points.total() < KILLS:
        project = longer(tmp_path / f"round-{rounds}", mirror)
        rounds += 1
        print(f"pipeline {rounds}, after {points.total()} of {KILLS} kills", flush=True)
        while place := killed_or_done(project, generator):
            points[place] += 1
            print(f"kill {points.total()} of {KILLS} or more: {place}", flush=True)
        assert outcome(project) == expected
        assert logged(project) == expected_logged
        left = [path.name for path in (project.root / "checkpoints").glob("*")]
        # A kill while a folder is discarded leaves it under another name, or its lock.
        assert [name for name in left if ".discarded-" not in name and ".lock" not in name] == []
    print(f"{points.total()} kills in {rounds} pipelines (seed {seed}), at:")
    for place, count in sorted(points.items()):
        print(f"  {count:3d}  {place}")
    assert len(points) >= 5


def killed_or_done(project: Project, generator: random.Random) -> str | None:
    """Let `make repro` run for a while and kill it and all that it started; or see it end.

    Returns:
        How and where it was killed; None if it ended.
    """
    number = generator.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    log = project.root / "repro.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            ["make", "repro"],
            cwd=project.root,
            env=project.environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        code = running.wait(timeout=generator.uniform(0.3, 14))
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, number)
        running.wait(timeout=60)
        wait_until_gone(running.pid)
        return f"{number.name:7s}  {place_of(log.read_text())}"
    assert code == 0, log.read_text()
    return None


def wait_until_gone(group: int) -> None:
    """Wait for what DVC had started, which gets a signal of its own when DVC dies."""
    deadline = time.monotonic() + 60
    while members(group):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def members(group: int) -> list[int]:
    """The living processes of a group; the dead ones are waited for, as a system's init does."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, ChildProcessError):
            if os.getpgid(process.pid) == group:
                found.append(process.pid)
                if process.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(process.pid, os.WNOHANG)
    return found


@pytest.fixture(autouse=True)
def as_init() -> None:
    """The children of a killed process become children of this process; Linux only."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def place_of(printed: str) -> str:
    """The stage that was running, and how far it had got."""
    stages = re.findall(r"Running stage '([^']+)'", printed)
    if not stages:
        return "before the first stage"
    tail = printed.rpartition("Running stage")[2]
    epochs = re.findall(r"^(?:epoch|resuming after epoch) (\d+) of", tail, re.MULTILINE)
    if epochs:
        return f"{stages[-1]}, after epoch {epochs[-1]}"
    if "Leaderboard  " in tail:
        return "sync"
    if "Updating lock file" in tail:
        return f"{stages[-1]}, done"
    return str(stages[-1])


def test_a_server_killed_again_and_again_holds_everything_once(
    tmp_path: Path, mirror: Mirror
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "project").mkdir()
    project = tiny_project(tmp_path / "project", mirror)
    project.must("dvc", "repro", "split")
    server = TrackingServer(tmp_path / "server")
    server.start()
    epochs = 50 * RESTARTS
    run = start(project, server.address, epochs, "tiny_cnn")
    generator = random.Random(int(os.environ.get("TORTURE_SEED", "0")))
    outages = 0
    try:
        follow_epochs(run, 1)
        for _ in range(RESTARTS):
            time.sleep(generator.uniform(0.5, 3))
            assert run.poll() is None, "the run ended before the outages did"
            server.kill()
            outages += 1
            print(f"kill {outages} of {RESTARTS} of the server", flush=True)
            time.sleep(generator.uniform(0, 2))
            server.start()
            print(f"start {outages} of {RESTARTS} of the server", flush=True)
        print(f"waiting for the run to end after {epochs} epochs", flush=True)
        _, errors = run.communicate(timeout=1200)
        assert run.returncode in (0, 75), errors
        project.must("image-classification", "sync", MLFLOW_TRACKING_URI=server.address)
        count = assert_all_is_there_once(server, project.root / "outputs/it")
    finally:
        run.kill()
        server.kill()
    noticed = errors.count("MLflow is back")
    print(f"{outages} kills of the server, {noticed} noticed, {count} metric values once each")
    assert outages == RESTARTS
    assert noticed >= 1
