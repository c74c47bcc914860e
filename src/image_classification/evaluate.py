"""Stage `evaluate`: the model of one run on the test images.

It writes metrics, predictions, robustness to corrupted images, costs, and figures. Images without
labels are predicted as well; no score counts them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from image_classification.core import paths, readers, tables
from image_classification.core.config import Config
from image_classification.core.errors import UserError
from image_classification.core.files import atomic_folder
from image_classification.core.hardware import hardware
from image_classification.data.arrays import Examples, Split
from image_classification.data.splits import split_for_run
from image_classification.evaluation import captions, corruptions, figures, metrics
from image_classification.evaluation.latency import latencies
from image_classification.models import saved
from image_classification.models.prediction import predict
from image_classification.tracking import event_log, run_folder
from image_classification.tracking.event_log import Event
from image_classification.tracking.outbox import upload
from image_classification.tracking.provenance import TRAINING_KEY

MISTAKES = 25  # on the sheet of the most confident ones
MISTAKES_IN_TABLE = 1000  # of the most confident ones


def main(config: Config) -> int:
    """Evaluate the model of one run, and log the result to that run."""
    evaluation = evaluate(config)
    accuracy = evaluation.metrics["test_accuracy"]
    print(f"test accuracy {accuracy:.4f}, details in {config.output_dir}")
    return upload(_training_folder(config), Path(config.output_dir))


@dataclass(frozen=True)
class Evaluation:
    """The results of one model.

    metrics: `test_…` and `validation_…` of metrics.classification, and `robustness_…`, the mean
        accuracy over the strengths of each kind in corruptions.
    probabilities: float32 (n, classes), of the test images in their order.
    validation: as `probabilities`, of the validation images.
    robustness: columns corruption, strength (0 for clean images), accuracy (0 to 1).
    costs: parameters, model_bytes (of the file), fit_seconds, and `microseconds_batch_…`, the time
        per image in batches of that size on this machine.
    unlabelled: as `probabilities`, of the images without labels; None if the data has none.
    """

    metrics: dict[str, float]
    probabilities: NDArray[np.float32]
    validation: NDArray[np.float32]
    robustness: pd.DataFrame
    costs: dict[str, float]
    unlabelled: NDArray[np.float32] | None


def evaluate(config: Config) -> Evaluation:
    """Evaluate the pipeline's run of a model and seed, and write the results.

    Raises:
        UserError: there is no such run or no split, or one made from other data; the model's
            file is not the one that was trained; the training diverged.
    """
    split = split_for_run(paths.SPLIT, config.data, config.seed)
    source = _training_folder(config)
    _require_trained(source, config)
    training = _read_training(source)
    run_folder.discard_finished(str(training["provenance"].get(TRAINING_KEY)))
    model = saved.load(source / paths.MODEL_FILE, training["model_sha256"])
    evaluation = _measure(model, split, _training_costs(training, source))
    names = split.names("test")
    with atomic_folder(Path(config.output_dir)) as folder:
        _write_tables(evaluation, split.test, split.classes, names, folder)
        _write_predictions(evaluation, split, names, folder)
        _write_unlabelled(evaluation, split, folder)
        (folder / "figures").mkdir()
        _draw_evaluation(evaluation, split, names, config.model.name, folder / "figures")
        _draw_training(source, config.model.name, folder / "figures")
        event_log.write(folder, _events(evaluation, training, config.data.dataset))
    return evaluation


def _training_folder(config: Config) -> Path:
    return paths.RUNS / paths.run_name(config.model.name, config.seed)


def _require_trained(folder: Path, config: Config) -> None:
    if not (folder / paths.TRAINING_FILE).is_file():
        hint = f"run `dvc repro train@{folder.name}`"
        if config.model.name not in config.models or config.seed not in config.seeds:
            hint = f"put the model and the seed into {paths.PARAMS} and run `dvc repro`"
        raise UserError(f"{folder} holds no trained model: {hint}")


def _read_training(folder: Path) -> dict[str, Any]:
    return readers.read_training(folder / paths.TRAINING_FILE, _hint(folder))


def _hint(folder: Path) -> str:
    return f"run `dvc repro --force --single-item train@{folder.name}`"


def _training_costs(training: dict[str, Any], source: Path) -> dict[str, float]:
    return {
        "parameters": training["parameters"],
        "model_bytes": (source / paths.MODEL_FILE).stat().st_size,
        "fit_seconds": training["fit_seconds"],
    }


def _measure(model: keras.Model, split: Split, training_costs: dict[str, float]) -> Evaluation:
    validation = predict(model, split.validation.images)
    test = predict(model, split.test.images)
    if not (np.isfinite(validation).all() and np.isfinite(test).all()):
        raise UserError(
            "recipe.learning_rate: the training diverged and the model predicts NaN: lower it"
        )
    unlabelled = split.unlabelled()
    robustness = _robustness(model, split.test, test)
    means = robustness[robustness["strength"] > 0].groupby("corruption")["accuracy"].mean()
    return Evaluation(
        metrics={
            **_metrics("test", split.test, test),
            **_metrics("validation", split.validation, validation),
            **{f"robustness_{kind}": float(accuracy) for kind, accuracy in means.items()},
        },
        probabilities=test,
        validation=validation,
        robustness=robustness,
        costs={**training_costs, **latencies(model, split.test.images)},
        unlabelled=None if unlabelled is None else predict(model, unlabelled),
    )


def _metrics(part: str, examples: Examples, probabilities: NDArray[np.float32]) -> dict[str, float]:
    values = metrics.classification(examples.labels, probabilities)
    return {f"{part}_{name}": value for name, value in values.items()}


def _robustness(
    model: keras.Model, test: Examples, probabilities: NDArray[np.float32]
) -> pd.DataFrame:
    chosen = corruptions.sample(len(test.labels))
    images, labels = test.images[chosen], test.labels[chosen]

    def accuracy(probabilities: NDArray[np.float32]) -> float:
        return float((probabilities.argmax(axis=1) == labels).mean())

    clean = accuracy(probabilities[chosen])
    rows: list[tuple[str, float, float]] = [(kind, 0.0, clean) for kind in corruptions.CORRUPTIONS]
    for kind, strength, corrupted in corruptions.graded(images):
        rows.append((kind, strength, accuracy(predict(model, corrupted))))
    return pd.DataFrame(rows, columns=["corruption", "strength", "accuracy"])


def _write_tables(
    evaluation: Evaluation,
    test: Examples,
    classes: list[str],
    names: Sequence[str],
    folder: Path,
) -> None:
    """The names are those of the test images' files; empty for data without files."""
    for name, values in (
        (paths.METRICS_FILE, evaluation.metrics),
        (paths.COSTS_FILE, {**evaluation.costs, "machine": hardware()}),
    ):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n")
    evaluation.robustness.to_csv(folder / paths.ROBUSTNESS_FILE, index=False)
    labels, probabilities = np.asarray(test.labels), evaluation.probabilities
    predicted = probabilities.argmax(axis=1)
    per_class = metrics.per_class(labels, predicted, classes)
    per_class.to_csv(folder / paths.PER_CLASS_FILE, index=False)
    matrix = metrics.confusion_matrix(labels, predicted, classes)
    matrix.to_csv(folder / "confusion_matrix.csv")
    (folder / paths.TABLES).mkdir()
    mistakes = metrics.mistakes(labels, probabilities, classes, MISTAKES_IN_TABLE, names)
    for name, table in (("per_class", per_class), ("mistakes", mistakes)):
        # The format of mlflow.log_table, which itself would append to a table that is there.
        table.to_json(folder / paths.TABLES / f"{name}.json", orient="split", index=False)


