"""Promotions in MLflow's registry: the alias `champion`, and the decisions about each version."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.tracking import mlflow_pages, mlflow_store
from image_classification.tracking.mlflow_registry import LONGEST_DESCRIPTION, MOST_VERSIONS
from image_classification.tracking.mlflow_store import OUTAGES, UnreachableError
from image_classification.tracking.mlflow_tags import RUN_KEY
from image_classification.tracking.outbox import NOT_UPLOADED

ALIAS = "champion"
HEADING = "\n\n## Promotion\n\n"  # heads the last section of a version's description
EARLIER = "- earlier decisions: `image-classification history`"  # that do not fit into it


def update_registry(
    name: str,
    champion: str | None,
    tags: Mapping[str, Mapping[str, str]],
    texts: Mapping[str, str],
) -> int:
    """Make MLflow's registry show what the records of decisions say; repeating it changes nothing.

    Versions that do not exist, or no longer, are skipped.

    Args:
        name: of the registered model, and of the experiment.
        champion: the key of its run; None if there is none.
        tags: of the version of each run, by key; the same names each time, since a team's server
            may let only a version's creator delete one.
        texts: Markdown, the end of the description of each version, by the run's key: a line for
            each decision, the last one last.

    Returns:
        The exit code, as of outbox.upload.
    """
    try:
        found = _by_key(name, {*tags, *texts, *filter(None, [champion])})
        with mlflow_store.store_lock():
            if champion in found:  # first: it decides what users get
                _point(name, str(found[champion].version))
            elif champion:
                said = f"has no version of the champion's run {champion}"
                print(f"MLflow {said}: its alias stays where it is", file=sys.stderr)
            for key, version in found.items():
                _describe(version, tags.get(key, {}), texts.get(key, ""))
    except OUTAGES as error:
        print(
            f"MLflow: {mlflow_store.cause_of(error)}: the decisions in {paths.PROMOTIONS}/ wait "
            "for the next comparison or `image-classification sync` to update it",
            file=sys.stderr,
        )
        return 0 if paths.is_dvc_stage() else NOT_UPLOADED
    return 0


def versions(name: str, keys: Iterable[str]) -> dict[str, int]:
    """The versions of runs by their keys; none while MLflow can't be reached."""
    try:
        return {key: int(version.version) for key, version in _by_key(name, keys).items()}
    except OUTAGES:
        return {}


def key_of(name: str, version: int) -> str:
    """The key of the run that a version is of.

    Raises:
        UserError: there is no such version; UnreachableError: the store can't be used.
    """
    mlflow_store.connect(name)
    client = mlflow.MlflowClient()
    try:
        run_id = client.get_model_version(name, str(version)).run_id
        return str(client.get_run(str(run_id)).data.tags[RUN_KEY])
    except (MlflowException, SQLAlchemyError, KeyError, OverflowError) as error:
        raise UserError(
            f"{version}: {mlflow_store.display_uri()} has no such version of {name} "
            f"({mlflow_store.cause_of(error)})"
        ) from error


def download(name: str, key: str, folder: Path) -> Path:
    """Fetch the model of a run's version; the path of the file, in Keras' format.

    Raises:
        UserError: MLflow does not have it, or can't be reached.
    """
    try:
        version = _by_key(name, [key]).get(key)
        if version is None:
            raise UserError(f"{mlflow_store.display_uri()} has no version of the run {key}")
        source = f"models:/{name}/{version.version}"
        found = mlflow.artifacts.download_artifacts(source, dst_path=str(folder))
        return next(Path(found).rglob(paths.MODEL_FILE))
    except (MlflowException, SQLAlchemyError, OSError, StopIteration) as error:
        raise UserError(
            f"MLflow does not give the model of {key}: {mlflow_store.cause_of(error)}"
        ) from error


def _by_key(name: str, keys: Iterable[str]) -> dict[str, Any]:
    """The versions of those runs that have one, by the runs' keys."""
    experiment_id = mlflow_store.connect(name)
    client = mlflow.MlflowClient()
    try:
        found = client.search_model_versions(f"name = '{name}'", max_results=MOST_VERSIONS)
        by_run = {str(version.run_id): version for version in found}
        runs = {key: mlflow_pages.find_run(client, experiment_id, key) for key in keys}
    except (MlflowException, SQLAlchemyError) as error:
        cause = mlflow_store.cause_of(error)
        raise UnreachableError(f"the tracking store can't be used: {cause}") from error
    return {
        key: by_run[run.info.run_id]
        for key, run in runs.items()
        if run is not None and run.info.run_id in by_run
    }


def _describe(version: Any, tags: Mapping[str, str], text: str) -> None:
    client = mlflow.MlflowClient()
    for tag, value in tags.items():
        if version.tags.get(tag) != value:
            client.set_model_version_tag(version.name, version.version, tag, value)
    description = described((version.description or "").partition(HEADING)[0], text)
    if description != version.description:
        client.update_model_version(version.name, version.version, description)


def described(card: str, decisions: str) -> str:
    """The description of a version: its card, and as many of the last decisions as MLflow takes.

    Args:
        card: Markdown; cut where it leaves no room for the last decision.
        decisions: a line each, the last one last; empty without any.
    """
    if not decisions:
        return card[:LONGEST_DESCRIPTION]
    lines, section = decisions.splitlines(), ""
    for first in range(len(lines)):
        section = HEADING + "\n".join([EARLIER, *lines[first:]] if first else lines)
        if len(card) + len(section) <= LONGEST_DESCRIPTION:
            break
    section = section[:LONGEST_DESCRIPTION]
    return card[: LONGEST_DESCRIPTION - len(section)] + section


def _point(name: str, version: str) -> None:
    client = mlflow.MlflowClient()
    if str(client.get_registered_model(name).aliases.get(ALIAS)) != version:
        client.set_registered_model_alias(name, ALIAS, version)
