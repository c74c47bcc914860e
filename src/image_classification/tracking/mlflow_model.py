"""The model of a run, as MLflow's pages, `mlflow.keras` and `mlflow.pyfunc` know it."""

import contextlib
import io
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from image_classification.core import paths
from image_classification.tracking import mlflow_store
from image_classification.tracking.event_log import Event
from image_classification.tracking.mlflow_run import MlflowRun

REQUIREMENTS = ("tensorflow", "keras", "numpy")  # of a logged model


def log_model(run: MlflowRun, event: Event, model: Any = None) -> None:
    """Log the model of a run, once.

    Args:
        run: to log it to.
        event: of the type `model`.
        model: a keras.Model, if it is in memory; else it is loaded from the folder of the run.
    """
    for known in run.models(run.run_id):
        if known.status == LoggedModelStatus.READY:
            return
        run.client.delete_logged_model(known.model_id)  # cut short by an outage
    if model is None:
        model = _load(run, event)
    examples = np.load(run.folder / paths.EXAMPLES_FILE, allow_pickle=False)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), (-1, *event["image_shape"]))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, event["classes"]))]),
    )
    found = run.client.get_run(run.run_id).data
    logged = run.client.create_logged_model(
        run.experiment_id,
        event["name"],
        source_run_id=run.run_id,
        params=found.params,
        tags={k: value for k, value in found.tags.items() if k in mlflow_store.context_tags()},
    )
    with contextlib.redirect_stdout(io.StringIO()):  # Keras' progress bar for the examples
        Model.log(
            artifact_path=None,
            flavor=SimpleNamespace(save_model=_save),
            model=model,
            model_id=logged.model_id,
            run_id=run.run_id,
            signature=signature,
            input_example=examples,
            # Given, since MLflow would load the model in another process to find them out.
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        )


def _save(path: str, **details: Any) -> None:
    Path(path).mkdir()  # where mlflow.keras puts the input example before it makes the folder
    mlflow.keras.save_model(path=path, **details)


def _load(run: MlflowRun, event: Event) -> Any:
    # TensorFlow takes seconds to import, and only an upload that comes late needs it.
    from image_classification.models import saved

    return saved.load(run.folder / paths.MODEL_FILE, event["sha256"])
