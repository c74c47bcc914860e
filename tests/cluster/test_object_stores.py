"""S3 and Google Cloud Storage as what a team shares: DVC's remote, and MLflow's artifacts.

S3 is moto's, Google's an emulator of the group `cluster` (`make test-cluster`).
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import servers
from conftest import Project, TrackingServer
from servers import Bucket

pytestmark = [pytest.mark.cluster, servers.NEEDS_GROUP]


@pytest.fixture(params=[servers.s3, servers.google], ids=["s3", "gs"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    with request.param(tmp_path) as made:
        yield made


@pytest.fixture
def server(tmp_path: Path, bucket: Bucket) -> Iterator[TrackingServer]:
    """An MLflow server that keeps artifacts in the bucket; its clients need no cloud library."""
    folder = tmp_path / "server"
    folder.mkdir()
    made = TrackingServer(folder, f"{bucket.address}/artifacts", **bucket.variables)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def test_a_second_clone_has_the_leaderboard_and_every_run_without_training(
    trained_copy: Project, bucket: Bucket, server: TrackingServer, tmp_path: Path
) -> None:
    first, second = trained_copy, Project(tmp_path / "second")
    remote = f"{bucket.address}/dvc"
    first.must("dvc", "remote", "add", "--default", "shared", remote)
    for option, value in bucket.remote.items():
        first.must("dvc", "remote", "modify", "shared", option, value)
    first.must("git", "commit", "--quiet", "--all", "--message", "a remote")
    first.must("dvc", "push", **bucket.variables)
    assert "in sync" in first.must("dvc", "status", "--cloud", **bucket.variables)

    subprocess.run(["git", "clone", "--quiet", first.root, second.root], check=True)
    second.must("dvc", "pull", **bucket.variables)
    leaderboard = Path("reports/leaderboard.json")
    (second.root / leaderboard).unlink()
    said = second.must("dvc", "repro", MLFLOW_TRACKING_URI=server.address)
    assert "Running stage 'compare'" in said
    assert "Running stage 'train" not in said
    second.must("image-classification", "sync", MLFLOW_TRACKING_URI=server.address)

    assert (second.root / leaderboard).read_bytes() == (first.root / leaderboard).read_bytes()
    store = mlflow.MlflowClient(server.address)
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {str(run.info.run_name): run for run in store.search_runs([experiment.experiment_id])}
    assert set(runs) == {"tiny_lm-0", "tiny_cnn-0", "comparison"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for name in ("tiny_lm-0", "tiny_cnn-0"):
        run_id = runs[name].info.run_id
        kept = Path(store.download_artifacts(run_id, "training/history.csv", str(tmp_path)))
        assert kept.read_bytes() == (first.root / "runs" / name / "history.csv").read_bytes()
    models = store.search_logged_models([experiment.experiment_id])
    assert {model.source_run_id for model in models} == {
        runs[name].info.run_id for name in ("tiny_lm-0", "tiny_cnn-0")
    }
    assert not (server.folder / "artifacts").exists()
