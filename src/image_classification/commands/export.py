"""Command `image-classification export [NAME ...]`: convert models for serving.

The registered model of each run named becomes a file that predicts without TensorFlow. It counts
only once its predictions for all test images agree with those of Keras.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from image_classification.core import paths, readers
from image_classification.core.command import one_line_errors
from image_classification.core.compose import compose
from image_classification.core.config import Config
from image_classification.core.errors import UserError
from image_classification.core.files import atomic_folder, sha256
from image_classification.core.locks import locked
from image_classification.data import fingerprint
from image_classification.data.arrays import Split
from image_classification.models import saved
from image_classification.promotion import evidence
from image_classification.serving import artifact, conversion, lookup
from image_classification.serving.artifact import Artifact
from image_classification.tracking import event_log, mlflow_origin, mlflow_promotions, provenance
from image_classification.tracking.outbox import upload


def main(arguments: Sequence[str]) -> None:
    """Run the command; arguments with `=` are settings, the others name runs."""
    with one_line_errors():
        os.chdir(paths.project_root())
        given = parser().parse_args(arguments).words
        words = [word for word in given if "=" not in word]
        artifacts = export(compose(*(word for word in given if "=" in word)), words)
        sys.exit(upload(*(exported.folder for exported in artifacts)))


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser("image-classification export", description=__doc__)
    made.add_argument(
        "words",
        nargs="*",
        metavar="NAME|SETTING=VALUE",
        help="champion, a model, a version, a run or its key; settings",
    )
    return made


def export(config: Config, words: Sequence[str]) -> list[Artifact]:
    """Export the runs named; without names, the champion and the best run of each model.

    Raises:
        UserError: a name means no run, there is no split of this data, or a model has other inputs
            or outputs than the data, or can't be converted.
    """
    name = config.data.dataset
    keys = [_key(word, name) for word in words] or lookup.best_keys(name)
    split = fingerprint.require_split(paths.SPLIT, config.data)
    artifacts = []
    for key in dict.fromkeys(keys):
        artifacts.append(_export_one(key, config, split))
        print(_line(artifacts[-1]), flush=True)
        keras.utils.clear_session()
    return artifacts


def _key(word: str, name: str) -> str:
    return lookup.key_of(word, name) or mlflow_promotions.key_of(name, int(word))


def _export_one(key: str, config: Config, split: Split) -> Artifact:
    """Write the artifact of one run, or leave what is there as it is; one process at a time."""
    with locked(paths.home() / paths.OUTBOX / "exports.lock", "is exporting a model"):
        return _convert(key, config, split)


def _convert(key: str, config: Config, split: Split) -> Artifact:
    with tempfile.TemporaryDirectory() as scratch:
        source = _source(key, config, Path(scratch))
        model = saved.load(source.file, source.sha256)
        weights = evidence.weights_sha256(source.file, f"remove {source.file.parent}")
    _require_fit(source, model, config, split)
    height, width, channels = split.image_shape
    with atomic_folder(paths.EXPORTED / key) as folder:
        described = Artifact(
            name=config.data.dataset,
            model=source.model,
            run=paths.run_name(source.model, source.seed),
            key=key,
            version=source.version,
            classes=split.classes,
            image_shape=(height, width, channels),
            resize=config.data.resize,
            normalise=config.data.normalise,
            engine="",
            weights_sha256=weights,
            sha256="",
            checked={},
            folder=folder,
        )
        made = conversion.convert(model, described, split.test.images)
        artifact.write(made)
        event_log.write(folder, _events(made))
    return artifact.read(paths.EXPORTED / key)


@dataclass(frozen=True)
class Source:
    """A model in Keras' format, and the run that it comes from.

    file: and the sha256 that it must have.
    version: in MLflow's registry; None if that does not have it, or can't be reached.
    classes: that it was trained on, in order, where they do not come from the data.
    data_hash: DVC's hash of the split that it was trained on.
    """

    file: Path
    sha256: str
    model: str
    seed: int
    version: int | None
    classes: list[str]
    data_hash: str


def _source(key: str, config: Config, scratch: Path) -> Source:
    """The model of a run: the one on this machine, or else the one in MLflow's registry.

    Raises:
        UserError: it is in neither.
    """
    name = config.data.dataset
    version = mlflow_promotions.versions(name, [key]).get(key)
    run = lookup.run_with(key)
    if run is None:
        known = mlflow_origin.origin(name, key)
        file = mlflow_promotions.download(name, key, scratch)
        return Source(
            file=file,
            sha256=sha256(file),
            model=known.model,
            seed=known.seed,
            version=version,
            classes=list(config.data.classes or []),  # of the data set that it is registered for
            data_hash=known.data_hash,
        )
    hint = "train it again: `dvc repro`"
    used = readers.read_mapping(run.folder / paths.CONFIG_FILE, hint)
    training = readers.read_training(run.folder / paths.TRAINING_FILE, hint)
    return Source(
        file=run.folder / paths.MODEL_FILE,
        sha256=run.model_sha256,
        model=used["model"]["name"],
        seed=used["seed"],
        version=version,
        classes=list(used["data"]["classes"] or []),
        data_hash=training["provenance"].get(provenance.DATA_HASH, ""),
    )


def _require_fit(source: Source, model: keras.Model, config: Config, split: Split) -> None:
    """Check that the classes and the test images are those of the model.

    Raises:
        UserError: they are not.
    """
    run = paths.run_name(source.model, source.seed)
    hint = "set the data that it was trained on and run `dvc repro split`"
    expected = ((None, *split.image_shape), (None, len(split.classes)))
    if (model.input_shape, model.output_shape) != expected:
        found = f"{model.input_shape[1:]} to {model.output_shape[1:]}"
        raise UserError(
            f"{run} takes images of {found}, {paths.SPLIT} has {expected[0][1:]} to "
            f"{expected[1][1:]}: {hint}"
        )
    # Classes that are found in the data have an order of their own.
    is_same = config.data.classes and source.classes == config.data.classes
    if not is_same and source.data_hash != fingerprint.dvc_hash(paths.SPLIT):
        raise UserError(f"{run} was trained on other data than {paths.SPLIT} has: {hint}")


def _events(exported: Artifact) -> list[event_log.Event]:
    return [
        {"type": "run", "key": exported.key, "experiment": exported.name},
        {"type": "artifacts", "path": "served"},
    ]


def _line(exported: Artifact) -> str:
    checked = exported.checked
    version = f"version {exported.version}" if exported.version else "not registered"
    size = exported.file.stat().st_size
    return (
        f"{exported.run} ({version}): {exported.file}, {size / 1e6:,.1f} MB, {exported.engine}: "
        f"{checked['labels_equal']:,} of {checked['images']:,} labels as in Keras, probabilities "
        f"within {checked['largest_difference']:.0e}"
    )
