"""The same commands with JAX in place of TensorFlow; `make test-jax` installs it."""

import json
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import Project
from test_resume import EPOCHS, SAME, SETTINGS, kill_after, resumed_after, runs, stall_after

from image_classification.models.prediction import predict

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX: make test-jax"),
]

JAX = {"KERAS_BACKEND": "jax"}


def devices(count: int) -> dict[str, str]:
    """The variables with which JAX takes a processor for several devices."""
    return {**JAX, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


def history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "history.csv")[SAME]


def weights(folder: Path) -> list[Any]:
    found: list[Any] = keras.saving.load_model(folder / "model.keras").get_weights()
    return found


def origin(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "training.json").read_text())["provenance"]
    return found


def test_the_pipeline_trains_evaluates_and_compares(project: Project, empty_store: Path) -> None:
    shutil.copy(empty_store, project.root)

    project.must("dvc", "repro", **JAX)

    for name in ("tiny_lm-0", "tiny_cnn-0"):
        folder = project.root / "runs" / name
        assert origin(folder)["backend"] == "jax"
        assert ", jax 0." in origin(folder)["machine"]
        assert history(folder)["loss"].is_monotonic_decreasing
        # TensorFlow, in this process, reads the same model from the file.
        images = np.load(project.root / "data/split/test_images.npy")
        answers = pd.read_csv(project.root / "evaluations" / name / "predictions/test.csv")
        found = answers.filter(like="probability_").to_numpy()
        expected = predict(keras.saving.load_model(folder / "model.keras"), images)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        costs = json.loads((project.root / "evaluations" / name / "costs.json").read_text())
        assert costs["microseconds_batch_1"] > costs["microseconds_batch_256"] > 0
    entries = json.loads((project.root / "reports/leaderboard.json").read_text())
    assert {entry["model"] for entry in entries} == {"tiny_lm", "tiny_cnn"}
    tags = [run.data.tags for run in runs(project.root)]
    assert {tag["backend"] for tag in tags if "seed" in tag} == {"jax"}


def test_a_killed_run_resumes_bit_for_bit(split_project: Project, empty_store: Path) -> None:
    root = split_project.root
    shutil.copy(empty_store, root)
    stall_after(split_project, 2)
    command = [sys.executable, "-m", "image_classification", "train", *SETTINGS]
    killed = subprocess.Popen(
        [*command, "hydra.run.dir=outputs/killed"],
        cwd=root,
        env=split_project.environment(**JAX),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    kill_after(killed, 2, signal.SIGKILL)
    killed.wait(timeout=30)
    stall_after(split_project, EPOCHS + 1)

    said = split_project.must(*command, "hydra.run.dir=outputs/killed", **JAX)

    assert resumed_after(said) == 2
    split_project.must(*command, "hydra.run.dir=outputs/whole", **JAX)
    assert history(root / "outputs/killed").equals(history(root / "outputs/whole"))
    for one, two in zip(
        weights(root / "outputs/killed"), weights(root / "outputs/whole"), strict=True
    ):
        assert np.array_equal(one, two)


# Among three devices, neither the last batch of an epoch nor the validation images can be divided.
@pytest.mark.parametrize(("count", "batch"), [(2, 80), (3, 81)])
def test_several_devices_come_to_what_one_does(
    split_project: Project, empty_store: Path, count: int, batch: int
) -> None:
    root = split_project.root
    shutil.copy(empty_store, root)
    settings = ("model=tiny_cnn", "augmentation=light", f"recipe.batch_size={batch}")
    for number in (1, count):
        folder = f"hydra.run.dir=outputs/{number}"
        split_project.must("hydra", *settings, "recipe.epochs=2", folder, **devices(number))

    one, several = root / "outputs/1", root / f"outputs/{count}"
    assert [origin(folder)["devices"] for folder in (one, several)] == ["1", str(count)]
    np.testing.assert_allclose(history(several), history(one), rtol=1e-4, atol=1e-6)
    for first, second in zip(weights(one), weights(several), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-4)


def test_a_batch_that_devices_cannot_share_is_refused(split_project: Project) -> None:
    refused = split_project.run("hydra", "model=tiny_lm", "recipe.batch_size=64", **devices(3))

    assert refused.returncode == 1
    assert "error: recipe.batch_size: must be a multiple of 3, the devices" in refused.stderr
    assert not list(split_project.root.glob("checkpoints/*"))
