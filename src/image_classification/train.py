"""Stage `train`: one model, one recipe, one seed; the model, its history and its run in MLflow.

Directly: `hydra model=cnn`, or a sweep: `hydra -m model=nn,cnn seed=0,1`.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import yaml
from hydra.core.hydra_config import HydraConfig

from image_classification.core import paths, readers
from image_classification.core.compose import GROUPS
from image_classification.core.config import Config, defining, flatten
from image_classification.core.errors import PrunedError, UserError
from image_classification.core.files import atomic_folder, sha256
from image_classification.core.signals import end_if_interrupted, is_interrupted
from image_classification.data.arrays import Split
from image_classification.data.fingerprint import dvc_hash
from image_classification.data.splits import split_for_run
from image_classification.models import build
from image_classification.tracking import event_log, live_run, provenance, run_folder, sweep
from image_classification.tracking.event_log import Event
from image_classification.tracking.live_run import LiveRun
from image_classification.tracking.mlflow_run import finished_run
from image_classification.tracking.mlflow_store import UnreachableError
from image_classification.tracking.outbox import upload
from image_classification.training import checkpoint
from image_classification.training.augmentation import augmentation
from image_classification.training.devices import data_parallel
from image_classification.training.fit import fit
from image_classification.training.phases import fit_in_phases
from image_classification.training.precision import usable_precision

INPUT_EXAMPLES = 5  # images that come with the logged model
# Details that MLflow's tables do not list, unless they are overridden; config.yaml has them all.
DETAILS = ("data.classes", "data.image_shape", "model.family", "model.fast", "model.layers")
OnEpoch = Callable[[dict[str, float]], None]  # called with each row of fit.EpochReporter
SPACE = 32 * 2**20  # bytes that a run needs on the disk, with room to spare


def main(config: Config) -> int:
    """Train one model; in a sweep, unless a finished run has done so."""
    name = paths.run_name(config.model.name, config.seed)
    print(f"{sweep.position(config, name)}{name}", flush=True)
    finished = _finished_run(config) if sweep.is_job() else None
    if finished:
        run_id, key = finished
        place = _model_here(key) or f"runs:/{run_id}/{name}"
        print(f"skipped: MLflow run {run_id} has trained {name}; its model is {place}")
        return 0
    train(config)
    print(f"{name} is in {config.output_dir}")
    return upload(Path(config.output_dir))


@dataclass(frozen=True)
class TrainedModel:
    """The result of a run; the rows of `history` are those of fit.EpochReporter."""

    name: str
    key: str  # of the run
    model: keras.Model
    history: pd.DataFrame

    def summary(self) -> dict[str, float]:
        """The model's parameters, the epochs, and the seconds that all of them took."""
        return {
            "parameters": self.model.count_params(),
            "epochs": len(self.history),
            "fit_seconds": float(self.history["epoch_seconds"].sum()),
        }


def train(config: Config, on_epoch: OnEpoch = lambda row: None) -> TrainedModel:
    """Train the configured model, write it to `output_dir`, and log the run to MLflow.

    A run that was killed resumes after its last finished epoch, under the same key.

    Args:
        config: all settings.
        on_epoch: called with the row of each epoch, in a resumed run also with those of before; it
            may end the run with a PrunedError.

    Raises:
        PrunedError: `on_epoch` has ended the run, which MLflow then shows as KILLED.
        UserError: there is no split, or one made from other data; the folder can't be written;
            the model can't be built; another process is working on this run.
    """
    split = split_for_run(paths.SPLIT, config.data, config.seed)
    output = _require_writable(Path(config.output_dir))
    precision = usable_precision(config.recipe.precision)
    devices = data_parallel(config.recipe.batch_size)
    origin = {
        **provenance.of_training(config, dvc_hash(paths.SPLIT)),
        "precision": precision,
        "devices": str(devices.num_model_replicas if devices else 1),
    }
    folder = run_folder.run_folder(origin[provenance.TRAINING_KEY])
    with _open_run(config, origin, folder) as run:
        with run.system_metrics(), devices.scope() if devices else nullcontext():
            model, history = _fit(config, precision, split, run, folder, on_epoch)
        trained = TrainedModel(
            paths.run_name(config.model.name, config.seed), run.key, model, history
        )
        with atomic_folder(output) as written:
            model_sha256 = _write(trained, config, origin, split, written)
            last = _last_events(trained, config, origin, split, model_sha256, run)
            event_log.write(written, [*run.events, *last])
        run_folder.finish(folder)
        run.complete(last, output, model)
        if not paths.is_dvc_stage():  # DVC, if killed before it stores the outputs, asks again
            run_folder.discard(folder)
    return trained


def _finished_run(config: Config) -> tuple[str, str] | None:
    key = provenance.training_key(config, dvc_hash(paths.SPLIT))
    try:
        return finished_run(config.data.dataset, key)
    except UnreachableError as error:
        print(f"{error}: training without looking for a finished run", file=sys.stderr)
        return None


def _model_here(key: str) -> Path | None:
    """The file of a run's model, unless only MLflow has it; `key` is the run's."""
    for folder in paths.logged_folders():
        model = folder / paths.MODEL_FILE
        with suppress(UserError):  # a damaged file of another run
            training = readers.read_training(folder / paths.TRAINING_FILE, "train it again")
            if training["run"] == key and model.is_file():
                return model
    return None


