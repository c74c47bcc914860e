"""All that the project tells MLflow: runs, their metrics and artifacts, and the model registry.

What is told are the `records` that runs have on disk; to tell one again changes nothing.
"""

import contextlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from image_classification import paths, provenance, records, store  # store first: it sets MLflow up

# isort: split
import mlflow
import numpy as np
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from sqlalchemy.exc import SQLAlchemyError

from image_classification.config import Config
from image_classification.errors import UserError
from image_classification.records import Record

REQUIREMENTS = ("tensorflow", "keras", "numpy")  # of a logged model
METRICS_AT_ONCE = 1000  # the most that MLflow takes
RUN_KEY = "run.key"  # the tag that holds a run's name on disk


class Delivery:
    """Tells MLflow the records of one folder, in order."""

    _client: mlflow.MlflowClient  # from the record of the run on

    def __init__(self, folder: Path) -> None:
        """The files that records name are in `folder`."""
        self.model: Any = None  # if it is in memory already; else it is loaded when it is needed
        self.is_deleted = False  # the run, by somebody who looked at it and meant it
        self._folder = folder
        self._experiment_id = ""
        self._run_id = ""

    def tell(self, told: Sequence[Record]) -> None:
        """Tell records; the very first must be that of the run.

        Raises:
            Exception: MLflow did not take them, for one of many reasons; it may later.
        """
        for is_metrics, group in groupby(told, key=_is_plain_metrics):
            if is_metrics and not self.is_deleted:
                self._log(list(group))
                continue
            for record in group:
                if not self.is_deleted:
                    getattr(self, f"_{record['type']}")(record)

    def tell_all(self) -> None:
        """Tell all records of the folder, unless MLflow has been told.

        Raises:
            Exception: as `tell`; UserError: the records are damaged.
        """
        first, *others = records.read(self._folder / paths.RECORDS_FILE)
        self.tell([first])
        digest = records.digest(self._folder)
        if not self.is_deleted and digest not in self._told():
            self.tell(others)
            self.mark_told(digest)

    def mark_told(self, digest: str) -> None:
        """Remember in MLflow that all records of a file, of this digest, have arrived."""
        if not self.is_deleted:
            self._client.set_tag(self._run_id, f"records.{digest[:16]}", digest)

    def _told(self) -> set[str]:
        tags = self._client.get_run(self._run_id).data.tags
        return {value for key, value in tags.items() if key.startswith("records.")}

    def _run(self, record: Record) -> None:
        self._experiment_id = store.connect(record["experiment"])
        self._client = mlflow.MlflowClient()
        with store.alone():
            run = self._opened(record) if "start" in record else self._found(record["key"])
        # That of `mlflow run` may be in another experiment.
        self._experiment_id, self._run_id = run.info.experiment_id, run.info.run_id
        self.is_deleted = run.info.lifecycle_stage == "deleted"

    def _opened(self, record: Record) -> Run:
        """The run of a record: the one that is there, or a new one."""
        with contextlib.suppress(UserError):
            return self._found(record["key"])
        tags = {**record["tags"], RUN_KEY: record["key"]}
        if record["parent"]:
            tags[MLFLOW_PARENT_RUN_ID] = self._opened(record["parent"]).info.run_id
        if record["mlflow_run"]:
            with contextlib.suppress(MlflowException):  # it may be in another store than this
                run = self._client.get_run(record["mlflow_run"])
                if run.data.tags.get(RUN_KEY, record["key"]) == record["key"]:
                    self._set_tags(run.info.run_id, tags)
                    self._client.update_run(run.info.run_id, name=record["name"])
                    return run
        return self._client.create_run(
            self._experiment_id, start_time=record["start"], tags=tags, run_name=record["name"]
        )

    def _found(self, key: str) -> Run:
        found = self._client.search_runs(
            [self._experiment_id], f"tags.`{RUN_KEY}` = '{key}'", ViewType.ALL, max_results=1
        )
        if not found:
            raise UserError(f"{mlflow.get_tracking_uri()} does not hold the run {key}")
        return found[0]

    def _resume(self, record: Record) -> None:
        self._set_tags(self._run_id, record["tags"])
        self._client.update_run(self._run_id, status="RUNNING")

    def _params(self, record: Record) -> None:
        # `mlflow run` has logged some already, and a parameter can't be changed.
        known = self._client.get_run(self._run_id).data.params
        # It refuses names with other characters than these.
        named = {re.sub(r"[^\w\-. :/]", "_", key): value for key, value in record["values"].items()}
        new = [Param(key, str(value)) for key, value in named.items() if key not in known]
        self._client.log_batch(self._run_id, params=new)

    def _tags(self, record: Record) -> None:
        self._set_tags(self._run_id, record["values"])

    def _set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def _data(self, record: Record) -> None:
        """Name the data, its folder and DVC's hash of it as an input of the run."""
        profile = {"examples": record["examples"], "image_shape": record["shape"]}
        data = Dataset(
            name=record["name"],
            digest=record["hash"],
            source_type="local",
            source=json.dumps({"uri": record["source"]}),
            profile=json.dumps(profile),
        )
        inputs = [DatasetInput(data, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])]
        with store.alone():  # MLflow fails where two make the same data set known at once
            self._client.log_inputs(self._run_id, inputs)

    def _metrics(self, record: Record) -> None:
        """Log an evaluation, which may have been repeated with the same result."""
        known = self._client.get_run(self._run_id).data.metrics
        values = {key: value for key, value in record["values"].items() if known.get(key) != value}
        self._log([{**record, "values": values}], self._model_id(self._run_id))

    def _log(self, told: list[Record], model: str | None = None) -> None:
        entries = [
            Metric(key, value, record["time"], record["step"], model_id=model, run_id=self._run_id)
            for record in told
            for key, value in record["values"].items()
        ]
        for start in range(0, len(entries), METRICS_AT_ONCE):
            # Which passes over what it has already.
            self._client.log_batch(self._run_id, entries[start : start + METRICS_AT_ONCE])

    def _artifacts(self, record: Record) -> None:
        """Log the files of the folder, apart from the model, which is logged as one."""
        for path in sorted(self._folder.rglob("*")):
            if path.is_file() and path.name not in (paths.MODEL_FILE, paths.RECORDS_FILE):
                parent = path.parent.relative_to(self._folder)
                place = Path(record["path"]) / parent
                where = None if place == Path() else str(place)
                self._client.log_artifact(self._run_id, str(path), where)

    def _model(self, record: Record) -> None:
        for known in self._models(self._run_id):
            if known.status == LoggedModelStatus.READY:
                return
            self._client.delete_logged_model(known.model_id)  # cut short by an outage
        if self.model is None:
            from image_classification import models  # TensorFlow takes seconds to import

            self.model = models.load(self._folder / paths.MODEL_FILE, record["sha256"])
        examples = np.load(self._folder / paths.EXAMPLES_FILE, allow_pickle=False)
        signature = ModelSignature(
            Schema([TensorSpec(np.dtype("uint8"), (-1, *record["image_shape"]))]),
            Schema([TensorSpec(np.dtype("float32"), (-1, record["classes"]))]),
        )
        run = self._client.get_run(self._run_id).data
        logged = self._client.create_logged_model(
            self._experiment_id,
            record["name"],
            source_run_id=self._run_id,
            params=run.params,
            tags={key: value for key, value in run.tags.items() if key in store.context_tags()},
        )
        with contextlib.redirect_stdout(io.StringIO()):  # Keras' progress bar for the examples
            Model.log(
                artifact_path=None,
                flavor=mlflow.tensorflow,
                model=self.model,
                model_id=logged.model_id,
                run_id=self._run_id,
                signature=signature,
                input_example=examples,
                # Given, since MLflow would load the model in another process to find them out.
                pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            )

    def _models(self, run_id: str) -> list[Any]:
        of_run = f"source_run_id = '{run_id}'"
        return list(self._client.search_logged_models([self._experiment_id], of_run))

    def _model_id(self, run_id: str) -> str:
        for model in self._models(run_id):
            if model.status == LoggedModelStatus.READY:
                return str(model.model_id)
        raise UserError(f"run {run_id} in {mlflow.get_tracking_uri()} holds no model")

    def _present(self, keys: Iterable[str]) -> dict[str, str]:
        """The ids of those of the runs that nobody has deleted."""
        runs = {key: self._found(key) for key in keys}
        return {
            key: run.info.run_id
            for key, run in runs.items()
            if run.info.lifecycle_stage != "deleted"
        }

    def _inputs(self, record: Record) -> None:
        compared = {self._model_id(run_id) for run_id in self._present(record["runs"]).values()}
        run = self._client.get_run(self._run_id)
        known = {model.model_id for model in (run.inputs.model_inputs if run.inputs else [])}
        models = [LoggedModelInput(model_id) for model_id in sorted(compared - known)]
        self._client.log_inputs(self._run_id, models=models)

    def _versions(self, record: Record) -> None:
        """Have the model of each run stand in the registry, once, with its card."""
        name = record["name"]
        with store.alone():
            if not self._client.search_registered_models(f"name = '{name}'"):
                self._client.create_registered_model(name)
            self._client.update_registered_model(name, record["description"])
            known = self._known_versions(name)
            for key, run_id in self._present(record["cards"]).items():
                card = record["cards"][key]
                if run_id not in known:
                    model = self._model_id(run_id)
                    added = self._client.create_model_version(
                        name, f"models:/{model}", run_id=run_id, model_id=model
                    )
                    known[run_id] = str(added.version)
                self._client.update_model_version(name, known[run_id], card)
                self._client.set_tag(run_id, MLFLOW_RUN_NOTE, card)

    def _known_versions(self, name: str) -> dict[str, str]:
        found = self._client.search_model_versions(f"name = '{name}'", max_results=10_000)
        return {str(entry.run_id): str(entry.version) for entry in found}

    def _aliases(self, record: Record) -> None:
        with store.alone():
            known = self._known_versions(record["name"])
            run_ids = self._present(record["values"].values())
            for alias, key in record["values"].items():
                number = known.get(run_ids.get(key, ""))
                if number:  # else somebody has deleted the run or the version
                    self._client.set_registered_model_alias(record["name"], alias, number)

    def _note(self, record: Record) -> None:
        """Describe the run, and with it the experiment: runs and experiments name it alike."""
        text = record["text"]
        note = re.sub(r"\(run:([0-9a-f]{32})", lambda found: self._address(found[1]), text)
        self._client.set_tag(self._run_id, MLFLOW_RUN_NOTE, note)
        self._client.set_experiment_tag(self._experiment_id, MLFLOW_RUN_NOTE, note)

    def _address(self, key: str) -> str:
        return f"(#/experiments/{self._experiment_id}/runs/{self._found(key).info.run_id}"

    def _end(self, record: Record) -> None:
        self._client.set_terminated(self._run_id, record["status"], record["time"])
        tags = self._client.get_run(self._run_id).data.tags
        for key in store.PROCESS_TAGS:
            if key in tags:
                self._client.delete_tag(self._run_id, key)


