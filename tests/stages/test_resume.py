"""A run that is killed resumes where it was, under the same key, and ends the same."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import Compose, Project
from mlflow.entities import Run

from image_classification.commands import sync
from image_classification.core import compose as composing
from image_classification.core import signals
from image_classification.core.config import Config
from image_classification.tracking import event_log
from image_classification.train import TrainedModel, train
from image_classification.training import checkpoint

EPOCHS = 6
# Dropout and augmentation have seeds that are a part of what has to be resumed.
SETTINGS = ("model=tiny_cnn", "augmentation=light", f"recipe.epochs={EPOCHS}")
SAME = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]


def runs(store: Path) -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, order_by=["attributes.start_time"]))


def statuses(store: Path) -> list[str]:
    return [run.info.status for run in runs(store)]


def logged_steps(store: Path, run: Run, metric: str) -> list[int]:
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    return [entry.step for entry in client.get_metric_history(run.info.run_id, metric)]


def stall_after(project: Project, epoch: int) -> None:
    """Have its commands wait for ever after an epoch, so that a kill never comes too late."""
    file = "src/image_classification/core/signals.py"  # no code that trains: the key stays
    end = "    if _received:\n        sys.exit(128 + _received[0])"
    if "stalled" not in (project.root / file).read_text():
        wait = (
            "    import glob, pathlib, time\n"
            "    stalled = 'checkpoints/*/' + pathlib.Path('stalled').read_text()\n"
            "    while not _received and glob.glob(stalled):\n"
            "        time.sleep(0.05)\n"
        )
        project.edit(file, end, wait + end)
    (project.root / "stalled").write_text(f"epoch-{epoch}")


def start(project: Project, output: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "image_classification", "train"),
            *(*SETTINGS, f"hydra.run.dir={output}"),
        ],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def kill_after(training: "subprocess.Popen[str]", epoch: int, number: int) -> str:
    """Kill a run as soon as it says that an epoch is done; what it has printed."""
    assert training.stdout is not None
    said = training.stdout.readline()
    while not re.search(rf"^epoch {epoch} of", said, re.MULTILINE):
        assert training.poll() is None, said
        said += training.stdout.readline()
    training.send_signal(number)
    return said


def resumed_after(said: str) -> int:
    """The epoch after which a run says that it resumes."""
    found = re.search(rf"^resuming after epoch (\d+) of {EPOCHS}$", said, re.MULTILINE)
    assert found, said
    return int(found[1])


def assert_as_if_never_killed(project: Project, whole: Path, killed: Path) -> None:
    found = runs(project.root)
    assert statuses(project.root) == ["FINISHED", "FINISHED"]
    for metric in ("loss", "val_accuracy", "epoch_seconds"):
        for run in found:
            assert logged_steps(project.root, run, metric) == list(range(EPOCHS)), metric
    load = keras.saving.load_model
    weights = [load(folder / "model.keras").get_weights() for folder in (whole, killed)]
    for first, second in zip(*weights, strict=True):
        assert np.array_equal(first, second)
    histories = [pd.read_csv(folder / "history.csv")[SAME] for folder in (whole, killed)]
    assert histories[0].equals(histories[1])
    for name in ("loss", "val_loss", "val_accuracy", "accuracy", "learning_rate"):
        assert found[0].data.metrics[name] == found[1].data.metrics[name]
    assert list((project.root / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_a_killed_process_is_resumed_by_the_next(
    split_project: Project,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only what has to die is a process of its own; the others run in this one."""
    root = split_project.root
    shutil.copy(empty_store, root)
    stall_after(split_project, 2)
    monkeypatch.chdir(root)

    def in_process(output: str) -> str:
        train(composing.compose(*SETTINGS, f"output_dir={output}"))
        return capsys.readouterr().out

    in_process("outputs/whole")
    killed = start(split_project, "outputs/killed")
    kill_after(killed, 2, signal.SIGKILL)
    assert killed.wait(timeout=30) == -signal.SIGKILL
    assert statuses(root) == ["FINISHED", "RUNNING"]
    assert not (root / "outputs/killed/model.keras").exists()
    assert sync.sync() == 0  # any other command closes it as well
    assert statuses(root) == ["FINISHED", "KILLED"]

    assert resumed_after(in_process("outputs/killed")) == 2

    assert_as_if_never_killed(split_project, root / "outputs/whole", root / "outputs/killed")


