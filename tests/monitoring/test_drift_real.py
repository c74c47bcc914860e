"""Drift on the real MNIST: `make test-real`. The simulation behind the level and the caps."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import commit, copy_project, fixed_params
from simulation import WINDOW, alarms, found

from image_classification.core import paths
from image_classification.core.files import sha256
from image_classification.data import arrays
from image_classification.models import saved
from image_classification.models.prediction import predict
from image_classification.monitoring.statistics import describe

SEEDS = 10


@pytest.mark.real
@pytest.mark.parametrize("model", ["lm", "cnn"])
def test_test_images_raise_no_alarm_and_shifted_ones_always_do(model: str, tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(fixed_params("mnist", [model])))
    commit(project)
    project.must("dvc", "repro", "split")
    project.must("hydra", f"model={model}", "recipe.epochs=2", "hydra.run.dir=outputs/run")

    split = arrays.load_split(tmp_path / paths.SPLIT)
    clean, shifted, large = simulate(split, tmp_path / "outputs/run" / paths.MODEL_FILE)

    print(model, "alarms in 300 clean windows, by seed:", clean)
    print(f"alarms in 300 clean windows of {10 * WINDOW}, by seed:", large)
    print(f"found in 100 shifted windows of {WINDOW}:", shifted)
    assert sum(clean) <= 1  # at the level, 2 or more of all have a probability below 0.0005
    assert shifted == dict.fromkeys(shifted, 100)


def simulate(split: arrays.Split, file: Path) -> tuple[list[int], dict[str, int], list[int]]:
    model = saved.load(file, sha256(file))

    def probabilities(images: Any) -> Any:
        return predict(model, np.asarray(images))

    reference = describe(split.validation.images, probabilities(split.validation.images))
    images, labels = split.test
    pool = describe(images, probabilities(images))
    gc.freeze()  # statsmodels collects garbage at each call
    clean = [alarms(reference, pool, 300, seed) for seed in range(SEEDS)]
    large = [alarms(reference, pool, 300, seed, 10 * WINDOW) for seed in range(2)]
    shifted = found(reference, np.asarray(images), labels, probabilities, 100)
    gc.unfreeze()
    return clean, shifted, large