def finished_training(config: Config, data_hash: str) -> str | None:
    """The id of a run that has done this very training, if there is one.

    Raises:
        UserError: the store can't be reached.
    """
    experiment_id = store.connect(config.data.name)
    key = provenance.training_key(config, data_hash)
    try:
        found = mlflow.MlflowClient().search_runs(
            [experiment_id],
            f"attributes.status = 'FINISHED' and tags.`{provenance.TRAINING_KEY}` = '{key}'",
            max_results=1,
        )
    except (MlflowException, SQLAlchemyError) as error:
        raise store.UnreachableError(f"the tracking store can't be used: {error}") from error
    return str(found[0].info.run_id) if found else None


def _is_plain_metrics(record: Record) -> bool:
    return record["type"] == "metrics" and not record["of_model"]


def system_monitors() -> list[Any]:
    """MLflow's monitors of this machine; to be handed to `sample`."""
    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(Exception):  # of several types where there is no such accelerator
        monitors.append(GPUMonitor())
    return monitors


def sample(monitors: Iterable[Any]) -> dict[str, float]:
    """What the monitors see now, under the names that MLflow's pages know as system metrics."""
    values = {}
    for monitor in monitors:
        monitor.collect_metrics()
        values.update(monitor.aggregate_metrics())
        monitor.clear_metrics()
    return {f"system/{name}": float(value) for name, value in values.items()}
