"""From the pipeline's runs to files that answer, and what they answer: whole commands."""

import csv
import io
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Project

from image_classification.commands import export
from image_classification.core.files import sha256
from image_classification.promotion import evidence

COMMAND = ("python", "-m", "image_classification")


def exported(project: Project) -> dict[str, dict[str, Any]]:
    """What is known of each artifact, by the name of its run."""
    found = [json.loads(path.read_text()) for path in project.root.glob("exported/*/served.json")]
    return {artifact["run"]: artifact for artifact in found}


@pytest.mark.slow
def test_exports_are_the_registered_models_and_answer_alike(trained_copy: Project) -> None:
    root = trained_copy.root

    trained_copy.must(*COMMAND, "export")

    found = exported(trained_copy)
    assert found.keys() == {"tiny_lm-0", "tiny_cnn-0"}
    store = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    for run, artifact in found.items():
        folder = root / "exported" / artifact["key"]
        version = store.get_model_version("tiny", str(artifact["version"]))
        logged = store.list_artifacts(str(version.run_id), "served")
        expected = pd.read_csv(root / f"evaluations/{run}/predictions/test.csv")
        command = (*COMMAND, "predict", "data/split/test_images.npy", "--format", "csv")
        done = trained_copy.run(*command, "--model", str(artifact["version"]))
        answers = list(csv.DictReader(io.StringIO(done.stdout)))
        weights = evidence.weights_sha256(root / f"runs/{run}/model.keras", "")
        assert artifact["weights_sha256"] == weights
        assert artifact["sha256"] == sha256(folder / "model.tflite")
        assert artifact["checked"]["images"] == artifact["checked"]["labels_equal"] == 200
        assert {Path(entry.path).name for entry in logged} == {"model.tflite", "served.json"}
        assert [row["predicted"] for row in answers] == list(map(str, expected["predicted"]))
        column = [float(row["probability_3"]) for row in answers]
        assert np.allclose(column, expected["probability_3"], atol=1e-4)


@pytest.mark.slow
def test_the_champion_is_exported_when_it_is_first_asked(trained_copy: Project) -> None:
    """Afterwards neither MLflow nor the run is needed."""
    trained_copy.must(*COMMAND, "predict", "--example")
    (artifact,) = exported(trained_copy).values()
    (trained_copy.root / "mlflow.db").unlink()
    shutil.rmtree(trained_copy.root / "runs")

    printed = trained_copy.must(*COMMAND, "predict", "--example")

    records = (trained_copy.root / "promotions/tiny.jsonl").read_text().splitlines()
    assert artifact["key"] == json.loads(records[-1])["to"]["key"]
    assert "the first test image, " in printed
    assert f"1 predicted by {artifact['run']}, version {artifact['version']}" in printed
    assert "exporting " not in printed


@pytest.mark.slow
def test_a_champion_that_only_mlflow_has_is_exported_from_there(trained_copy: Project) -> None:
    """As after a rollback to a run whose folder has long held another."""
    records = (trained_copy.root / "promotions/tiny.jsonl").read_text().splitlines()
    champion = json.loads(records[-1])["to"]
    shutil.rmtree(trained_copy.root / "runs" / champion["run"])

    trained_copy.must(*COMMAND, "export", "champion")

    (artifact,) = exported(trained_copy).values()
    assert artifact["run"] == champion["run"]
    assert artifact["weights_sha256"] == champion["weights_sha256"]  # else no server takes it
    assert artifact["checked"]["labels_equal"] == 200


@pytest.mark.slow
def test_what_cannot_be_exported_is_said_in_a_line(trained_copy: Project) -> None:
    unknown = trained_copy.run(*COMMAND, "export", "resnet")
    other = trained_copy.run(*COMMAND, "export", "999")
    run = trained_copy.root / "runs/tiny_cnn-0"  # as if it had been trained on other data
    used = yaml.safe_load((run / "config.yaml").read_text())
    used["data"]["classes"] = [f"no {name}" for name in used["data"]["classes"]]
    (run / "config.yaml").write_text(yaml.safe_dump(used))
    training = (run / "training.json").read_text()
    (run / "training.json").write_text(training.replace('"dvc.data": "', '"dvc.data": "other'))
    foreign = trained_copy.run(*COMMAND, "export", "tiny_cnn")
    (trained_copy.root / "exported").write_text("in the way")
    blocked = trained_copy.run(*COMMAND, "export", "tiny_lm")

    said = [(unknown, "resnet"), (other, "999"), (blocked, "exported")]
    for done, words in [*said, (foreign, "tiny_cnn-0 was trained on other data than data/split")]:
        assert done.returncode == 1
        (line,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
        assert words in line
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_batch_stage_predicts_anew_when_its_images_change(trained_copy: Project) -> None:
    root = trained_copy.root
    images = np.load(root / "data/split/test_images.npy")
    np.save(root / "letters.npy", images[:5])
    path = root / "batch/dvc.yaml"
    stages = yaml.safe_load(path.read_text())
    assert trained_copy.dvc_status() == {}  # without images there is no stage
    stages["vars"] = [{"predictions": {"letters": "../letters.npy"}}]
    path.write_text(yaml.safe_dump(stages))

    trained_copy.must("dvc", "repro", "batch/dvc.yaml")
    first = pd.read_parquet(root / "batch/letters.parquet")
    np.save(root / "letters.npy", images[:7])
    trained_copy.must("dvc", "repro", "batch/dvc.yaml")
    second = pd.read_parquet(root / "batch/letters.parquet")

    assert (len(first), len(second)) == (5, 7)
    assert first.equals(second[:5])
    assert "up to date" in trained_copy.must("dvc", "status", "batch/dvc.yaml")
    trained_copy.set("params.yaml", "data.path", "elsewhere")  # with it whose champion predicts
    assert "data.path" in trained_copy.must("dvc", "status", "batch/dvc.yaml")


def test_exports_at_the_same_time_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would remove each other's files."""
    monkeypatch.chdir(tmp_path)
    said: list[str] = []

    def convert(*_: object) -> None:
        said.append("begins")
        time.sleep(0.2)
        said.append("ends")

    monkeypatch.setattr(export, "_convert", convert)
    threads = [threading.Thread(target=export._export_one, args=("k", None, None)) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert said == ["begins", "ends"] * 2
