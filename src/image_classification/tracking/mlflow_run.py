"""One run in MLflow: opened or found, and what is logged to it."""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import (
    Dataset,
    DatasetInput,
    FileInfo,
    InputTag,
    LoggedModelInput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.tracking.default_experiment import DEFAULT_EXPERIMENT_ID
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_LOGGED_ARTIFACTS,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NOTE,
)
from sqlalchemy.exc import SQLAlchemyError

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.tracking import mlflow_pages, mlflow_store, mlflow_tags
from image_classification.tracking.event_log import Event
from image_classification.tracking.mlflow_tags import RUN_KEY, SWEEP_KEY
from image_classification.tracking.provenance import TRAINING_KEY


class MissingRunError(UserError):
    """The store does not hold a run that has to be there."""


@dataclass(frozen=True)
class MlflowRun:
    """Where events are logged to.

    client: of the store.
    experiment_id, run_id: MLflow's.
    is_deleted: by somebody, on MLflow's pages.
    folder: of the files that events name.
    """

    client: mlflow.MlflowClient
    experiment_id: str
    run_id: str
    is_deleted: bool
    folder: Path

    def find(self, key: str) -> Run:
        """Another run of the experiment, by its key.

        Raises:
            MissingRunError: there is none.
        """
        return _find(self.client, self.experiment_id, key)

    def present(self, keys: Iterable[str]) -> dict[str, str]:
        """The ids of those runs that nobody has deleted, by their keys."""
        runs = {key: self.find(key) for key in keys}
        return {
            key: run.info.run_id
            for key, run in runs.items()
            if run.info.lifecycle_stage != "deleted"
        }

    def linked(self, text: str) -> str:
        """A text whose links to runs are as MLflow's pages need them (see mlflow_pages.Pages).

        Raises:
            MissingRunError: a run is not there.
        """
        run_ids = {key: self.find(key).info.run_id for key in mlflow_pages.keys_in(text)}
        return mlflow_pages.Pages(self.experiment_id, run_ids).linked(text)

    def models(self, run_id: str) -> list[Any]:
        """The logged models of a run, finished or not."""
        of_run = f"source_run_id = '{run_id}'"
        return list(self.client.search_logged_models([self.experiment_id], of_run))

    def model_id(self, run_id: str) -> str:
        """The finished model of a run.

        Raises:
            UserError: there is none.
        """
        for model in self.models(run_id):
            if model.status == LoggedModelStatus.READY:
                return str(model.model_id)
        raise UserError(f"run {run_id} in {mlflow_store.display_uri()} holds no model")


def open_run(event: Event, folder: Path) -> MlflowRun:
    """Find the run of an event log, or make it where the event says how it began.

    Raises:
        MissingRunError: the run is not there, and has to be.
    """
    experiment_id = mlflow_store.connect(event["experiment"])
    client = mlflow.MlflowClient()
    with mlflow_store.store_lock():
        if "start" in event:
            run = _find_or_make(client, experiment_id, event)
        else:
            run = _find(client, experiment_id, event["key"])
    # The run of `mlflow run` may be in another experiment.
    info = run.info
    is_deleted = info.lifecycle_stage == "deleted"
    return MlflowRun(client, info.experiment_id, info.run_id, is_deleted, folder)


def _find(client: mlflow.MlflowClient, experiment_id: str, key: str) -> Run:
    found = mlflow_pages.find_run(client, experiment_id, key)
    if found is None:
        raise MissingRunError(f"{mlflow_store.display_uri()} does not hold the run {key}")
    return found


