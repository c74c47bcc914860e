"""All that the project tells MLflow: runs, their metrics and artifacts, and the model registry.

The store is sqlite:///mlflow.db at the project's root unless MLFLOW_TRACKING_URI names another.
"""

import contextlib
import io
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

# A store that does not answer must cost seconds; MLflow's own defaults wait for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # each training would ask the network

import mlflow
import numpy as np
import psutil
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import LoggedModelInput, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from image_classification import paths, provenance
from image_classification.config import SWEEP_RUN, Config, defining, flatten
from image_classification.dataset import Examples
from image_classification.errors import UserError

REQUIREMENTS = ("tensorflow", "keras", "numpy")  # of a logged model
TRAINING_KEY = "training.key"  # the tag that equal trainings share
SYSTEM_METRICS_SECONDS = 2  # between two samples; short trainings would get none at MLflow's 10

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow").setLevel(logging.WARNING)


def connect(experiment: str) -> str:
    """Reach the store and select the experiment, making both when they are not there.

    Returns:
        The id of the experiment.

    Raises:
        UserError: the store can't be reached.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    artifacts = None
    if uri.startswith("sqlite:///"):
        # Relative to the project, not to whatever folder or copy of it the command runs in.
        database = paths.home() / uri.removeprefix("sqlite:///")
        uri = f"sqlite:///{database}"
        artifacts = (database.parent / "mlartifacts").as_uri()
        _initialise(database)
    mlflow.set_tracking_uri(uri)
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_SECONDS)
    mlflow.set_system_metrics_samples_before_logging(1)
    try:
        client = mlflow.MlflowClient()
        experiment_id = _experiment_id(client, experiment, artifacts)
        if "MLFLOW_RUN_ID" not in os.environ:  # `mlflow run` has selected its experiment already
            mlflow.set_experiment(experiment_id=experiment_id)
        _close_abandoned(client, experiment_id)
    except (MlflowException, SQLAlchemyError) as error:
        cause = str(error).partition("\n")[0][:300]
        raise UserError(f"the tracking store {uri} can't be used: {cause}") from error
    return experiment_id


def _experiment_id(client: mlflow.MlflowClient, name: str, artifacts: str | None) -> str:
    """The experiment of that name, made when it is not there; another process may be faster."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            tags = {"mlflow.experimentKind": "custom_model_development"}  # the UI's view of it
            return client.create_experiment(name, artifact_location=artifacts, tags=tags)
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _initialise(database: Path) -> None:
    """Make an empty database, once, however many processes start at the same time."""
    if database.exists():
        return
    fresh = database.with_name(f"{database.name}.{os.getpid()}")
    try:
        fresh.touch()  # fails at once where MLflow would try for minutes
        # In a process of its own, so that no connection to this name outlives it.
        subprocess.run(
            [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{fresh}"],
            check=True,
            capture_output=True,
        )
        os.link(fresh, database)
    except FileExistsError:
        pass  # another process was faster, and its database is complete
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode().strip().splitlines()
        cause = next((line for line in said if "Error" in line), said[-1])
        raise UserError(f"{database} can't be made: {cause}") from error
    except OSError as error:
        raise UserError(f"{database} can't be made: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def _close_abandoned(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Mark as KILLED what this machine started, left RUNNING and no longer runs."""
    running = client.search_runs(
        [experiment_id],
        f"attributes.status = 'RUNNING' and tags.`process.host` = '{socket.gethostname()}'",
    )
    for run in running:
        pid, started = int(run.data.tags["process.id"]), run.data.tags["process.started"]
        if not _lives(pid, started):
            client.set_terminated(run.info.run_id, "KILLED")


def _lives(pid: int, started: str) -> bool:
    try:
        # Not to the second: the clock that it is computed from may have been set meanwhile.
        return bool(abs(psutil.Process(pid).create_time() - float(started)) < 60)
    except psutil.NoSuchProcess:
        return False


def _process_tags() -> dict[str, str]:
    own = psutil.Process()
    return {
        "process.host": socket.gethostname(),
        "process.id": str(own.pid),
        "process.started": str(own.create_time()),
    }


@contextlib.contextmanager
def _ending(run: mlflow.ActiveRun) -> Iterator[mlflow.ActiveRun]:
    """Give the run its last status however its block is left."""
    try:
        yield run
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        _end(run.info.run_id, "KILLED" if interrupted else "FAILED")
        raise
    _end(run.info.run_id, "FINISHED")


def _end(run_id: str, status: str) -> None:
    """Close a run, and take off what only `_close_abandoned` reads."""
    client = mlflow.MlflowClient()
    active = mlflow.active_run()
    if active and active.info.run_id == run_id:
        mlflow.end_run(status)  # stops the system metrics as well
    else:
        client.set_terminated(run_id, status)
    for key in _process_tags():
        client.delete_tag(run_id, key)


@contextlib.contextmanager
def training_run(config: Config, data_hash: str) -> Iterator[str]:
    """A run for one training; yields its id. Ends FINISHED, FAILED or, when interrupted, KILLED.

    Args:
        config: logged as flat parameters.
        data_hash: DVC's hash of the split.

    Raises:
        UserError: the store can't be reached.
    """
    connect(config.data.name)
    tags = {
        "dataset": config.data.name,
        "model": config.model.name,
        "recipe": config.recipe.name,
        "seed": str(config.seed),
        "dvc.data": data_hash,
        **provenance.commit(),
        "machine": provenance.machine(),
        TRAINING_KEY: provenance.training_key(config, data_hash),
        **_process_tags(),
    }
    if SWEEP_RUN in os.environ:
        tags[MLFLOW_PARENT_RUN_ID] = os.environ[SWEEP_RUN]
    run = mlflow.start_run(
        run_name=paths.training_name(config.model.name, config.seed),
        tags=tags,
        log_system_metrics=True,
    )
    with _ending(run):
        mlflow.set_tags(tags)  # start_run passes over them where `mlflow run` has made the run
        known = mlflow.get_run(run.info.run_id).data.params
        params = flatten(defining(config))
        mlflow.log_params({key: value for key, value in params if key not in known})
        yield run.info.run_id


def finished_training(config: Config, data_hash: str) -> str | None:
    """The id of a run that has done this very training, if there is one.

    Raises:
        UserError: the store can't be reached.
    """
    experiment_id = connect(config.data.name)
    key = provenance.training_key(config, data_hash)
    found = mlflow.MlflowClient().search_runs(
        [experiment_id],
        f"attributes.status = 'FINISHED' and tags.`{TRAINING_KEY}` = '{key}'",
        max_results=1,
    )
    return str(found[0].info.run_id) if found else None


def start_sweep(experiment: str, name: str) -> str:
    """Open the run that the runs of a sweep stand under; `end_sweep` closes it."""
    experiment_id = connect(experiment)
    client = mlflow.MlflowClient()
    run = client.create_run(experiment_id, run_name=name, tags={"sweep": "true", **_process_tags()})
    return str(run.info.run_id)


def end_sweep(run_id: str, complete: bool) -> None:
    """Close a sweep's run: FINISHED when all its jobs were done, KILLED when it stopped before."""
    _end(run_id, "FINISHED" if complete else "KILLED")


def log_data(name: str, examples: Examples, source: Path, data_hash: str) -> None:
    """Name the data, its folder and DVC's hash of it as an input of the active run."""
    data = from_numpy(
        np.asarray(examples.images),
        targets=np.asarray(examples.labels),
        source=CodeDatasetSource({"mlflow.source.name": str(source), "dvc.data": data_hash}),
        name=name,
    )
    mlflow.log_input(data, context="training")


def log_precision(precision: str) -> None:
    """Tag the active run with what its steps compute in, which the machine has a say in."""
    mlflow.set_tag("precision", precision)


def log_epoch(epoch: int, values: Mapping[str, float]) -> None:
    """Log one value a metric to the active run, at the step of an epoch counted from 0."""
    mlflow.log_metrics(dict(values), step=epoch)


def log_training(
    name: str, model: Any, example: NDArray[np.uint8], folder: Path, summary: Mapping[str, float]
) -> None:
    """Log what a training left to the active run: summary metrics, its files, and the model.

    Args:
        name: that the logged model gets.
        model: a Keras model.
        example: a few images, an example of the logged model's input.
        folder: its files become artifacts.
        summary: metrics of the whole training.
    """
    mlflow.log_metrics(dict(summary))
    for path in sorted(folder.iterdir()):
        if path.suffix != ".keras":
            mlflow.log_artifact(str(path), "training")
    signature = ModelSignature(
        Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, model.output_shape[-1]))]),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # Keras' progress bar for the example
        mlflow.tensorflow.log_model(
            model,
            name=name,
            signature=signature,
            input_example=example,
            # Given, since MLflow would load the model in another process to find them out.
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        )


