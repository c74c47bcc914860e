"""MLflow's database is a view of what DVC holds: lost, it comes back."""

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import pytest
from conftest import Project

from image_classification.commands import sync
from image_classification.tracking.mlflow_tags import RUN_KEY


def contents(database: Path) -> dict[str, Any]:
    """All that MLflow shows of an experiment, but for the ids that it gave."""
    client = mlflow.MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs, keys = {}, {}
    for found in client.search_runs([experiment.experiment_id]):
        run = client.get_run(found.info.run_id)
        keys[run.info.run_id] = run.data.tags[RUN_KEY]
        tags = {key: value for key, value in run.data.tags.items() if key != "mlflow.note.content"}
        assert run.inputs is not None
        runs[run.data.tags[RUN_KEY]] = {
            "info": (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": tags,
            "metrics": {
                name: [
                    (entry.step, entry.timestamp, entry.value)
                    for entry in client.get_metric_history(run.info.run_id, name)
                ]
                for name in run.data.metrics
            },
            "artifacts": files(client, run.info.run_id),
            "data": [entry.dataset.digest for entry in run.inputs.dataset_inputs],
            "models compared": len(run.inputs.model_inputs),
        }
    models = {
        keys[model.source_run_id]: (
            model.name,
            model.status,
            model.params,
            len(model.metrics or ()),
        )
        for model in client.search_logged_models([experiment.experiment_id])
    }

    def named(text: str) -> str:
        for run_id, key in keys.items():
            text = text.replace(run_id, key)
        return text

    registered = client.get_registered_model("tiny")
    aliases = {alias: int(version) for alias, version in registered.aliases.items()}
    versions = {
        int(version.version): (keys[version.run_id], named(version.description or ""), version.tags)
        for version in client.search_model_versions("name = 'tiny'")
    }
    return {
        "runs": runs,
        "models": models,
        "registered": registered.description,
        "versions": versions,
        "aliases": aliases,
        "experiment": {key: named(value) for key, value in experiment.tags.items()},
    }


def files(client: mlflow.MlflowClient, run_id: str) -> dict[str, str]:
    folder = Path(client.download_artifacts(run_id, ""))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_another_clone_restores_every_run_from_what_dvc_holds(
    trained: Project, trained_copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(trained.root / "mlflow.db")
    assert len(before["runs"]) == 3
    elsewhere = Project(tmp_path / "clone")
    remote = f"['remote \"elsewhere\"']\nurl = {tmp_path / 'remote'}\n"
    (trained_copy.root / ".dvc/config.local").write_text(remote)
    trained_copy.must("dvc", "push", "--remote", "elsewhere")
    subprocess.run(["git", "clone", "--quiet", trained_copy.root, elsewhere.root], check=True)
    (elsewhere.root / ".dvc/config.local").write_text(f"[core]\nremote = elsewhere\n{remote}")
    elsewhere.must("dvc", "pull")
    shutil.rmtree(trained_copy.root)
    assert elsewhere.dvc_status() == {}
    assert not (elsewhere.root / "mlflow.db").exists()
    monkeypatch.chdir(elsewhere.root)

    assert sync.sync() == 0

    after = contents(elsewhere.root / "mlflow.db")
    for key, run in before["runs"].items():
        for part, value in run.items():
            assert after["runs"][key][part] == value, part
    assert after == before

    assert sync.sync() == 0  # once more changes nothing
    assert contents(elsewhere.root / "mlflow.db") == before


def test_files_that_mlflow_lost_come_back(
    trained_copy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill between two files leaves it: the events are there, some of their files are not."""
    monkeypatch.chdir(trained_copy.root)
    before = contents(trained_copy.root / "mlflow.db")
    store = trained_copy.root / "mlartifacts"
    names = ("training/history.csv", "evaluation/figures/layers.png", "requirements.txt")
    lost = [next(store.rglob(name)) for name in names]
    for path in lost:
        path.unlink()
    short = next(store.rglob("data/model.keras"))
    short.write_bytes(b"cut short")

    assert sync.sync() == 0

    assert all(path.stat().st_size > 0 for path in lost)
    assert zipfile.is_zipfile(short)
    assert contents(trained_copy.root / "mlflow.db") == before


@pytest.mark.slow
def test_a_copied_project_gets_a_store_of_its_own_and_leaves_the_original_alone(
    trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(trained.root / "mlflow.db")
    original = [trained.root / "mlflow.db", *(trained.root / "mlartifacts").rglob("*")]
    times = [path.stat().st_mtime_ns for path in original]
    copy = tmp_path / "copy"
    shutil.copytree(trained.root, copy, symlinks=True)
    monkeypatch.chdir(copy)

    assert sync.sync() == 0

    assert contents(copy / "mlflow.db") == before
    assert [path.stat().st_mtime_ns for path in original] == times
    client = mlflow.MlflowClient(f"sqlite:///{copy / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    models = client.search_logged_models([experiment.experiment_id])
    assert [str(copy) in model.artifact_location for model in models] == [True, True]
