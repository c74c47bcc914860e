"""Eight runs at once into one SQLite file, which is not there when they start."""

import subprocess
import sys

import mlflow
import pytest
from conftest import Project

RUNS = 8
EPOCHS = 30


@pytest.mark.slow
def test_eight_runs_at_once_lose_nothing(split_project: Project) -> None:
    project = split_project
    assert not (project.root / "mlflow.db").exists()
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "image_classification", "train", "model=tiny_lm"),
                *(f"seed={seed}", f"recipe.epochs={EPOCHS}"),
            ],
            cwd=project.root,
            env=project.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(RUNS)
    ]
    said = [process.communicate(timeout=300)[1] for process in started]

    assert [process.returncode for process in started] == [0] * RUNS
    assert not any("locked" in errors or "MLflow" in errors for errors in said), said
    client = mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    (experiment,) = (found for found in client.search_experiments() if found.name == "tiny")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["seed"] for run in runs) == [str(i) for i in range(RUNS)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        for metric in ("loss", "val_accuracy", "learning_rate"):
            history = client.get_metric_history(run.info.run_id, metric)
            assert [entry.step for entry in history] == list(range(EPOCHS))
        assert run.data.params["recipe.epochs"] == str(EPOCHS)
    assert len({frozenset(run.data.params) for run in runs}) == 1  # none lacks a parameter
    models = client.search_logged_models([experiment.experiment_id])
    assert len({model.source_run_id for model in models}) == RUNS
