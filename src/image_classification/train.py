"""Stage `train`: one model, one recipe, one seed; the model, its history and its run in MLflow.

By hand: `hydra model=cnn`, or a sweep: `hydra -m model=nn,cnn seed=0,1`.
"""

import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from image_classification import dataset, paths
from image_classification.config import SWEEP_RUN, Config, defining, entry_point
from image_classification.dataset import Split
from image_classification.errors import UserError

if TYPE_CHECKING:
    import keras
    import pandas as pd

INPUT_EXAMPLE = 5  # images that come with the logged model
SPACE = 32 * 2**20  # bytes that a training needs on the disk, with room to spare


@entry_point
def main(config: Config) -> None:
    """Train one model; in a sweep, unless a run has done so already."""
    if SWEEP_RUN in os.environ:
        from image_classification import tracking

        dataset.require_origin(dataset.load_split(paths.SPLIT), config.data)
        run_id = tracking.finished_training(config, dataset.dvc_hash(paths.SPLIT))
        if run_id:
            name = paths.training_name(config.model.name, config.seed)
            print(f"{name} has been trained by run {run_id}, and is not again")
            return
    training = train(config)
    print(f"{training.name} is in {config.output_dir}, run {training.run_id}")


@dataclass(frozen=True)
class Training:
    """What a training came to; the rows of `history` are those of recipes.EpochRecord."""

    name: str
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
    split = dataset.split_of_training(paths.SPLIT, config.data, config.seed)
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
        name = paths.training_name(config.model.name, config.seed)
        training = Training(name, run_id, model, history, seconds)
        _write(training, config, folder)
        tracking.log_data(config.data.name, split.train, paths.SPLIT, data_hash)
        example = np.asarray(split.validation.images[:INPUT_EXAMPLE])
        tracking.log_training(name, model, example, folder, _summary(training))
    return training


def fit(model: "keras.Model", config: Config, split: Split) -> "tuple[pd.DataFrame, float]":
    """Fit the model to the training examples, and log every epoch.

    Returns:
        The history (see `Training`), and the seconds that all epochs took.
    """
    import pandas as pd

    from image_classification import recipes, tracking

    def report(epoch: int, values: dict[str, float]) -> None:
        tracking.log_epoch(epoch, values)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"epoch {epoch + 1} of {config.recipe.epochs}: {shown}", flush=True)

    precision = recipes.usable_precision(config.recipe.precision)
    tracking.log_precision(precision)
    start = time.perf_counter()
    rows = recipes.fit(
        model,
        replace(config.recipe, precision=precision),
        config.seed,
        jit_compile=config.model.jit_compile,
        train=split.train,
        validation=split.validation,
        report=report,
    )
    return pd.DataFrame(rows), time.perf_counter() - start


def _writable(folder: Path) -> Path:
    """Find out before the training that its results can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), 0, SPACE)
    except OSError as error:
        way_out = "free some space or choose another folder with hydra.run.dir=…"
        raise UserError(f"{folder}: {error.strerror}: {way_out}") from error
    return folder


def _summary(training: Training) -> dict[str, float]:
    return {
        "parameters": training.model.count_params(),
        "epochs": len(training.history),
        "fit_seconds": training.fit_seconds,
    }


def _write(training: Training, config: Config, folder: Path) -> None:
    import pandas as pd

    from image_classification import models

    training.model.save(folder / paths.MODEL_FILE)
    training.history.to_csv(folder / paths.HISTORY_FILE, index=False)
    layers = pd.DataFrame(models.layer_table(training.model))
    layers.to_csv(folder / paths.LAYERS_FILE, index=False)
    (folder / paths.CONFIG_FILE).write_text(yaml.safe_dump(defining(config), sort_keys=False))
    summary = {"run_id": training.run_id, **_summary(training)}
    (folder / paths.TRAINING_FILE).write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
