"""The default pipeline on the real MNIST: `make test-real`. It takes as long as `make repro`."""

import json
from pathlib import Path

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
    assert accuracy.keys() == AT_LEAST.keys()
    assert {name: value for name, value in accuracy.items() if value < AT_LEAST[name]} == {}