@pytest.mark.slow
def test_a_run_killed_twice_is_as_if_it_had_not_been(
    split_project: Project, empty_store: Path
) -> None:
    root = split_project.root
    shutil.copy(empty_store, root)
    stall_after(split_project, 1)
    killed = start(split_project, "outputs/killed")
    kill_after(killed, 1, signal.SIGTERM)
    before = time.monotonic()
    assert killed.wait(timeout=30) == 128 + signal.SIGTERM
    assert time.monotonic() - before < 10
    assert statuses(root) == ["KILLED"]

    stall_after(split_project, 4)
    killed = start(split_project, "outputs/killed")
    assert resumed_after(kill_after(killed, 4, signal.SIGKILL)) == 1
    assert killed.wait(timeout=30) == -signal.SIGKILL
    assert statuses(root) == ["RUNNING"]
    assert not (root / "outputs/killed/model.keras").exists()
    split_project.must("image-classification", "sync")  # any other command closes it as well
    assert statuses(root) == ["KILLED"]

    stall_after(split_project, EPOCHS + 1)
    resumed = start(split_project, "outputs/killed")
    said = resumed.communicate(timeout=120)[0]
    assert resumed.returncode == 0
    assert resumed_after(said) == 4
    whole = start(split_project, "outputs/whole")
    whole.communicate(timeout=120)
    assert whole.returncode == 0

    assert_as_if_never_killed(split_project, root / "outputs/whole", root / "outputs/killed")


def small(compose: Compose, epochs: int) -> Config:
    """A run with dropout, whose seed is a part of what has to be resumed."""
    config = compose("model=tiny_cnn", f"recipe.epochs={epochs}", "recipe.batch_size=32")
    config.model.layers = {
        "flatten": {"type": "Flatten"},
        "hidden": {"type": "Dense", "units": 8},
        "dropout": {"type": "Dropout"},
    }
    return config


@pytest.fixture
def terminable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process takes SIGTERM as a command does."""
    monkeypatch.setattr(signals, "_received", [])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signals.on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
def test_a_terminated_run_is_marked_killed_within_seconds(
    workspace: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, terminable: None
) -> None:
    config = small(compose, epochs=3)
    config.output_dir = "outputs/terminated"
    real, terminated = checkpoint.save, 0.0

    def save_and_terminate(*arguments: Any) -> None:
        nonlocal terminated
        real(*arguments)
        terminated = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_and_terminate)
        with pytest.raises(SystemExit) as ended:
            train(config)

    assert ended.value.code == 128 + signal.SIGTERM
    assert time.monotonic() - terminated < 10
    assert statuses(workspace)[-1] == "KILLED"


class Killed(KeyboardInterrupt):
    pass


PLACES = [
    (checkpoint, "save"),
    (checkpoint, "sync_to_disk"),
    (Path, "rename"),
    (shutil, "rmtree"),
    (event_log.EventLog, "append"),
]


@contextmanager
def interrupted(place: tuple[object, str], epoch: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Interrupt a run before the call that belongs to an epoch."""
    target, name = place
    real = getattr(target, name)
    happened = False

    def dying(*arguments: object, **options: object) -> object:
        nonlocal happened
        folder = next(iter(Path("checkpoints").resolve().glob("*/epoch-*")), None)
        done = int(folder.name.removeprefix("epoch-")) if folder else 0
        if done >= epoch and "save_and_log" in callers():
            happened = True
            raise Killed
        return real(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(target, name, dying)
        with pytest.raises(Killed):
            yield
    assert happened


def assert_same_result(one: TrainedModel, other: TrainedModel, config: Config) -> None:
    log = event_log.read(Path(config.output_dir) / "events.jsonl")
    steps = [event["step"] for event in log if "epoch_seconds" in event.get("values", ())]
    assert steps == list(range(config.recipe.epochs))
    assert one.history[SAME].equals(other.history[SAME])
    for first, second in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        assert np.array_equal(first, second)


@pytest.mark.slow
def test_a_run_interrupted_at_five_places_is_as_if_it_had_not_been(
    workspace: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At another place in each epoch, so that one run is resumed five times."""
    shutil.rmtree("checkpoints", ignore_errors=True)  # what other tests left unfinished
    config = small(compose, epochs=len(PLACES))
    config.output_dir = "outputs/whole"
    whole = train(config)
    config.output_dir = "outputs/interrupted"

    for epoch, place in enumerate(PLACES):
        with interrupted(place, epoch, monkeypatch):
            train(config)

    assert_same_result(train(config), whole, config)


@pytest.fixture(scope="module")
def whole() -> dict[str, TrainedModel]:
    """The run that was not interrupted, once it has been done."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("epoch", range(3))
@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0].__name__}.{place[1]}")
def test_an_interruption_at_any_point_of_saving_changes_nothing(
    workspace: Path,
    compose: Compose,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, TrainedModel],
    place: tuple[object, str],
    epoch: int,
) -> None:
    shutil.rmtree("checkpoints", ignore_errors=True)  # what other tests left unfinished
    config = small(compose, epochs=3)
    config.output_dir = "outputs/whole"
    if not whole:
        whole["it"] = train(config)
    config.output_dir = f"outputs/{place[1]}-{epoch}"

    with interrupted(place, epoch, monkeypatch):
        train(config)

    assert_same_result(train(config), whole["it"], config)


def callers() -> set[str]:
    """The names of the functions that are being called."""
    names, frame = set(), sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]  # None ends it
        names.add(frame.f_code.co_name)
    return names