def _write_predictions(
    evaluation: Evaluation, split: Split, names: Sequence[str], folder: Path
) -> None:
    """The predictions for labelled images: of test for the comparison, of validation for the gate.

    Validation images have no names here, since each seed may hold out others.
    """
    (folder / paths.PREDICTIONS).mkdir()
    for file, labels, probabilities, named in (
        (paths.TEST_FILE, split.test.labels, evaluation.probabilities, names),
        (paths.VALIDATION_FILE, split.validation.labels, evaluation.validation, ()),
    ):
        table = _predictions(probabilities, split.classes, named)
        actual = np.take(split.classes, np.asarray(labels))
        table.insert(len(table.columns) - len(split.classes) - 1, "actual", actual)
        table.to_csv(folder / file, index_label="example")


def _predictions(
    probabilities: NDArray[np.float32], classes: list[str], names: Sequence[str]
) -> pd.DataFrame:
    """The predicted class and the probabilities of each image, after its name if it has one."""
    table = pd.DataFrame(probabilities, columns=[f"probability_{name}" for name in classes])
    table.insert(0, "predicted", np.take(classes, probabilities.argmax(axis=1)))
    if names:
        table.insert(0, "file", list(names))
    return table


def _write_unlabelled(evaluation: Evaluation, split: Split, folder: Path) -> None:
    """The predictions for images without labels, also in Kaggle's submission format."""
    if evaluation.unlabelled is None:
        return
    table = _predictions(evaluation.unlabelled, split.classes, split.names("unlabelled"))
    table.to_csv(folder / paths.UNLABELLED_FILE, index_label="example")
    submission = pd.DataFrame({"ImageId": table["file"], "Label": table["predicted"]})
    submission.to_csv(folder / paths.SUBMISSION_FILE, index=False)


