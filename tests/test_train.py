"""Training and evaluation in one process, on the tiny data set, with the real tracking."""

import zipfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import Compose

from image_classification import dataset, paths
from image_classification.config import Config
from image_classification.errors import UserError
from image_classification.evaluate import evaluate
from image_classification.train import train


def tiny(compose: Compose, *overrides: str) -> Config:
    return compose("recipe.epochs=2", "recipe.batch_size=32", *overrides)


@pytest.mark.parametrize("model", ["dnnd", "cnn"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(
    workspace: Path, compose: Compose, model: str
) -> None:
    first, second, other = (
        train(tiny(compose, f"model={model}", f"seed={seed}", f"output_dir=seed/{i}"))
        for i, seed in enumerate((3, 3, 4))
    )

    for one, two in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        assert np.array_equal(one, two)
    same = ["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    assert first.history[same].equals(second.history[same])
    assert not np.array_equal(first.model.get_weights()[0], other.model.get_weights()[0])


def test_train_and_evaluate_agree(workspace: Path, compose: Compose) -> None:
    config = tiny(compose, "model=cnn", "output_dir=models/cnn-0")
    training = train(config)
    config.output_dir = "evaluations/cnn-0"
    evaluation = evaluate(config)

    last = training.history.iloc[-1]
    assert evaluation.metrics["validation_accuracy"] == pytest.approx(last["val_accuracy"])
    assert evaluation.metrics["validation_loss"] == pytest.approx(last["val_loss"], rel=1e-4)
    labels = np.asarray(dataset.load_split(paths.SPLIT).test.labels)
    images = np.asarray(dataset.load_split(paths.SPLIT).test.images)
    training.model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = training.model.evaluate(images, labels, verbose=0)
    assert evaluation.metrics["test_accuracy"] == pytest.approx(accuracy)
    assert evaluation.metrics["test_loss"] == pytest.approx(loss, rel=1e-4)

    predictions = pd.read_csv("evaluations/cnn-0/predictions.csv", index_col="example")
    hits = (predictions["actual"] == predictions["predicted"]).mean()
    assert hits == pytest.approx(accuracy)
    np.testing.assert_allclose(
        predictions.filter(like="probability_").to_numpy(), evaluation.probabilities, rtol=1e-6
    )


def test_nothing_that_is_kept_of_a_model_is_a_pickle(workspace: Path, compose: Compose) -> None:
    train(tiny(compose, "model=lm", "output_dir=unpickled"))

    logged = [path for path in (workspace / "mlartifacts").rglob("*") if path.is_file()]
    kept = [*logged, *(workspace / "unpickled").iterdir()]
    assert {"model.keras", "MLmodel", "records.jsonl"} <= {path.name for path in kept}
    assert {path.suffix for path in kept if path.name.startswith("model")} == {".keras"}
    for path in kept:
        if path.suffix != ".keras":
            assert not path.read_bytes().startswith(b"\x80"), path  # as pickles do
            assert path.suffix not in {".pkl", ".pickle", ".h5", ".joblib"}, path
    for path in kept:
        if path.suffix == ".keras":
            names = set(zipfile.ZipFile(path).namelist())
            assert names == {"metadata.json", "config.json", "model.weights.h5"}


def test_it_learns(workspace: Path, compose: Compose) -> None:
    config = tiny(compose, "model=nn", "recipe.epochs=6", "output_dir=learns/training")
    history = train(config).history

    assert history["val_accuracy"].iloc[-1] > 0.5  # ten classes: chance is 0.1
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_a_failed_training_says_so(
    workspace: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(compose, "model=nn", "model.layers.hidden.type=Nonsense")

    with pytest.raises(UserError, match="Nonsense"):
        train(config)

    run = mlflow.search_runs(experiment_names=["mnist"], output_format="list")[0]
    assert run.info.status == "FAILED"


def test_a_training_without_data_starts_no_run(
    workspace: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match="dvc repro split"):
        train(tiny(compose))

    assert not (tmp_path / "mlflow.db").exists()


def test_evaluating_what_was_not_trained_says_so(workspace: Path, compose: Compose) -> None:
    with pytest.raises(UserError, match="models/dcnn-9 holds no training"):
        evaluate(compose("model=dcnn", "seed=9"))
