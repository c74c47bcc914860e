"""The default pipeline on the real MNIST: `make test-real`. It takes as long as `make repro`."""

import json
from pathlib import Path

import mlflow
import pytest
from conftest import commit, copy_project

AT_LEAST = {"lm": 0.92, "nn": 0.980, "dnn": 0.978, "dnnd": 0.980, "cnn": 0.991, "dcnn": 0.992}


@pytest.mark.real
def test_every_model_reaches_its_accuracy(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    commit(project)

    project.must("dvc", "repro")

    board = json.loads((tmp_path / "reports/leaderboard.json").read_text())
    accuracy = {row["model"]: row["test_accuracy"] for row in board}
    print(accuracy)
    store = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    aliases = store.get_registered_model("mnist").aliases
    best = max(board, key=lambda row: row["validation_accuracy"])["model"]
    assert aliases.keys() == {*AT_LEAST, "champion"}
    assert aliases["champion"] == aliases[best]
    for row in board:
        run = store.get_run(row["run_id"])
        assert run.info.status == "FINISHED"
        history = store.get_metric_history(row["run_id"], "val_accuracy")
        assert [entry.step for entry in history] == list(range(row["epochs"]))
    assert accuracy.keys() == AT_LEAST.keys()
    assert {name: value for name, value in accuracy.items() if value < AT_LEAST[name]} == {}