def _find_or_make(client: mlflow.MlflowClient, experiment_id: str, event: Event) -> Run:
    with contextlib.suppress(MissingRunError):
        return _find(client, experiment_id, event["key"])
    tags = {**mlflow_tags.all_stored(event["tags"]), RUN_KEY: event["key"]}
    if event["parent"]:
        parent = _find_or_make(client, experiment_id, event["parent"])
        tags[MLFLOW_PARENT_RUN_ID] = parent.info.run_id
    opened = _opened(client, event)
    if opened and opened.info.experiment_id != DEFAULT_EXPERIMENT_ID:
        _set_tags(client, opened.info.run_id, tags)
        client.update_run(opened.info.run_id, name=event["name"])
        return opened
    made = client.create_run(
        experiment_id, start_time=event["start"], tags=tags, run_name=event["name"]
    )
    if opened:  # without `--experiment-name`; it can't be moved
        page = mlflow_pages.Pages(experiment_id, {event["key"]: made.info.run_id})
        note = f"The run is [{event['name']}]({page.run(event['key'])})."
        client.set_tag(opened.info.run_id, MLFLOW_RUN_NOTE, note)
    return made


def _opened(client: mlflow.MlflowClient, event: Event) -> Run | None:
    """The run that `mlflow run` has opened for this one, if it has, and this store holds it."""
    with contextlib.suppress(MlflowException):
        run = client.get_run(event["mlflow_run"]) if event["mlflow_run"] else None
        if run and run.data.tags.get(RUN_KEY, event["key"]) == event["key"]:
            return run
    return None


def _set_tags(client: mlflow.MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def resume(run: MlflowRun, event: Event) -> None:
    """Set the run RUNNING again, with the tags of its new process."""
    _set_tags(run.client, run.run_id, mlflow_tags.all_stored(event["tags"]))
    run.client.update_run(run.run_id, status="RUNNING")


def params(run: MlflowRun, event: Event) -> None:
    """Log the parameters that the run does not have."""
    # `mlflow run` has logged some already, and a parameter can't be changed.
    known = run.client.get_run(run.run_id).data.params
    # MLflow refuses names with other characters than these.
    named = {re.sub(r"[^\w\-. :/]", "_", key): value for key, value in event["values"].items()}
    new = [Param(key, str(value)) for key, value in named.items() if key not in known]
    run.client.log_batch(run.run_id, params=new)


def data(run: MlflowRun, event: Event) -> None:
    """Name the data, its folder and DVC's hash of it as an input of the run."""
    profile = {"examples": event["examples"], "image_shape": event["shape"]}
    dataset = Dataset(
        name=event["name"],
        digest=event["hash"],
        source_type="local",
        source=json.dumps({"uri": event["source"]}),
        profile=json.dumps(profile),
    )
    inputs = [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])]
    with mlflow_store.store_lock():  # MLflow fails where two register the same data set at once
        run.client.log_inputs(run.run_id, inputs)


def metrics(run: MlflowRun, event: Event) -> None:
    """Log the metrics of an evaluation, which may have been repeated with the same result."""
    known = run.client.get_run(run.run_id).data.metrics
    values = {key: value for key, value in event["values"].items() if known.get(key) != value}
    model = run.model_id(run.run_id) if event["of_model"] else None
    log_metrics(run, [{**event, "values": values}], model)


def log_metrics(run: MlflowRun, events: Sequence[Event], model: str | None = None) -> None:
    """Log many events of metrics at once; MLflow skips what it has already."""
    entries = [
        Metric(key, value, event["time"], event["step"], model_id=model, run_id=run.run_id)
        for event in events
        for key, value in event["values"].items()
    ]
    run.client.log_batch(run.run_id, entries)


def artifacts(run: MlflowRun, event: Event) -> None:
    """Log the files of the folder, apart from the model, which is logged as one.

    Raises:
        OSError: one of them is gone by now.
        UserError: there are none.
    """
    for path, place in _artifacts(run, event).items():
        parent = None if place.parent == Path() else str(place.parent)
        run.client.log_artifact(run.run_id, str(path), parent)


def has_artifacts(run: MlflowRun, event: Event) -> bool:
    """Whether all of these files are in MLflow, at their full size.

    Raises:
        OSError, UserError: as `artifacts`.
    """
    expected = {str(place): path.stat().st_size for path, place in _artifacts(run, event).items()}
    folder = None if event["path"] == "." else event["path"]
    found = file_sizes(lambda path: run.client.list_artifacts(run.run_id, path), folder)
    return expected.items() <= found.items()


