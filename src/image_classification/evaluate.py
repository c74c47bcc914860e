"""Stage `evaluate`: a trained model on the test images; metrics, predictions and figures."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from image_classification import dataset, paths
from image_classification.config import Config, entry_point
from image_classification.dataset import Examples
from image_classification.errors import UserError

MISTAKES = 25  # on the sheet of the worst


@entry_point
def main(config: Config) -> None:
    """Evaluate one training."""
    evaluation = evaluate(config)
    accuracy = evaluation.metrics["test_accuracy"]
    print(f"test accuracy {accuracy:.4f}, details in {config.output_dir}")


@dataclass(frozen=True)
class Evaluation:
    """What a model does.

    metrics: `test_…` and `validation_…` of metrics.classification.
    probabilities: float32 (n, classes), of the test images in their order.
    """

    metrics: dict[str, float]
    probabilities: NDArray[np.float32]


def evaluate(config: Config) -> Evaluation:
    """Evaluate the pipeline's training of a model and seed; log to the run that trained it.

    Raises:
        UserError: there is no such training or no split, or one made from other data; MLflow
            can't be reached or does not hold the run.
    """
    split = dataset.split_of_training(paths.SPLIT, config.data, config.seed)
    source = paths.MODELS / paths.training_name(config.model.name, config.seed)
    training = _read_training(source)
    folder = Path(config.output_dir)
    (folder / "figures").mkdir(parents=True, exist_ok=True)

    import keras  # TensorFlow and MLflow take seconds to import

    from image_classification import metrics, models, tracking

    model = keras.saving.load_model(source / paths.MODEL_FILE, compile=False)
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
    evaluation = Evaluation(values, test)
    _write(evaluation, split.test, config, folder)
    _draw_training(source, config.model.name, folder / "figures")
    tracking.log_evaluation(config.data.name, training["run_id"], values, folder)
    return evaluation


def _read_training(folder: Path) -> dict[str, str]:
    try:
        training: dict[str, str] = json.loads((folder / paths.TRAINING_FILE).read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} holds no training: run `dvc repro` or set training_dir"
        ) from error
    return training


def _write(evaluation: Evaluation, test: Examples, config: Config, folder: Path) -> None:
    import pandas as pd

    from image_classification import figures, metrics

    classes, title = config.data.classes, config.model.name
    labels, probabilities = np.asarray(test.labels), evaluation.probabilities
    predicted = probabilities.argmax(axis=1)

    text = json.dumps(evaluation.metrics, indent=2)
    (folder / paths.METRICS_FILE).write_text(text + "\n")
    predictions = pd.DataFrame(probabilities, columns=[f"probability_{name}" for name in classes])
    predictions.insert(0, "actual", np.take(classes, labels))
    predictions.insert(1, "predicted", np.take(classes, predicted))
    predictions.to_csv(folder / paths.PREDICTIONS_FILE, index_label="example")
    metrics.per_class(labels, predicted, classes).to_csv(folder / "per_class.csv", index=False)
    matrix = metrics.confusion_matrix(labels, predicted, classes)
    matrix.to_csv(folder / "confusion_matrix.csv")

    figures.confusion_matrix(matrix, title).savefig(folder / "figures/confusion_matrix.png")
    worst = metrics.worst_mistakes(labels, probabilities, MISTAKES)
    sheet = figures.mistakes(
        test.images[worst], labels[worst], probabilities[worst], classes, title
    )
    sheet.savefig(folder / "figures/worst_mistakes.png")
    example = figures.example_prediction(
        test.images[0], int(labels[0]), probabilities[0], classes, title
    )
    example.savefig(folder / "figures/example_prediction.png")


def _draw_training(source: Path, title: str, folder: Path) -> None:
    """Here and not where it was trained, so that another look needs no other training."""
    import pandas as pd

    from image_classification import figures

    history = pd.read_csv(source / paths.HISTORY_FILE)
    figures.loss_and_accuracy(history, title).savefig(folder / "loss_and_accuracy.png")
    layers = pd.read_csv(source / paths.LAYERS_FILE)
    figures.layer_table(layers, title).savefig(folder / "layers.png")


if __name__ == "__main__":
    main()
