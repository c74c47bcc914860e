"""A training that is killed goes on where it was, under the same run, and ends the same."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import Compose, Project
from mlflow.entities import Run

from image_classification import checkpoint, records
from image_classification.train import Training, train

EPOCHS = 6
SAME = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]


def runs(store: Path) -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, order_by=["attributes.start_time"]))


def told_steps(store: Path, run: Run, metric: str) -> list[int]:
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    return [entry.step for entry in client.get_metric_history(run.info.run_id, metric)]


def start(project: Project, *overrides: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "image_classification.train", "model=cnn"),
            *(f"recipe.epochs={EPOCHS}", *overrides),
        ],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def kill_after(training: "subprocess.Popen[str]", epoch: int, number: int) -> list[str]:
    """Kill a training as soon as it says that an epoch is done; what it has said."""
    assert training.stdout is not None
    said = [training.stdout.readline()]
    while f"epoch {epoch} of" not in said[-1]:
        assert training.poll() is None, said
        said.append(training.stdout.readline())
    training.send_signal(number)
    return said


def test_a_training_killed_twice_is_as_if_it_had_not_been(project: Project) -> None:
    project.must("dvc", "repro", "split")
    whole = start(project, "hydra.run.dir=outputs/whole")
    assert whole.wait(timeout=120) == 0

    killed = start(project, "hydra.run.dir=outputs/killed")
    kill_after(killed, 2, signal.SIGTERM)
    before = time.monotonic()
    assert killed.wait(timeout=30) == 128 + signal.SIGTERM
    assert time.monotonic() - before < 10
    assert [run.info.status for run in runs(project.root)] == ["FINISHED", "KILLED"]

    killed = start(project, "hydra.run.dir=outputs/killed")
    said = kill_after(killed, 4, signal.SIGKILL)
    assert killed.wait(timeout=30) == -signal.SIGKILL
    assert re.search(r"goes on after epoch [2-6] of 6", "".join(said))
    assert [run.info.status for run in runs(project.root)] == ["FINISHED", "RUNNING"]
    assert not (project.root / "outputs/killed/model.keras").exists()
    project.must("image-classification", "sync")  # any other command closes it as well
    assert [run.info.status for run in runs(project.root)] == ["FINISHED", "KILLED"]

    resumed = start(project, "hydra.run.dir=outputs/killed")
    said = resumed.communicate(timeout=120)[0].splitlines()
    assert resumed.returncode == 0
    assert any(re.match(r"goes on after epoch [456] of 6", line) for line in said)

    found = runs(project.root)
    assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]
    for metric in ("loss", "val_accuracy", "epoch_seconds"):
        assert told_steps(project.root, found[1], metric) == list(range(EPOCHS)), metric
    one, two = (project.root / f"outputs/{name}" for name in ("whole", "killed"))
    load = keras.saving.load_model
    weights = [load(folder / "model.keras").get_weights() for folder in (one, two)]
    for first, second in zip(*weights, strict=True):
        assert np.array_equal(first, second)
    histories = [pd.read_csv(folder / "history.csv")[SAME] for folder in (one, two)]
    assert histories[0].equals(histories[1])
    for name in ("loss", "val_loss", "val_accuracy", "accuracy", "learning_rate"):
        assert found[0].data.metrics[name] == found[1].data.metrics[name]
    assert list((project.root / "checkpoints").iterdir()) == []


class Killed(KeyboardInterrupt):
    pass


@pytest.fixture(scope="module")
def whole() -> dict[str, Training]:
    """The training that was not interrupted, once it has been done."""
    return {}


@pytest.mark.parametrize("epoch", range(3))
@pytest.mark.parametrize(
    "place",
    [
        (checkpoint, "save"),
        (checkpoint, "to_disk"),
        (Path, "rename"),
        (shutil, "rmtree"),
        (records.Records, "append"),
    ],
    ids=lambda place: f"{place[0].__name__}.{place[1]}",
)
def test_an_interruption_at_any_point_of_keeping_changes_nothing(
    workspace: Path,
    compose: Compose,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, Training],
    place: tuple[object, str],
    epoch: int,
) -> None:
    """Before the call that belongs to an epoch: what it was to do has not been done."""
    config = compose("model=dnnd", "recipe.epochs=3", "recipe.batch_size=32")
    config.model.layers = {
        "flatten": {"type": "Flatten"},
        "hidden": {"type": "Dense", "units": 8},
        "dropout": {"type": "Dropout"},
    }
    config.output_dir = "outputs/whole"
    if not whole:
        whole["it"] = train(config)
    config.output_dir = f"outputs/{place[1]}-{epoch}"
    target, name = place
    real = getattr(target, name)
    interrupted = False

    def dying(*arguments: object, **options: object) -> object:
        nonlocal interrupted
        folder = next(iter((workspace / "checkpoints").glob("*/epoch-*")), None)
        done = int(folder.name.removeprefix("epoch-")) if folder else 0
        if done >= epoch and (workspace / "checkpoints").exists() and "keep" in callers():
            interrupted = True
            raise Killed
        return real(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(target, name, dying)
        with pytest.raises(Killed):
            train(config)
    assert interrupted

    resumed = train(config)

    run = records.read(Path(config.output_dir) / "records.jsonl")
    steps = [record["step"] for record in run if "epoch_seconds" in record.get("values", ())]
    assert steps == [0, 1, 2]
    assert resumed.history[SAME].equals(whole["it"].history[SAME])
    for one, two in zip(resumed.model.get_weights(), whole["it"].model.get_weights(), strict=True):
        assert np.array_equal(one, two)


def callers() -> set[str]:
    """The names of the functions that are being called."""
    names, frame = set(), sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]  # None ends it
        names.add(frame.f_code.co_name)
    return names
