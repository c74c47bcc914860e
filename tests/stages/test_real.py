"""Six models on the real MNIST by the recipe `fast`: `make test-real`. It takes minutes."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Project, commit, copy_project, fixed_params
from PIL import Image

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
    project.must("python", "-m", "image_classification", "export", "cnn")
    assert drawn_right(project, size=10, spread=0) >= 0.975
    assert drawn_right(project, size=8, spread=60) >= 0.97
    assert drawn_right(project, size=3, spread=100) >= 0.96


def drawn_right(project: Project, size: int, spread: int) -> float:
    """How many of 500 test digits, drawn dark on a light sheet of 280 x 280 pixels, cnn knows.

    Args:
        project: which has exported cnn.
        size: of one pixel of MNIST, in pixels.
        spread: how far from the middle they lie, at most.
    """
    root, generator = project.root, np.random.default_rng(0)
    digits = np.load(root / "data/split/test_images.npy")[:500, ..., 0]
    labels = np.load(root / "data/split/test_labels.npy")[:500]
    sheets = np.full((500, 280, 280), 255, np.uint8)
    for sheet, digit in zip(sheets, digits, strict=True):
        picture = Image.fromarray(digit).resize((28 * size,) * 2, Image.Resampling.BICUBIC)
        ink = np.asarray(picture) > 110  # strokes with hard edges
        top, left = (280 - 28 * size) // 2 + generator.integers(-spread, spread + 1, 2)
        top, left = (int(np.clip(place, 0, 280 - 28 * size)) for place in (top, left))
        sheet[top : top + 28 * size, left : left + 28 * size][ink] = 0
    np.save(root / "sheets.npy", sheets)
    project.must(
        *("python", "-m", "image_classification", "predict", "sheets.npy"),
        *("--model", "cnn", "--output", "sheets.csv"),
    )
    predicted = pd.read_csv(root / "sheets.csv")["predicted"]
    return float((predicted.to_numpy() == labels).mean())
