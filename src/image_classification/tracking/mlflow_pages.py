"""The addresses of MLflow's pages: of runs, of the view of all runs, and of their comparison."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import mlflow
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from image_classification.core.errors import without_login
from image_classification.tracking import mlflow_store, mlflow_view
from image_classification.tracking.mlflow_tags import RUN_KEY

SERVED = "http://127.0.0.1:5000"  # where `make ui` serves the pages of the local store
COMPARED = re.compile(r"\(compare:([0-9a-f,]+)\)")
WORKFLOW = "workflowType=machine_learning"  # else MLflow opens the pages of language models


@dataclass(frozen=True)
class Pages:
    """The pages of one experiment.

    base: what the addresses begin with; empty for links from MLflow's own pages.
    experiment_id, run_ids: MLflow's, the latter by the keys of the runs.
    """

    experiment_id: str
    run_ids: Mapping[str, str] = field(default_factory=dict)
    base: str = ""

    def runs(self) -> str:
        """All runs, in the saved view."""
        view = f"viewStateShareKey={mlflow_view.NAME}"
        return f"{self.base}#/experiments/{self.experiment_id}/runs?{WORKFLOW}&{view}"

    def run(self, key: str) -> str:
        """One run."""
        return f"{self.base}#/experiments/{self.experiment_id}/runs/{self.run_ids[key]}"

    def comparison(self, keys: Iterable[str]) -> str:
        """Several runs side by side; those that are not there are left out."""
        ids = [self.run_ids[key] for key in keys if key in self.run_ids]
        experiments = _quoted([self.experiment_id])
        return f"{self.base}#/compare-runs?runs={_quoted(ids)}&experiments={experiments}&{WORKFLOW}"

    def models(self, name: str) -> str:
        """The versions of a registered model."""
        return f"{self.base}#/models/{quote(name)}?{WORKFLOW}"

    def linked(self, text: str) -> str:
        """A text whose links `(run:KEY…)`, `(runs:)` and `(compare:KEY,KEY…)` have addresses."""
        text = re.sub(r"\(run:([0-9a-f]{32})", lambda found: f"({self.run(found[1])}", text)
        text = text.replace("(runs:)", f"({self.runs()})")
        return COMPARED.sub(lambda found: f"({self.comparison(found[1].split(','))})", text)


def keys_in(text: str) -> set[str]:
    """The keys of the runs that a text links to."""
    return set(re.findall(r"(?<=[:,])[0-9a-f]{32}\b", text))


def compared_in(text: str) -> list[str]:
    """The keys of the runs that a text's links show side by side, in order."""
    return [key for keys in COMPARED.findall(text) for key in keys.split(",")]


def find(experiment: str, keys: Iterable[str], base: str | None = None) -> Pages:
    """The pages of an experiment and of those of the runs that MLflow holds.

    Args:
        experiment: its name.
        keys: of the runs.
        base: the address of MLflow's pages; None for that of the tracking server, or of `make ui`.

    Raises:
        UnreachableError: the store can't be used.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    base = base or (without_login(uri) if uri.startswith("http") else SERVED)
    experiment_id = mlflow_store.connect(experiment)
    client, run_ids = mlflow.MlflowClient(), {}
    try:
        for key in keys:
            run = find_run(client, experiment_id, key)
            if run and run.info.lifecycle_stage != "deleted":
                run_ids[key] = run.info.run_id
    except (MlflowException, SQLAlchemyError) as error:
        cause = mlflow_store.cause_of(error)
        raise mlflow_store.UnreachableError(f"the tracking store can't be used: {cause}") from error
    return Pages(experiment_id, run_ids, f"{base.rstrip('/')}/")


def find_run(client: mlflow.MlflowClient, experiment_id: str, key: str) -> Run | None:
    """The run with this key, deleted or not, if the experiment holds one."""
    found = client.search_runs(
        [experiment_id], f"tags.`{RUN_KEY}` = '{key}'", ViewType.ALL, max_results=1
    )
    return found[0] if found else None


def _quoted(values: list[str]) -> str:
    return quote(json.dumps(values, separators=(",", ":")))