def _artifacts(run: MlflowRun, event: Event) -> dict[Path, Path]:
    """The files of the folder and where in the run each of them goes."""
    # Listed before the first is logged: one that vanishes meanwhile is an error, not left out.
    folder = run.folder / event.get("inside", "")
    found = {
        path: Path(event["path"]) / inner
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not (inner := path.relative_to(folder)).parts[0].startswith(".")
        and path.name not in (paths.MODEL_FILE, paths.EVENTS_FILE)
    }
    if not found:
        raise UserError(f"{folder} holds none of its files any more")
    return found


def file_sizes(
    listed: Callable[[str | None], Iterable[FileInfo]], folder: str | None = None
) -> dict[str, int | None]:
    """The sizes in bytes of the files in a folder of MLflow and in those below, by their paths."""
    sizes: dict[str, int | None] = {}
    for entry in listed(folder):
        sizes |= file_sizes(listed, entry.path) if entry.is_dir else {entry.path: entry.file_size}
    return sizes


def tables(run: MlflowRun, event: Event) -> None:
    """Let MLflow's pages know which artifacts are tables, as mlflow.log_table does."""
    known = json.loads(run.client.get_run(run.run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
    listed = run.client.list_artifacts(run.run_id, event["path"])
    found = [{"path": entry.path, "type": "table"} for entry in listed]
    new = [entry for entry in found if entry not in known]
    run.client.set_tag(run.run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps(known + new))


def inputs(run: MlflowRun, event: Event) -> None:
    """Link the models of the runs that were compared."""
    compared = {run.model_id(run_id) for run_id in run.present(event["runs"]).values()}
    found = run.client.get_run(run.run_id)
    known = {model.model_id for model in (found.inputs.model_inputs if found.inputs else [])}
    models = [LoggedModelInput(model_id) for model_id in sorted(compared - known)]
    run.client.log_inputs(run.run_id, models=models)


def note(run: MlflowRun, event: Event) -> None:
    """Describe the run, and the experiment with it, with links to other runs."""
    text = run.linked(event["text"])
    run.client.set_tag(run.run_id, MLFLOW_RUN_NOTE, text)
    run.client.set_experiment_tag(run.experiment_id, MLFLOW_RUN_NOTE, text)


def end(run: MlflowRun, event: Event) -> None:
    """Close the run."""
    run.client.set_terminated(run.run_id, event["status"], event["time"])
    tags = run.client.get_run(run.run_id).data.tags
    for key in map(mlflow_tags.stored, mlflow_tags.PROCESS):
        if key in tags:
            run.client.delete_tag(run.run_id, key)


def finished_run(experiment: str, training_key: str) -> tuple[str, str] | None:
    """The id and the key of a finished run of this very training, if there is one.

    Args:
        experiment: its name.
        training_key: see provenance.training_key.

    Raises:
        UnreachableError: the store can't be reached.
    """
    tag = mlflow_tags.stored(TRAINING_KEY)
    query = f"attributes.status = 'FINISHED' and tags.`{tag}` = '{training_key}'"
    run = _first(experiment, query)
    return (run.info.run_id, run.data.tags[RUN_KEY]) if run else None


def key_of_sweep(experiment: str, sweep_key: str) -> str | None:
    """The key of the parent run of a sweep that was begun before, if there is one.

    Args:
        experiment: its name.
        sweep_key: the tag that attempts of one sweep share.

    Raises:
        UnreachableError: the store can't be reached.
    """
    run = _first(experiment, f"tags.`{mlflow_tags.stored(SWEEP_KEY)}` = '{sweep_key}'")
    return run.data.tags[RUN_KEY] if run else None


def _first(experiment: str, query: str) -> Run | None:
    """The newest run that a query finds and nobody has deleted."""
    experiment_id = mlflow_store.connect(experiment)
    try:
        found = mlflow.MlflowClient().search_runs([experiment_id], query, max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        cause = mlflow_store.cause_of(error)
        raise mlflow_store.UnreachableError(f"the tracking store can't be used: {cause}") from error
    return found[0] if found else None
