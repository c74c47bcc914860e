"""Stage `train`: one model, one recipe, one seed; the model, its history and its run in MLflow.

By hand: `hydra model=cnn`, or a sweep: `hydra -m model=nn,cnn seed=0,1`.
"""

import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from image_classification import checkpoint, dataset, files, paths, provenance, records
from image_classification.command import end_if_interrupted, entry_point
from image_classification.config import SWEEP_RUN, Config, defining
from image_classification.dataset import Split
from image_classification.errors import UserError
from image_classification.records import Record

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from image_classification.runs import LiveRun

INPUT_EXAMPLES = 5  # images that come with the logged model
SPACE = 32 * 2**20  # bytes that a training needs on the disk, with room to spare


@entry_point
def main(config: Config) -> int:
    """Train one model; in a sweep, unless a run has done so already."""
    from image_classification import delivery

    if SWEEP_RUN in os.environ:
        name = paths.training_name(config.model.name, config.seed)
        run_id = _finished(config)
        if run_id:
            print(f"{name} has been trained by run {run_id}, and is not again")
            return 0
    training = train(config)
    print(f"{training.name} is in {config.output_dir}")
    return delivery.publish(Path(config.output_dir))


def _finished(config: Config) -> str | None:
    from image_classification import store, tracking

    dataset.require_origin(dataset.load_split(paths.SPLIT), config.data)
    try:
        return tracking.finished_training(config, dataset.dvc_hash(paths.SPLIT))
    except store.UnreachableError as error:
        print(f"{error}: trained anew, if it has been trained", file=sys.stderr)
        return None


@dataclass(frozen=True)
class Training:
    """What a training came to; the rows of `history` are those of recipes.EpochRecord."""

    name: str
    run: str  # its name in its records
    model: "keras.Model"
    history: "pd.DataFrame"

    def summary(self) -> dict[str, float]:
        """The model's parameters, the epochs, and the seconds that all of them took."""
        return {
            "parameters": self.model.count_params(),
            "epochs": len(self.history),
            "fit_seconds": float(self.history["epoch_seconds"].sum()),
        }


def train(config: Config) -> Training:
    """Train the configured model and write it to `output_dir`; MLflow hears of it on the way.

    A training that was killed goes on after its last finished epoch, under the same run.

    Raises:
        UserError: there is no split, or one made from other data; the folder can't be written;
            the model can't be built; another process does this very training.
    """
    split = dataset.split_of_training(paths.SPLIT, config.data, config.seed)
    output = _writable(Path(config.output_dir))
    data_hash = dataset.dvc_hash(paths.SPLIT)
    key = provenance.training_key(config, data_hash)
    checkpoints = paths.home() / paths.CHECKPOINTS / key
    by_dvc = "DVC_STAGE" in os.environ
    checkpoint.discard_finished(checkpoints.parent, apart_from=key if by_dvc else "")

    from image_classification import runs  # MLflow, and then TensorFlow, take seconds to import

    with checkpoint.claimed(checkpoints, wait=by_dvc):
        with runs.training_run(config, data_hash, checkpoints) as run:
            with run.sampled():
                model, history = fit(config, split, run, checkpoints)
            name = paths.training_name(config.model.name, config.seed)
            training = Training(name, run.key, model, history)
            with files.written_whole(output) as folder:
                sha256 = _write(training, config, split, folder)
                last = _last_records(training, config, len(split.train.labels), sha256, run)
                records.write(folder, [*run.records, *last])
            checkpoint.finish(checkpoints)
            run.complete(last, output, model)
        if not by_dvc:  # which, killed before it has taken up the outputs, asks for them again
            checkpoint.discard(checkpoints)
    return training


def fit(
    config: Config, split: Split, run: "LiveRun", checkpoints: Path
) -> "tuple[keras.Model, pd.DataFrame]":
    """Build the model and fit it to the training examples; keep and tell every epoch.

    Returns:
        The model and its history (see `Training`).
    """
    import keras
    import pandas as pd

    from image_classification import models, recipes

    keras.utils.clear_session()  # a sweep trains several models in one process
    keras.utils.set_random_seed(config.seed)
    model = models.build(config.model, config.data.image_shape, classes=len(config.data.classes))
    precision = recipes.usable_precision(config.recipe.precision)
    run.tell("tags", values={"precision": precision})  # in which the machine has a say
    stamp = {"training": checkpoints.name, "precision": precision}
    state = checkpoint.load(checkpoints, stamp)
    if state:
        run.tell_epochs(state.rows)
        print(f"goes on after epoch {len(state.rows)} of {config.recipe.epochs}", flush=True)

    def keep(state: checkpoint.State) -> None:
        checkpoint.save(checkpoints, state, stamp)
        run.tell_epochs(state.rows)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in list(state.rows[-1].items())[1:])
        print(f"epoch {len(state.rows)} of {config.recipe.epochs}: {shown}", flush=True)
        end_if_interrupted()

    rows = recipes.fit(
        model,
        replace(config.recipe, precision=precision),
        config.seed,
        jit_compile=config.model.jit_compile,
        train=split.train,
        validation=split.validation,
        state=state,
        keep=keep,
    )
    return model, pd.DataFrame(rows)


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


def _write(training: Training, config: Config, split: Split, folder: Path) -> str:
    """Write all but the records; the SHA-256 of the model's file."""
    import pandas as pd

    from image_classification import models

    training.model.save(folder / paths.MODEL_FILE)
    training.history.to_csv(folder / paths.HISTORY_FILE, index=False)
    layers = pd.DataFrame(models.layer_table(training.model))
    layers.to_csv(folder / paths.LAYERS_FILE, index=False)
    (folder / paths.CONFIG_FILE).write_text(yaml.safe_dump(defining(config), sort_keys=False))
    examples = np.asarray(split.validation.images[:INPUT_EXAMPLES])
    np.save(folder / paths.EXAMPLES_FILE, examples, allow_pickle=False)
    sha256 = hashlib.sha256((folder / paths.MODEL_FILE).read_bytes()).hexdigest()
    summary = {"run": training.run, "model_sha256": sha256, **training.summary()}
    (folder / paths.TRAINING_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return sha256


def _last_records(
    training: Training, config: Config, examples: int, sha256: str, run: "LiveRun"
) -> list[Record]:
    """What is told of a training that is done."""
    epochs = [record for record in run.records if "epoch_seconds" in record.get("values", ())]
    return [
        {"type": "metrics", **records.metrics(training.summary(), 0, epochs[-1]["time"])},
        {
            "type": "data",
            "name": config.data.name,
            "hash": run.records[0]["tags"]["dvc.data"],
            "source": str(paths.SPLIT),
            "examples": examples,
            "shape": config.data.image_shape,
        },
        {"type": "artifacts", "path": "training"},
        {
            "type": "model",
            "name": training.name,
            "sha256": sha256,
            "image_shape": config.data.image_shape,
            "classes": len(config.data.classes),
        },
        {"type": "end", "status": "FINISHED", "time": records.now()},
    ]


if __name__ == "__main__":
    main()