def log_evaluation(
    experiment: str, run_id: str, metrics: Mapping[str, float], folder: Path
) -> None:
    """Add test metrics, and an evaluation's files as artifacts, to the run that trained the model.

    Raises:
        UserError: the store can't be reached or does not hold the run.
    """
    connect(experiment)
    client = mlflow.MlflowClient()
    model_id = _logged_model(client, run_id)
    now = int(time.time() * 1000)
    entries = [
        Metric(key, value, now, 0, model_id=model_id, run_id=run_id)
        for key, value in metrics.items()
    ]
    client.log_batch(run_id, entries)
    client.log_artifacts(run_id, str(folder), "evaluation")


def _logged_model(client: mlflow.MlflowClient, run_id: str) -> str:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(
            f"MLflow at {mlflow.get_tracking_uri()} does not hold run {run_id}, which trained this "
            "model: set MLFLOW_TRACKING_URI to where it is, or train again with `dvc repro --force`"
        ) from error
    if run.outputs is None or not run.outputs.model_outputs:
        raise UserError(f"run {run_id} in MLflow holds no model: train again")
    return str(run.outputs.model_outputs[0].model_id)


def register(name: str, run_ids: list[str]) -> dict[str, int]:
    """Have the model of each run stand in the registry, once.

    Args:
        name: of the registered model.
        run_ids: runs of `training_run` that finished.

    Returns:
        The version of each run's model.

    Raises:
        UserError: the store can't be reached or does not hold a run.
    """
    connect(name)
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    client.update_registered_model(
        name,
        f"Classifiers of the data set {name}, one version a training. `champion` is the best "
        "training of the model with the best mean validation accuracy; the alias of a model's name "
        "is its best training. To load one: "
        f"`mlflow.pyfunc.load_model('models:/{name}@champion')`; it takes uint8 images as they "
        "are. The experiment's latest run `comparison` says which model is better, and how sure "
        "that is.",
    )
    known = {entry.run_id: entry for entry in client.search_model_versions(f"name = '{name}'")}
    versions = {}
    for run_id in run_ids:
        if run_id not in known:
            model_id = _logged_model(client, run_id)
            known[run_id] = client.create_model_version(
                name, f"models:/{model_id}", run_id=run_id, model_id=model_id
            )
        versions[run_id] = int(known[run_id].version)
    return versions


