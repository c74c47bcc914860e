"""Training and evaluation in one process, on the tiny data set, with the real tracking."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import Compose, small_disk
from numpy.typing import NDArray

from image_classification.core import paths
from image_classification.core.config import Config
from image_classification.core.errors import PrunedError, UserError
from image_classification.data import arrays, fingerprint, splits
from image_classification.data.arrays import Examples
from image_classification.evaluate import _measure, evaluate
from image_classification.train import train
from image_classification.training import checkpoint

SAME = ["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]


def tiny(compose: Compose, *overrides: str) -> Config:
    return compose("model=tiny_cnn", "recipe.epochs=2", "recipe.batch_size=32", *overrides)


@pytest.mark.parametrize(
    "model",
    ["tiny_cnn", *(pytest.param(model, marks=pytest.mark.slow) for model in ("nn", "dnnd", "cnn"))],
)
def test_the_same_seed_gives_the_same_weights_bit_for_bit(
    workspace: Path, compose: Compose, model: str
) -> None:
    first, second = (
        train(tiny(compose, f"model={model}", "seed=3", f"output_dir=seed/{model}-{place}"))
        for place in ("one", "other")
    )

    for one, two in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        assert np.array_equal(one, two)
    assert first.history[SAME].equals(second.history[SAME])


@dataclass(frozen=True)
class Given:
    """What stage `train` gave to `fit`."""

    weights: list[NDArray[np.float32]]
    train: Examples
    validation: Examples


class EnoughError(Exception):
    """Ends a training that would teach the test nothing more."""


@pytest.fixture
def given_to_fit(
    workspace: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Given]:
    """Runs stage `train` with overrides, up to its `fit`; what that was given."""

    def up_to_fit(*overrides: str) -> Given:
        given: list[Given] = []

        def fit(
            model: keras.Model, *_: object, train: Examples, validation: Examples, **__: object
        ) -> None:
            given.append(Given(model.get_weights(), train, validation))
            raise EnoughError

        monkeypatch.setattr("image_classification.train.fit", fit)
        with pytest.raises(EnoughError):
            train(tiny(compose, "output_dir=up-to-fit", *overrides))
        (found,) = given
        return found

    return up_to_fit


def test_of_the_details_only_what_is_overridden_is_a_parameter_in_mlflow(
    given_to_fit: Callable[..., Given],
) -> None:
    given_to_fit("model.layers.hidden.units=8", "seed=77")

    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments, "params.seed = '77'")
    details = {key: value for key, value in run.data.params.items() if "layers" in key}
    assert details == {"model.layers.hidden.units": "8"}
    assert "data.classes" not in run.data.params


@pytest.mark.parametrize("per_seed", [False, True])
def test_the_fit_gets_the_training_examples_and_no_other(
    given_to_fit: Callable[..., Given], compose: Compose, per_seed: bool
) -> None:
    overrides = ("data.validation_examples=100", f"data.split_per_seed={per_seed}")
    data = compose(*overrides).data
    split = arrays.load_split(paths.SPLIT)
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    arrays.save_split(paths.SPLIT, parts, fingerprint.origin(data))

    given = given_to_fit(*overrides, "seed=5")

    assert per_seed != np.array_equal(given.train.images, split.train.images)
    if per_seed:
        split = splits.split_for_run(paths.SPLIT, data, seed=5)
    for found, expected in ((given.train, split.train), (given.validation, split.validation)):
        assert np.array_equal(found.images, expected.images)
        assert np.array_equal(found.labels, expected.labels)


def test_the_seed_alone_decides_on_the_initial_weights(given_to_fit: Callable[..., Given]) -> None:
    first, second, other = (given_to_fit(f"seed={seed}").weights for seed in (3, 3, 4))

    assert len(first) == 6  # kernels and biases of three layers
    for one, two in zip(first, second, strict=True):
        assert np.array_equal(one, two)
    for kernel, other_kernel in zip(first[::2], other[::2], strict=True):
        assert not np.array_equal(kernel, other_kernel)


def test_a_resumed_run_tells_of_every_epoch(workspace: Path, compose: Compose) -> None:
    config = tiny(compose, "seed=8", "output_dir=told")

    def killed(row: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, killed)
    rows: list[dict[str, float]] = []
    history = train(config, rows.append).history

    assert rows == history.to_dict("records")
    assert [row["epoch"] for row in rows] == [0, 1]


@pytest.mark.slow
def test_a_checkpoint_of_another_precision_is_quarantined(
    workspace: Path,
    compose: Compose,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As where a machine that computes in bfloat16 is killed, and another one resumes."""

    def trained_in(precision: str, output: str) -> list[NDArray[np.float32]]:
        monkeypatch.setattr("image_classification.train.usable_precision", lambda _: precision)
        overrides = ("recipe.precision=bfloat16", "seed=6", f"output_dir=precision/{output}")
        weights: list[NDArray[np.float32]] = train(tiny(compose, *overrides)).model.get_weights()
        return weights

    whole = trained_in("float32", "whole")
    real_save = checkpoint.save

    def save_and_end(*arguments: Any) -> None:
        real_save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(checkpoint, "save", save_and_end)
        with pytest.raises(KeyboardInterrupt):
            trained_in("bfloat16", "resumed")
    (folder,) = (workspace / "checkpoints").glob("*/epoch-1")
    capsys.readouterr()

    resumed = trained_in("float32", "resumed")

    out, errors = capsys.readouterr()
    assert f"{folder} is not used: it was made by" in errors
    assert "'precision': 'bfloat16'" in errors
    assert "quarantined-epoch-1" in errors
    assert "resuming" not in out
    for one, two in zip(whole, resumed, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.slow
def test_train_and_evaluate_agree(workspace: Path, compose: Compose) -> None:
    config = tiny(compose, "output_dir=runs/tiny_cnn-0")
    trained = train(config)
    config.output_dir = "evaluations/tiny_cnn-0"
    evaluation = evaluate(config)

    last = trained.history.iloc[-1]
    assert evaluation.metrics["validation_accuracy"] == pytest.approx(last["val_accuracy"])
    assert evaluation.metrics["validation_loss"] == pytest.approx(last["val_loss"], rel=1e-4)
    labels = np.asarray(arrays.load_split(paths.SPLIT).test.labels)
    images = np.asarray(arrays.load_split(paths.SPLIT).test.images)
    trained.model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = trained.model.evaluate(images, labels, verbose=0)
    assert evaluation.metrics["test_accuracy"] == pytest.approx(accuracy)
    assert evaluation.metrics["test_loss"] == pytest.approx(loss, rel=1e-4)

    predictions = pd.read_csv("evaluations/tiny_cnn-0/predictions/test.csv", index_col="example")
    hits = (predictions["actual"] == predictions["predicted"]).mean()
    assert hits == pytest.approx(accuracy)
    held_out = pd.read_csv("evaluations/tiny_cnn-0/predictions/validation.csv")
    held_out_hits = (held_out["actual"] == held_out["predicted"]).mean()
    assert held_out_hits == pytest.approx(evaluation.metrics["validation_accuracy"])
    np.testing.assert_allclose(
        predictions.filter(like="probability_").to_numpy(), evaluation.probabilities, rtol=1e-6
    )


def test_it_learns_and_nothing_that_is_kept_of_a_model_is_a_pickle(
    workspace: Path, compose: Compose
) -> None:
    config = tiny(compose, "model=tiny_lm", "recipe.epochs=6", "output_dir=learns")
    history = train(config).history

    assert history["val_accuracy"].iloc[-1] > 0.5  # ten classes: chance is 0.1
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    logged = [path for path in (workspace / "mlartifacts").rglob("*") if path.is_file()]
    kept = [*logged, *(workspace / "learns").iterdir()]
    assert {"model.keras", "MLmodel", "events.jsonl"} <= {path.name for path in kept}
    assert {path.suffix for path in kept if path.name.startswith("model")} == {".keras"}
    for path in kept:
        if path.suffix != ".keras":
            assert not path.read_bytes().startswith(b"\x80"), path  # as pickles do
            assert path.suffix not in {".pkl", ".pickle", ".h5", ".joblib"}, path
    for path in kept:
        if path.suffix == ".keras":
            names = set(zipfile.ZipFile(path).namelist())
            assert names == {"metadata.json", "config.json", "model.weights.h5"}


def test_a_failed_run_is_marked_as_such(workspace: Path, compose: Compose) -> None:
    config = tiny(compose, "model.layers.hidden.type=Nonsense")

    with pytest.raises(UserError, match="Nonsense"):
        train(config)

    run = mlflow.search_runs(experiment_names=[config.data.name], output_format="list")[0]
    assert run.info.status == "FAILED"


def started_runs(workspace: Path) -> list[Path]:
    return list((workspace / "checkpoints").glob("*"))


def test_a_pruned_run_is_killed_in_mlflow_and_leaves_no_model_and_nothing_to_resume(
    workspace: Path, compose: Compose
) -> None:
    before = started_runs(workspace)
    config = tiny(compose, "model=tiny_lm", "seed=8", "output_dir=pruned")

    def prune(row: dict[str, float]) -> None:
        raise PrunedError(int(row["epoch"]) + 1)

    with pytest.raises(PrunedError):
        train(config, prune)

    run = mlflow.search_runs(experiment_names=[config.data.name], output_format="list")[0]
    assert (run.info.status, run.data.params["seed"]) == ("KILLED", "8")
    assert "accuracy" in run.data.metrics  # of its only epoch
    assert started_runs(workspace) == before
    assert list((workspace / "pruned").iterdir()) == []


def test_a_training_without_data_starts_no_run(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match="dvc repro split"):
        train(tiny(compose))

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_before_the_training(
    workspace: Path, compose: Compose
) -> None:
    before = started_runs(workspace)

    with pytest.raises(UserError, match=r"^/proc/run: .*: free some space or choose another"):
        train(tiny(compose, "output_dir=/proc/run"))

    assert started_runs(workspace) == before


def test_a_disk_that_is_too_small_is_named_before_the_training(
    workspace: Path, compose: Compose
) -> None:
    before = started_runs(workspace)

    with (
        small_disk(workspace / "full", "1m"),
        pytest.raises(UserError, match=r"^full/run: No space left on device: free some space"),
    ):
        train(tiny(compose, "output_dir=full/run"))

    assert started_runs(workspace) == before


def test_evaluating_what_was_not_trained_is_refused(workspace: Path, compose: Compose) -> None:
    with pytest.raises(UserError, match="runs/tiny_cnn-9 holds no trained model"):
        evaluate(tiny(compose, "seed=9"))


def test_a_diverged_training_is_a_line_that_says_what_to_lower(
    workspace: Path, tiny_model: keras.Model
) -> None:
    tiny_model.set_weights([np.full_like(weights, np.nan) for weights in tiny_model.get_weights()])

    with pytest.raises(UserError, match=r"^recipe\.learning_rate: the training diverged"):
        _measure(tiny_model, arrays.load_split(paths.SPLIT), {})
