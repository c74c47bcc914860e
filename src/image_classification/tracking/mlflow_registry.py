"""MLflow's model registry: a version for each run's model, and the aliases that name the best."""

from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from image_classification.core.config import METRICS
from image_classification.tracking.event_log import Event
from image_classification.tracking.mlflow_run import MlflowRun
from image_classification.tracking.mlflow_store import store_lock

TAGS = ("model", "seed", "recipe")  # of a run, that its version gets as well
# Of a run, that its version gets as tags: those that `compare.metric` can name.
SCORES = tuple(f"{part}_{metric}" for part in ("test", "validation") for metric in METRICS)
MOST_VERSIONS = 10_000  # that are looked through
LONGEST_DESCRIPTION = 5000  # characters of a version's, which PostgreSQL enforces


def register_versions(run: MlflowRun, event: Event) -> None:
    """Register the model of each run, once, and describe the version and the run by its card."""
    name = event["name"]
    with store_lock():
        if not run.client.search_registered_models(f"name = '{name}'"):
            run.client.create_registered_model(name)
        run.client.update_registered_model(name, event["description"])
        known = _known_versions(run, name)
        for key, run_id in run.present(event["cards"]).items():
            card = run.linked(event["cards"][key])
            if run_id not in known:
                model = run.model_id(run_id)
                added = run.client.create_model_version(
                    name, f"models:/{model}", run_id=run_id, model_id=model
                )
                known[run_id] = str(added.version)
            run.client.update_model_version(name, known[run_id], card[:LONGEST_DESCRIPTION])
            run.client.set_tag(run_id, MLFLOW_RUN_NOTE, card)
            for tag, value in _version_tags(run.client.get_run(run_id)).items():
                run.client.set_model_version_tag(name, known[run_id], tag, value)


def set_aliases(run: MlflowRun, event: Event) -> None:
    """Point aliases at the versions of runs; those that somebody has deleted are left out."""
    with store_lock():
        known = _known_versions(run, event["name"])
        run_ids = run.present(event["values"].values())
        for alias, key in event["values"].items():
            number = known.get(run_ids.get(key, ""))
            if number:
                run.client.set_registered_model_alias(event["name"], alias, number)


def _version_tags(run: Run) -> dict[str, str]:
    """What the registry's table of versions shows of the run that made one."""
    tags = {key: run.data.tags[key] for key in TAGS if key in run.data.tags}
    scores = {key: f"{run.data.metrics[key]:.4f}" for key in SCORES if key in run.data.metrics}
    return tags | scores


def _known_versions(run: MlflowRun, name: str) -> dict[str, str]:
    """The numbers of the versions, by the ids of their runs."""
    found = run.client.search_model_versions(f"name = '{name}'", max_results=MOST_VERSIONS)
    return {str(entry.run_id): str(entry.version) for entry in found}