def _require_writable(folder: Path) -> Path:
    """Check before the training that its results can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), 0, SPACE)
    except OSError as error:
        hint = "free some space or choose another folder with hydra.run.dir=…"
        raise UserError(f"{folder}: {error.strerror}: {hint}") from error
    return folder


@contextmanager
def _open_run(config: Config, origin: dict[str, str], folder: Path) -> Iterator[LiveRun]:
    """The run in its folder, which is locked; FAILED or KILLED where the block raises."""
    name = paths.run_name(config.model.name, config.seed)
    tags = {
        "dataset": config.data.dataset,
        "model": config.model.name,
        "recipe": config.recipe.name,
        "seed": str(config.seed),
        **({} if config.trial is None else {"trial": str(config.trial)}),
        **origin,
    }
    waits = paths.is_dvc_stage() or config.trial is not None  # two trials may have the same values
    with run_folder.locked_folder(folder, wait=waits):
        fields = live_run.opening(config.data.dataset, name, tags)
        run = LiveRun(folder, Path(config.output_dir), fields)
        try:
            run.log_params(_params(config))
            yield run
        except BaseException as error:
            # A library may have replaced what the signal raised.
            pruned = isinstance(error, PrunedError)
            killed = is_interrupted() or isinstance(error, KeyboardInterrupt | SystemExit)
            uploaded = run.end("KILLED" if killed or pruned else "FAILED")
            if uploaded and (pruned or (not killed and not checkpoint.has_state(folder))):
                run_folder.discard(folder)  # there is nothing to resume
            raise


def _params(config: Config) -> dict[str, Any]:
    """The settings that tell runs apart: all but details, and of those what was overridden."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    overridden = {word.lstrip("+").partition("=")[0] for word in words} - set(GROUPS)
    return {
        key: value
        for key, value in flatten(defining(config))
        if not _is_part(key, DETAILS) or _is_part(key, overridden)
    }


def _is_part(key: str, of: Iterable[str]) -> bool:
    return any(f"{key}.".startswith(f"{each}.") for each in of)


def _fit(
    config: Config, precision: str, split: Split, run: LiveRun, folder: Path, on_epoch: OnEpoch
) -> tuple[keras.Model, pd.DataFrame]:
    """Build the model and fit it to the training examples; save and log every epoch."""
    keras.utils.clear_session()  # a sweep trains several models in one process
    keras.utils.set_random_seed(config.seed)
    model = build.build(config.model, split.image_shape, classes=len(split.classes))
    stamp = {"training": folder.name, "precision": precision}
    state = checkpoint.load(folder, stamp)
    if state:
        run.log_epochs(state.rows)
        print(f"resuming after epoch {len(state.rows)} of {config.recipe.epochs}", flush=True)
        for row in state.rows:  # a kill may have come between an epoch's checkpoint and this
            on_epoch(row)

    def save_and_log(state: checkpoint.State) -> None:
        checkpoint.save(folder, state, stamp)
        run.log_epochs(state.rows)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in list(state.rows[-1].items())[1:])
        print(f"epoch {len(state.rows)} of {config.recipe.epochs}: {shown}", flush=True)
        end_if_interrupted()
        on_epoch(state.rows[-1])

    augment = augmentation(config.augmentation, config.seed)
    rows = fit_in_phases(
        fit,
        model,
        replace(config.recipe, precision=precision),
        config.model.backbone,
        augmented=augment is not None,
        seed=config.seed,
        jit_compile=config.model.jit_compile,
        train=split.train,
        validation=split.validation,
        state=state,
        save=save_and_log,
        progress=sys.stderr.isatty(),
        augment=augment,
    )
    return model, pd.DataFrame(rows)


def _write(
    trained: TrainedModel, config: Config, origin: dict[str, str], split: Split, folder: Path
) -> str:
    """Write all but the event log; return the SHA-256 of the model's file."""
    trained.model.save(folder / paths.MODEL_FILE)
    trained.history.to_csv(folder / paths.HISTORY_FILE, index=False)
    layers = pd.DataFrame(build.layer_table(trained.model))
    layers.to_csv(folder / paths.LAYERS_FILE, index=False)
    (folder / paths.CONFIG_FILE).write_text(yaml.safe_dump(defining(config), sort_keys=False))
    examples = np.asarray(split.validation.images[:INPUT_EXAMPLES])
    np.save(folder / paths.EXAMPLES_FILE, examples, allow_pickle=False)
    model_sha256 = sha256(folder / paths.MODEL_FILE)
    summary = {
        "run": trained.key,
        "model_sha256": model_sha256,
        **trained.summary(),
        "provenance": origin,
    }
    (folder / paths.TRAINING_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return model_sha256


def _last_events(
    trained: TrainedModel,
    config: Config,
    origin: dict[str, str],
    split: Split,
    model_sha256: str,
    run: LiveRun,
) -> list[Event]:
    """The events of a run whose training is done."""
    last_epoch = live_run.epochs(run.events)[-1]
    return [
        {"type": "metrics", **event_log.metrics(trained.summary(), 0, last_epoch["time"])},
        {
            "type": "data",
            "name": config.data.dataset,
            "hash": origin[provenance.DATA_HASH],
            "source": str(paths.SPLIT),
            "examples": len(split.train.labels),
            "shape": split.image_shape,
        },
        {"type": "artifacts", "path": "training"},
        {
            "type": "model",
            "name": trained.name,
            "sha256": model_sha256,
            "image_shape": split.image_shape,
            "classes": len(split.classes),
        },
        {"type": "end", "status": "FINISHED", "time": event_log.now(run.events)},
    ]
