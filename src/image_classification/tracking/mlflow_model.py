"""The model of a run, as MLflow's pages, `mlflow.keras` and `mlflow.pyfunc` know it."""

import contextlib
import io
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import Schema, TensorSpec

from image_classification.core import paths
from image_classification.core.tensorflow_log import quiet_start
from image_classification.tracking import mlflow_store
from image_classification.tracking.event_log import Event
from image_classification.tracking.mlflow_run import MlflowRun, file_sizes
from image_classification.tracking.mlflow_tags import MODEL_FILES

LOADER = Path(__file__).with_name("pyfunc_loader.py")  # not imported: it takes TensorFlow
CODE = "code"  # the folder of the loader, in that of the model
REQUIREMENTS = ("tensorflow", "keras", "numpy")  # of a logged model


def log_model(run: MlflowRun, event: Event, model: Any = None) -> None:
    """Log the model of a run, once; what a finished one lacks is added to it.

    Args:
        run: to log it to.
        event: of the type `model`.
        model: a keras.Model, if it is in memory; else it is loaded from the folder of the run.
    """
    finished = None
    for known in run.models(run.run_id):
        if known.status == LoggedModelStatus.READY:
            finished = known
        else:
            with contextlib.suppress(MlflowException):  # a team's server may not let us
                run.client.delete_logged_model(known.model_id)  # cut short by an outage
    if finished and _is_whole(run, finished):
        return
    if model is None:
        model = _load(run, event)
    with contextlib.redirect_stdout(io.StringIO()):  # Keras' progress bar for the examples
        if finished:  # versions may point at it
            _add_files(run, finished, {"model": model, **_description(run, event)})
        else:
            _log_new(run, event, {"model": model, **_description(run, event)})


def has_model(run: MlflowRun, event: Event) -> bool:
    """Whether the run's model is in MLflow, with all its files at their full size."""
    finished = [m for m in run.models(run.run_id) if m.status == LoggedModelStatus.READY]
    return bool(finished) and _is_whole(run, finished[0])


def _description(run: MlflowRun, event: Event) -> dict[str, Any]:
    """What MLflow's own functions take beside the model."""
    signature = ModelSignature(
        # Of any type: as uint8, MLflow would cut fractions to 0 before the loader can refuse them.
        Schema([TensorSpec(np.dtype("object"), (-1,))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, event["classes"]))]),
    )
    return {
        "signature": signature,
        "input_example": np.load(run.folder / paths.EXAMPLES_FILE, allow_pickle=False),
        # Given, since MLflow would load the model in another process to find them out.
        "pip_requirements": [f"{name}=={version(name)}" for name in REQUIREMENTS],
    }


def _log_new(run: MlflowRun, event: Event, described: dict[str, Any]) -> None:
    found = run.client.get_run(run.run_id).data
    logged = run.client.create_logged_model(
        run.experiment_id,
        event["name"],
        source_run_id=run.run_id,
        params=found.params,
        tags={k: value for k, value in found.tags.items() if k in mlflow_store.context_tags()},
    )
    Model.log(
        artifact_path=None,
        flavor=SimpleNamespace(save_model=_save),
        model_id=logged.model_id,
        run_id=run.run_id,
        **described,
    )
    # After all files: a model without this tag may have been cut short.
    run.client.set_logged_model_tags(logged.model_id, {MODEL_FILES: _files(run, logged.model_id)})


def _add_files(run: MlflowRun, logged: Any, described: dict[str, Any]) -> None:
    """Write the files of a finished model again, under the id that it has."""
    known = Model(
        artifact_path=logged.artifact_location,
        run_id=run.run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _save(str(folder), mlflow_model=known, **described)
        run.client.log_model_artifacts(logged.model_id, str(folder))
    run.client.set_logged_model_tags(logged.model_id, {MODEL_FILES: _files(run, logged.model_id)})


def _is_whole(run: MlflowRun, logged: Any) -> bool:
    return bool(logged.tags.get(MODEL_FILES) == _files(run, logged.model_id))


def _files(run: MlflowRun, model_id: str) -> str:
    """The paths and sizes in bytes of the files that MLflow holds of a model, as JSON."""
    listed = run.client.list_logged_model_artifacts
    return json.dumps(file_sizes(lambda path: listed(model_id, path)), sort_keys=True)


def _save(path: str, mlflow_model: Model, **details: Any) -> None:
    folder = Path(path)
    folder.mkdir()  # where mlflow.keras puts the input example before it makes the folder
    mlflow.keras.save_model(path=path, mlflow_model=mlflow_model, **details)
    (folder / CODE).mkdir()
    shutil.copy(LOADER, folder / CODE)
    loader = {"loader_module": LOADER.stem, "code": CODE}
    mlflow_model.flavors[mlflow.pyfunc.FLAVOR_NAME].update(loader)
    mlflow_model.save(str(folder / MLMODEL_FILE_NAME))


def _load(run: MlflowRun, event: Event) -> Any:
    # TensorFlow takes seconds to import, and only an upload that comes late needs it.
    with quiet_start():
        from image_classification.models import saved

        return saved.load(run.folder / paths.MODEL_FILE, event["sha256"])
