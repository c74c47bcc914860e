"""A model measured on examples that it was not judged on before; imports TensorFlow."""

from pathlib import Path

from image_classification.core.errors import UserError
from image_classification.core.files import sha256
from image_classification.core.hardware import hardware
from image_classification.evaluation.latency import latencies
from image_classification.models import saved
from image_classification.models.prediction import predict
from image_classification.promotion import evidence
from image_classification.promotion.evidence import EvaluatedRun, ValidationSet
from image_classification.promotion.records import JudgedRun


def measure(judged: JudgedRun, path: Path, validation_set: ValidationSet) -> EvaluatedRun:
    """Measure the model in a file, once its weights prove to be the run's.

    Raises:
        UserError: the file is damaged or another model's, or can't take these images.
    """
    hint = "give a --reason to promote without a comparison"
    found = evidence.weights_sha256(path, hint)
    if found != judged.weights_sha256:
        raise UserError(f"{path} holds other weights than {judged.run}: {hint}")
    model = saved.load(path, sha256(path))
    images = validation_set.examples.images
    input_shape, class_count = tuple(model.input_shape[1:]), model.output_shape[-1]
    if input_shape != tuple(images.shape[1:]) or class_count != len(validation_set.classes):
        raise UserError(f"{judged.run} takes other images or classes: {hint}")
    probabilities = predict(model, images)
    costs = {"parameters": model.count_params(), "model_bytes": path.stat().st_size}
    times = {**latencies(model, images), "machine": hardware()}
    numbers = {**evidence.of_probabilities(validation_set, probabilities), **costs, **times}
    return EvaluatedRun(judged, validation_set, probabilities.argmax(axis=1), numbers)
