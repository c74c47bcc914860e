"""The origin of a run that only MLflow still has."""

from dataclasses import dataclass

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from image_classification.core.errors import UserError
from image_classification.tracking import mlflow_pages, mlflow_store
from image_classification.tracking.mlflow_tags import stored
from image_classification.tracking.provenance import DATA_HASH


@dataclass(frozen=True)
class RunOrigin:
    """A run's model and seed, and DVC's hash of the split that it was trained on."""

    model: str
    seed: int
    data_hash: str


def origin(experiment: str, key: str) -> RunOrigin:
    """The origin of a run.

    Raises:
        UserError: MLflow does not have it, or can't be reached.
    """
    experiment_id = mlflow_store.connect(experiment)
    try:
        run = mlflow_pages.find_run(mlflow.MlflowClient(), experiment_id, key)
    except (MlflowException, SQLAlchemyError) as error:
        cause = mlflow_store.cause_of(error)
        raise mlflow_store.UnreachableError(f"the tracking store can't be used: {cause}") from error
    if run is None:
        raise UserError(
            f"{mlflow_store.display_uri()} has no run {key} of {experiment}, nor has runs/: if it "
            "was champion, `image-classification promote --reason ...` makes another one"
        )
    tags = run.data.tags
    return RunOrigin(tags["model"], int(tags["seed"]), tags[stored(DATA_HASH)])
