"""The names of a run's tags in MLflow; those that only this project reads are hidden."""

from collections.abc import Mapping

from image_classification.tracking.provenance import DATA_HASH, TRAINING_KEY

PREFIX = "mlflow.image_classification."  # MLflow's pages show no tag that begins with `mlflow.`
RUN_KEY = f"{PREFIX}run.key"  # a run's key, the same in every store
MODEL_FILES = f"{PREFIX}model.files"  # paths and sizes of the files of a run's model
UPLOADED = f"{PREFIX}events."  # prefix of the tag that holds the digest of an event log

SWEEP_KEY = "sweep.key"  # the tag that attempts of one sweep share
PROCESS = ("process.host", "process.id", "process.started")  # of a run in progress
HIDDEN = (DATA_HASH, TRAINING_KEY, SWEEP_KEY, *PROCESS)  # of the tags in event logs


def stored(name: str) -> str:
    """The name in MLflow of a tag in an event log."""
    return PREFIX + name if name in HIDDEN else name


def all_stored(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of an event log under their names in MLflow."""
    return {stored(name): value for name, value in tags.items()}
