"""Stage `evaluate`: a trained model on the test images.

What comes out: metrics, predictions, robustness to corrupted images, costs, and figures.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from image_classification import dataset, files, paths, readers, records
from image_classification.command import entry_point
from image_classification.config import Config
from image_classification.dataset import Examples
from image_classification.errors import UserError

if TYPE_CHECKING:
    import keras
    import pandas as pd

MISTAKES = 25  # on the sheet of the worst
TIMED_BATCHES = (1, 256)  # images that the model gets at once when it is timed


@entry_point
def main(config: Config) -> int:
    """Evaluate one training, and tell the run that trained it."""
    evaluation = evaluate(config)
    accuracy = evaluation.metrics["test_accuracy"]
    print(f"test accuracy {accuracy:.4f}, details in {config.output_dir}")

    from image_classification import checkpoint, delivery

    checkpoint.discard_finished(paths.home() / paths.CHECKPOINTS)
    return delivery.publish(_training_folder(config), Path(config.output_dir))


@dataclass(frozen=True)
class Evaluation:
    """What a model does.

    metrics: `test_…` and `validation_…` of metrics.classification, and `robustness_…`, the mean
        accuracy over the strengths of each kind in corruptions.
    probabilities: float32 (n, classes), of the test images in their order.
    robustness: columns corruption, strength (0: as they are), accuracy (0 to 1).
    costs: parameters, model_bytes (of the file), fit_seconds, and `microseconds_batch_…`, what an
        image takes when the model gets so many at once.
    """

    metrics: dict[str, float]
    probabilities: NDArray[np.float32]
    robustness: "pd.DataFrame"
    costs: dict[str, float]


def evaluate(config: Config) -> Evaluation:
    """Evaluate the pipeline's training of a model and seed, and write what comes out.

    Raises:
        UserError: there is no such training or no split, or one made from other data; the model's
            file is not the one that was trained.
    """
    split = dataset.split_of_training(paths.SPLIT, config.data, config.seed)
    source = _training_folder(config)
    training = _read_training(source)

    from image_classification import costs, metrics, models  # TensorFlow takes seconds to import

    model = models.load(source / paths.MODEL_FILE, training["model_sha256"])
    validation = models.predict(model, split.validation.images)
    test = models.predict(model, split.test.images)
    values = {
        f"{part}_{name}": value
        for part, examples, probabilities in (
            ("test", split.test, test),
            ("validation", split.validation, validation),
        )
        for name, value in metrics.classification(examples.labels, probabilities).items()
    }
    robustness = _robustness(model, split.test, test)
    means = robustness[robustness["strength"] > 0].groupby("corruption")["accuracy"].mean()
    values |= {f"robustness_{kind}": float(accuracy) for kind, accuracy in means.items()}
    measured = {
        "parameters": training["parameters"],
        "model_bytes": (source / paths.MODEL_FILE).stat().st_size,
        "fit_seconds": training["fit_seconds"],
    }
    for batch in TIMED_BATCHES:
        images = np.resize(split.test.images, (batch, *split.test.images.shape[1:]))
        measured[f"microseconds_batch_{batch}"] = costs.inference_microseconds(model, images)
    evaluation = Evaluation(values, test, robustness, measured)
    with files.written_whole(Path(config.output_dir)) as folder:
        (folder / "figures").mkdir()
        _write(evaluation, split.test, config, folder)
        _draw_training(source, config.model.name, folder / "figures")
        costs_told = {key: value for key, value in measured.items() if key not in training}
        told = records.metrics(values | costs_told, 0, records.now(), of_model=True)
        records.write(
            folder,
            [
                {"type": "run", "key": training["run"], "experiment": config.data.name},
                {"type": "metrics", **told},
                {"type": "artifacts", "path": "evaluation"},
            ],
        )
    return evaluation


def _training_folder(config: Config) -> Path:
    return paths.MODELS / paths.training_name(config.model.name, config.seed)


def _read_training(folder: Path) -> dict[str, Any]:
    if not (folder / paths.TRAINING_FILE).is_file():
        raise UserError(f"{folder} holds no training: run `dvc repro` or set training_dir")
    return readers.read_training(folder / paths.TRAINING_FILE, _way_out(folder))


def _way_out(folder: Path) -> str:
    return f"run `dvc repro --force --single-item train@{folder.name}`"


def _robustness(
    model: "keras.Model", test: Examples, probabilities: NDArray[np.float32]
) -> "pd.DataFrame":
    import pandas as pd

    from image_classification import corruptions, models

    chosen = corruptions.sample(len(test.labels))
    images, labels = test.images[chosen], test.labels[chosen]

    def accuracy(probabilities: NDArray[np.float32]) -> float:
        return float((probabilities.argmax(axis=1) == labels).mean())

    unharmed = accuracy(probabilities[chosen])
    rows: list[tuple[str, float, float]] = [
        (kind, 0.0, unharmed) for kind in corruptions.CORRUPTIONS
    ]
    for kind, strength, corrupted in corruptions.graded(images):
        rows.append((kind, strength, accuracy(models.predict(model, corrupted))))
    return pd.DataFrame(rows, columns=["corruption", "strength", "accuracy"])


def _write(evaluation: Evaluation, test: Examples, config: Config, folder: Path) -> None:
    import pandas as pd

    from image_classification import figures, metrics

    classes, title = config.data.classes, config.model.name
    labels, probabilities = np.asarray(test.labels), evaluation.probabilities
    predicted = probabilities.argmax(axis=1)

    text = json.dumps(evaluation.metrics, indent=2)
    (folder / paths.METRICS_FILE).write_text(text + "\n")
    (folder / paths.COSTS_FILE).write_text(json.dumps(evaluation.costs, indent=2) + "\n")
    evaluation.robustness.to_csv(folder / paths.ROBUSTNESS_FILE, index=False)
    predictions = pd.DataFrame(probabilities, columns=[f"probability_{name}" for name in classes])
    predictions.insert(0, "actual", np.take(classes, labels))
    predictions.insert(1, "predicted", np.take(classes, predicted))
    predictions.to_csv(folder / paths.PREDICTIONS_FILE, index_label="example")
    metrics.per_class(labels, predicted, classes).to_csv(folder / paths.PER_CLASS_FILE, index=False)
    matrix = metrics.confusion_matrix(labels, predicted, classes)
    matrix.to_csv(folder / "confusion_matrix.csv")

    figures.confusion_matrix(matrix, title).savefig(folder / "figures/confusion_matrix.png")
    worst = metrics.worst_mistakes(labels, probabilities, MISTAKES)
    sheet = figures.image_sheet(
        test.images[worst],
        figures.mistake_captions(labels[worst], probabilities[worst], classes),
        title=f"{title}: worst mistakes on test",
    )
    sheet.savefig(folder / "figures/worst_mistakes.png")
    reliability = {title: metrics.reliability(labels, probabilities)}
    figures.reliability(reliability).savefig(folder / "figures/reliability.png")
    example = figures.example_prediction(
        test.images[0], int(labels[0]), probabilities[0], classes, title
    )
    example.savefig(folder / "figures/example_prediction.png")


def _draw_training(source: Path, title: str, folder: Path) -> None:
    """Here and not where it was trained, so that another look needs no other training."""
    from image_classification import figures

    history = readers.read_history(source / paths.HISTORY_FILE, _way_out(source))
    figures.loss_and_accuracy(history, title).savefig(folder / "loss_and_accuracy.png")
    layers = readers.read_layers(source / paths.LAYERS_FILE, _way_out(source))
    figures.layer_table(layers, title).savefig(folder / "layers.png")


if __name__ == "__main__":
    main()
