"""Stage `train`: one model, one recipe, one seed; the model, its history and its run in MLflow.

By hand: `hydra model=cnn`, or a sweep: `hydra -m model=nn,cnn seed=0,1`.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from image_classification import dataset, paths
from image_classification.config import Config, defining, entry_point
from image_classification.dataset import Split

if TYPE_CHECKING:
    import keras
    import pandas as pd

INPUT_EXAMPLE = 5  # images that come with the logged model


@entry_point
def main(config: Config) -> None:
    """Train one model."""
    training = train(config)
    print(f"{config.model.name}-{config.seed} is in {config.output_dir}, run {training.run_id}")


@dataclass(frozen=True)
class Training:
    """What a training came to; the rows of `history` are those of recipes.EpochRecord."""

    run_id: str
    model: "keras.Model"
    history: "pd.DataFrame"
    fit_seconds: float


def train(config: Config) -> Training:
    """Train the configured model, write it to `output_dir` and log it to MLflow.

    Raises:
        UserError: there is no split, or one made from other data; the folder can't be written;
            MLflow can't be reached; the model can't be built.
    """
    split = dataset.load_split(paths.SPLIT)
    dataset.require_origin(split, config.data)
    folder = _writable(Path(config.output_dir))

    from image_classification import tracking  # MLflow, and then TensorFlow, take seconds to import

    data_hash = dataset.dvc_hash(paths.SPLIT)
    with tracking.training_run(config, data_hash) as run_id:
        import keras

        from image_classification import models

        keras.utils.clear_session()  # a sweep trains several models in one process
        keras.utils.set_random_seed(config.seed)
        model = models.build(
            config.model, config.data.image_shape, classes=len(config.data.classes)
        )
        history, seconds = fit(model, config, split)
        training = Training(run_id, model, history, seconds)
        _write(training, config, folder)
        tracking.log_data(config.data.name, split.train, paths.SPLIT, data_hash)
        example = np.asarray(split.validation.images[:INPUT_EXAMPLE])
        tracking.log_training(model, example, folder, _summary(training))
    return training


def fit(model: "keras.Model", config: Config, split: Split) -> "tuple[pd.DataFrame, float]":
    """Fit the model to the training examples, and log every epoch.

    Returns:
        The history (see `Training`), and the seconds that all epochs took.
    """
    import pandas as pd

    from image_classification import recipes, tracking

    batches = recipes.ShuffledBatches(split.train, config.recipe.batch_size, config.seed)
    recipes.compile_model(model, config.recipe, steps_per_epoch=len(batches))
    start = time.perf_counter()
    rows = recipes.fit_in_order(
        model, batches, config.recipe.epochs, split.validation, report=tracking.log_epoch
    )
    return pd.DataFrame(rows), time.perf_counter() - start


def _writable(folder: Path) -> Path:
    """Find out before the training that its results can be written."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


def _summary(training: Training) -> dict[str, float]:
    last = training.history.iloc[-1]
    return {
        "parameters": training.model.count_params(),
        "epochs": len(training.history),
        "fit_seconds": training.fit_seconds,
        "validation_loss": float(last["val_loss"]),
        "validation_accuracy": float(last["val_accuracy"]),
    }


def _write(training: Training, config: Config, folder: Path) -> None:
    import pandas as pd

    from image_classification import figures, models

    training.model.save(folder / "model.keras")
    training.history.to_csv(folder / "history.csv", index=False)
    summary = {"run_id": training.run_id, **_summary(training)}
    (folder / "training.json").write_text(json.dumps(summary, indent=2) + "\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(defining(config), sort_keys=False))
    layers = pd.DataFrame(models.layer_table(training.model))
    layers.to_csv(folder / "layers.csv", index=False)
    figures.layer_table(layers, config.model.name).savefig(folder / "layers.png")
    figures.loss_and_accuracy(training.history, config.model.name).savefig(folder / "curves.png")


if __name__ == "__main__":
    main()