def _draw_evaluation(
    evaluation: Evaluation, split: Split, names: Sequence[str], title: str, folder: Path
) -> None:
    test, classes = split.test, split.classes
    labels, probabilities = np.asarray(test.labels), evaluation.probabilities
    matrix = metrics.confusion_matrix(labels, probabilities.argmax(axis=1), classes)
    figures.confusion_matrix(matrix, title).savefig(folder / "confusion_matrix.png")
    worst = metrics.worst_mistakes(labels, probabilities, MISTAKES)
    sheet = figures.image_sheet(
        test.images[worst],
        captions.mistake_captions(
            labels[worst], probabilities[worst], classes, [names[i] for i in worst if names]
        ),
        title=f"{title}: most confident mistakes on test",
    )
    sheet.savefig(folder / "worst_mistakes.png")
    reliability = {title: metrics.reliability(labels, probabilities)}
    figures.reliability(reliability).savefig(folder / "reliability.png")
    example = figures.example_prediction(
        test.images[0], int(labels[0]), probabilities[0], classes, title
    )
    example.savefig(folder / "example_prediction.png")


def _draw_training(source: Path, title: str, folder: Path) -> None:
    """Draw the training here and not in `train`: a changed figure then needs no new training."""
    history = tables.read_history(source / paths.HISTORY_FILE, _hint(source))
    figures.loss_and_accuracy(history, title).savefig(folder / "loss_and_accuracy.png")
    layers = tables.read_layers(source / paths.LAYERS_FILE, _hint(source))
    figures.layer_table(layers, title).savefig(folder / "layers.png")


def _events(evaluation: Evaluation, training: dict[str, Any], experiment: str) -> list[Event]:
    # The run already has the numbers in training.json.
    new_costs = {key: value for key, value in evaluation.costs.items() if key not in training}
    values = evaluation.metrics | new_costs
    return [
        {"type": "run", "key": training["run"], "experiment": experiment},
        {"type": "metrics", **event_log.metrics(values, 0, event_log.now(), of_model=True)},
        {"type": "artifacts", "path": "evaluation"},
        {"type": "tables", "path": f"evaluation/{paths.TABLES}"},
    ]
