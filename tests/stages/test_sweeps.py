"""Sweeps: one after the other, several at once, and what is left of those that failed or ended."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import mlflow
import numpy as np
import psutil
import pytest
from conftest import Project
from mlflow.entities import Run

NAMES = ["tiny_cnn-0", "tiny_lm-0"]
SWEEP = ("recipe=notebook", "recipe.epochs=1")
TWO_AT_ONCE = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def in_mlflow(project: Project, query: str) -> list[Run]:
    """The runs of the data set that a query of MLflow's finds, newest first."""
    store = mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(store.search_runs([experiment.experiment_id], query))


def children(project: Project, parent: Run) -> list[Run]:
    return in_mlflow(project, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")


def names(runs: list[Run]) -> list[str]:
    return sorted(str(run.info.run_name) for run in runs)


def sweep(project: Project, *overrides: str) -> tuple[str, list[Run]]:
    """Run a sweep; what it printed, and its runs in MLflow."""
    said = project.must("hydra", "-m", *overrides, *SWEEP)
    parent, *_ = in_mlflow(project, "tags.sweep = 'true'")
    assert parent.info.status == "FINISHED"
    return said, children(project, parent)


@pytest.mark.slow
def test_a_sweep_has_one_parent_repeats_nothing_and_leaves_dvc_alone(trained_copy: Project) -> None:
    said, children = sweep(trained_copy, "model=tiny_lm,tiny_cnn,tiny_lm")

    assert sorted(run.info.run_name for run in children) == NAMES
    assert {run.info.status for run in children} == {"FINISHED"}
    batch_size = trained_copy.value("conf/recipe/notebook.yaml", "batch_size")
    assert {run.data.params["recipe.batch_size"] for run in children} == {str(batch_size)}
    for number, name in enumerate(("tiny_lm-0", "tiny_cnn-0", "tiny_lm-0"), start=1):
        assert f"run {number} of 3: {name}" in said
    (first,) = (run.info.run_id for run in children if run.info.run_name == "tiny_lm-0")
    (model,) = trained_copy.root.glob("multirun/*/0-tiny_lm-0/model.keras")
    place = model.relative_to(trained_copy.root)
    assert f"skipped: MLflow run {first} has trained tiny_lm-0; its model is {place}\n" in said
    assert not list(trained_copy.root.glob("multirun/*/2-*"))  # of the job that was skipped
    assert trained_copy.dvc_status() == {}
    assert trained_copy.must("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_sweep_over_recipes_and_augmentations(split_project: Project) -> None:
    swept = ("recipe=fast,notebook", "augmentation=none,light")
    split_project.must("hydra", "-m", "model=tiny_lm", *swept, "recipe.epochs=1")

    (parent,) = in_mlflow(split_project, "tags.sweep = 'true'")
    found = [run.data.params for run in children(split_project, parent)]
    assert sorted((one["recipe.name"], one["augmentation.name"]) for one in found) == [
        ("fast", "light"),
        ("fast", "none"),
        ("notebook", "light"),
        ("notebook", "none"),
    ]


@pytest.mark.slow
def test_a_sweep_in_one_process_lets_go_of_the_data_of_each_job(split_project: Project) -> None:
    command = ("hydra", "-m", "model=tiny_lm", "seed=range(0,3)", *SWEEP)
    with subprocess.Popen(
        command,
        cwd=split_project.root,
        env=split_project.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("run 3 of 3"):
                files = Path(f"/proc/{process.pid}/fd").iterdir()
                opened = [str(file.readlink()) for file in files if file.is_symlink()]
                break
        process.communicate()

    assert process.returncode == 0
    # The third job may have opened it, and the first two no longer hold it.
    assert sum(name.endswith("split/train_images.npy") for name in opened) <= 1


@pytest.mark.slow
def test_a_job_that_fails_ends_no_sweep_and_the_same_command_runs_only_it(
    trained_copy: Project,
) -> None:
    broken = trained_copy.root / "conf/model/broken.yaml"
    layers = "layers: {flatten: {type: Flatten}, hidden: {type: Dense, units: %s}}\n"
    broken.write_text(layers % "-1")
    command = ("hydra", "-m", "model=broken,tiny_lm", "hydra.sweep.dir=outputs/named", *SWEEP)
    failing = trained_copy.run(*command)
    broken.write_text(layers % "4")
    again = trained_copy.must(*command)

    assert failing.returncode == 1
    error = "conf/model/broken.yaml: layers.hidden: "
    assert f"error: {error}" in failing.stderr
    assert f"failed: 0-broken-0: {error}" in failing.stderr
    assert "1 failed: fix that and repeat the command" in failing.stderr
    assert "Traceback" not in failing.stderr
    assert names(in_mlflow(trained_copy, "attributes.status = 'FAILED'")) == ["broken-0"]
    (parent,) = in_mlflow(trained_copy, "tags.sweep = 'true'")  # of both tries
    assert parent.info.status == "FINISHED"
    assert names(children(trained_copy, parent)) == ["broken-0", "broken-0", "tiny_lm-0"]
    assert "run 2 of 2: tiny_lm-0\nepoch 1 of 1" in failing.stdout
    assert "run 1 of 2: broken-0\nepoch 1 of 1" in again
    assert "has trained tiny_lm-0" in again


@pytest.mark.slow
def test_a_sweep_does_not_repeat_what_another_has_trained(trained_copy: Project) -> None:
    _, first = sweep(trained_copy, "model=tiny_lm,tiny_cnn")
    shutil.rmtree(trained_copy.root / "multirun")
    said, second = sweep(trained_copy, "model=tiny_lm", "seed=range(0,2)")

    assert sorted(run.info.run_name for run in first) == NAMES
    assert [run.info.run_name for run in second] == ["tiny_lm-1"]
    (known,) = (run.info.run_id for run in first if run.info.run_name == "tiny_lm-0")
    model = f"runs:/{known}/tiny_lm-0"
    assert f"skipped: MLflow run {known} has trained tiny_lm-0; its model is {model}\n" in said
    store = f"sqlite:///{trained_copy.root / 'mlflow.db'}"
    load = f"import mlflow; mlflow.pyfunc.load_model({model!r})"
    trained_copy.must(sys.executable, "-c", load, MLFLOW_TRACKING_URI=store)


def weights(folder: Path) -> list[np.ndarray]:
    return list(keras.saving.load_model(folder / "model.keras").get_weights())


@pytest.mark.slow
def test_jobs_at_once_come_to_the_same_weights_under_one_parent(split_project: Project) -> None:
    project = split_project
    swept = ("model=tiny_lm,tiny_cnn", "seed=0,1", *SWEEP)
    said = project.must("hydra", "-m", *TWO_AT_ONCE, *swept, "hydra.sweep.dir=outputs/at_once")
    shutil.move(project.root / "mlflow.db", project.root / "mlflow-at-once.db")
    project.must("hydra", "-m", *swept, "hydra.sweep.dir=outputs/in_turn")

    jobs = ["0-tiny_lm-0", "1-tiny_lm-1", "2-tiny_cnn-0", "3-tiny_cnn-1"]
    for number, job in enumerate(jobs, start=1):
        assert f"{job}: run {number} of 4: {job[2:]}\n" in said
        for own, other in zip(
            *(weights(project.root / "outputs" / way / job) for way in ("at_once", "in_turn")),
            strict=True,
        ):
            assert np.array_equal(own, other)
    assert "sweep: 4 of 4 ended\n" in said
    shutil.move(project.root / "mlflow-at-once.db", project.root / "mlflow.db")
    (parent,) = in_mlflow(project, "tags.sweep = 'true'")
    assert parent.info.status == "FINISHED"
    assert names(children(project, parent)) == sorted(job[2:] for job in jobs)
    left = {path.name for path in (project.root / "outputs/at_once").iterdir()}
    assert left == {*jobs, "events.jsonl", "multirun.yaml"}


@pytest.mark.slow
def test_a_job_that_fails_beside_others_ends_no_sweep(split_project: Project) -> None:
    broken = split_project.root / "conf/model/broken.yaml"
    broken.write_text("layers: {flatten: {type: Flatten}, hidden: {type: Dense, units: -1}}\n")
    failing = split_project.run("hydra", "-m", *TWO_AT_ONCE, "model=broken,tiny_lm", *SWEEP)

    error = "conf/model/broken.yaml: layers.hidden: "
    assert failing.returncode == 1
    assert f"0-broken-0: error: {error}" in failing.stderr
    assert f"\nfailed: 0-broken-0: {error}" in failing.stderr
    assert "Traceback" not in failing.stderr
    (parent,) = in_mlflow(split_project, "tags.sweep = 'true'")
    ended = {run.info.run_name: run.info.status for run in children(split_project, parent)}
    assert (parent.info.status, ended) == (
        "FAILED",
        {"broken-0": "FAILED", "tiny_lm-0": "FINISHED"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_ended_leaves_nobody_and_the_same_command_goes_on(
    split_project: Project, number: int
) -> None:
    """Also without joblib: what is missing is known by the runs, not by who made them."""
    swept = ("model=tiny_lm", "seed=range(0,3)", "recipe=notebook", "recipe.epochs=60")
    command = subprocess.Popen(
        ["hydra", "-m", *TWO_AT_ONCE, *swept],
        cwd=split_project.root,
        env=split_project.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    said = ""
    while not all(re.search(rf"{job}.*: epoch 3 of", said) for job in ("0-", "1-")):
        line = command.stdout.readline()
        assert line, said
        said += line
    workers = psutil.Process(command.pid).children(recursive=True)
    command.send_signal(number)
    assert command.wait(timeout=30) == (143 if number == signal.SIGTERM else -number)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    again = split_project.must("hydra", "-m", *swept)

    assert len(re.findall(r"^resuming after epoch", again, re.MULTILINE)) == 2
    (parent,) = in_mlflow(split_project, "tags.sweep = 'true'")
    found = children(split_project, parent)
    assert names(found) == [f"tiny_lm-{seed}" for seed in range(3)]
    assert {run.info.status for run in [parent, *found]} == {"FINISHED"}


@pytest.mark.slow
def test_a_job_whose_process_is_killed_is_one_line(split_project: Project) -> None:
    command = subprocess.Popen(
        ["hydra", "-m", *TWO_AT_ONCE, "model=tiny_lm", "seed=0,1", "recipe.epochs=500"],
        cwd=split_project.root,
        env=split_project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    while "epoch 1 of" not in (line := command.stdout.readline()):
        assert line
    worker = max(psutil.Process(command.pid).children(), key=lambda one: one.memory_info().rss)
    worker.kill()
    _, errors = command.communicate(timeout=60)

    assert command.returncode == 1
    assert "error: a process of the sweep was killed, perhaps for lack of memory" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_search_has_one_parent_with_its_pictures_and_leaves_its_best_trial(
    split_project: Project,
) -> None:
    """Begun with two jobs at once, continued one after the other."""
    search = ("search=optuna", "search.study=tried", "model=tiny_lm", "recipe.epochs=3")
    split_project.must("hydra", "-m", *TWO_AT_ONCE, *search, "trial=range(0,6)")
    said = split_project.must("hydra", "-m", *search, "trial=range(0,8)")

    assert len(re.findall(r"^skipped: trial \d of tried has ended$", said, re.MULTILINE)) == 6
    (parent,) = in_mlflow(split_project, "tags.sweep = 'true'")
    assert parent.info.status == "FINISHED"
    found = children(split_project, parent)
    assert sorted(run.data.tags["trial"] for run in found) == [str(number) for number in range(8)]
    assert {run.info.status for run in found} <= {"FINISHED", "KILLED"}  # the latter were pruned
    store = mlflow.MlflowClient(f"sqlite:///{split_project.root / 'mlflow.db'}")
    pictures = {Path(one.path).name for one in store.list_artifacts(parent.info.run_id, "search")}
    assert {"history.png", "epochs.png", "importances.png"} <= pictures
    finished = [run for run in found if run.info.status == "FINISHED"]
    best = max(finished, key=lambda run: float(run.data.metrics["val_accuracy"]))
    again = split_project.must("hydra", "+experiment=tried", "recipe.epochs=3", "--cfg", "job")
    rate = re.search(r"^  learning_rate: (\S+)$", again, re.MULTILINE)
    assert rate
    scores = {
        run.data.params["recipe.learning_rate"]: run.data.metrics["val_accuracy"]
        for run in finished
    }
    assert scores[rate[1]] == best.data.metrics["val_accuracy"]
