"""Six models on the real MNIST by the recipe `fast`: `make test-real`. It takes minutes."""

import json
from pathlib import Path

import mlflow
import pytest
import yaml
from conftest import commit, copy_project, fixed_params

from image_classification.tracking.mlflow_tags import RUN_KEY

AT_LEAST = {"lm": 0.92, "nn": 0.980, "dnn": 0.978, "dnnd": 0.980, "cnn": 0.991, "dcnn": 0.992}


@pytest.mark.real
def test_every_model_reaches_its_accuracy(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(fixed_params("mnist", list(AT_LEAST))))
    commit(project)

    project.must("dvc", "repro")

    board = json.loads((tmp_path / "reports/leaderboard.json").read_text())
    accuracy = {row["model"]: row["test_accuracy"] for row in board}
    print(accuracy)
    store = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    aliases = store.get_registered_model("mnist").aliases
    best = max(board, key=lambda row: row["validation_accuracy"])["model"]
    assert aliases.keys() == {*AT_LEAST, "candidate", "champion"}
    assert aliases["champion"] == aliases["candidate"] == aliases[best]
    experiment = store.get_experiment_by_name("mnist")
    assert experiment is not None
    for row in board:
        key = f"tags.`{RUN_KEY}` = '{row['run']}'"
        (run,) = store.search_runs([experiment.experiment_id], key)
        assert run.info.status == "FINISHED"
        history = store.get_metric_history(run.info.run_id, "val_accuracy")
        assert [entry.step for entry in history] == list(range(row["epochs"]))
    assert accuracy.keys() == AT_LEAST.keys()
    assert {name: value for name, value in accuracy.items() if value < AT_LEAST[name]} == {}