def tags(run_ids: list[str]) -> dict[str, dict[str, str]]:
    """The tags of runs, by their ids."""
    client = mlflow.MlflowClient()
    return {run_id: dict(client.get_run(run_id).data.tags) for run_id in run_ids}


def describe_versions(name: str, descriptions: Mapping[int, str]) -> None:
    """Give versions of a registered model, and their runs, descriptions in Markdown."""
    client = mlflow.MlflowClient()
    for number, description in descriptions.items():
        version = client.update_model_version(name, str(number), description)
        client.set_tag(str(version.run_id), MLFLOW_RUN_NOTE, description)


@contextlib.contextmanager
def comparison_run(
    experiment: str, run_ids: list[str], parameters: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """A run for a comparison, whose inputs are the models compared.

    Args:
        experiment: of the runs.
        run_ids: the runs compared.
        parameters: of the pipeline, by dotted key.

    Yields:
        The ids of the experiment and of the run.
    """
    experiment_id = connect(experiment)
    client = mlflow.MlflowClient()
    tags = {"dataset": experiment, **provenance.commit(), **_process_tags()}
    run = mlflow.start_run(experiment_id=experiment_id, run_name="comparison", tags=tags)
    with _ending(run):
        mlflow.log_params(dict(parameters))
        models = [LoggedModelInput(_logged_model(client, run_id)) for run_id in run_ids]
        client.log_inputs(run.info.run_id, models=models)
        yield experiment_id, run.info.run_id


def log_comparison(note: str, folder: Path) -> None:
    """Log to the active run its description, in Markdown, and the files of a folder.

    The description becomes the experiment's as well.
    """
    mlflow.set_tag(MLFLOW_RUN_NOTE, note)
    mlflow.set_experiment_tag(MLFLOW_RUN_NOTE, note)  # experiments and runs name it alike
    mlflow.log_artifacts(str(folder))


def set_aliases(name: str, versions: Mapping[str, int]) -> None:
    """Point each alias of a registered model at a version."""
    client = mlflow.MlflowClient()
    for alias, number in versions.items():
        client.set_registered_model_alias(name, alias, str(number))
