"""MLflow's model registry: a version for each run's model, and the aliases that name the best."""

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from image_classification.tracking.event_log import Event
from image_classification.tracking.mlflow_run import MlflowRun
from image_classification.tracking.mlflow_store import store_lock

MOST_VERSIONS = 10_000  # that are looked through


def register_versions(run: MlflowRun, event: Event) -> None:
    """Register the model of each run, once, and describe the version and the run by its card."""
    name = event["name"]
    with store_lock():
        if not run.client.search_registered_models(f"name = '{name}'"):
            run.client.create_registered_model(name)
        run.client.update_registered_model(name, event["description"])
        known = _known_versions(run, name)
        for key, run_id in run.present(event["cards"]).items():
            card = event["cards"][key]
            if run_id not in known:
                model = run.model_id(run_id)
                added = run.client.create_model_version(
                    name, f"models:/{model}", run_id=run_id, model_id=model
                )
                known[run_id] = str(added.version)
            run.client.update_model_version(name, known[run_id], card)
            run.client.set_tag(run_id, MLFLOW_RUN_NOTE, card)


def set_aliases(run: MlflowRun, event: Event) -> None:
    """Point aliases at the versions of runs; those that somebody has deleted are left out."""
    with store_lock():
        known = _known_versions(run, event["name"])
        run_ids = run.present(event["values"].values())
        for alias, key in event["values"].items():
            number = known.get(run_ids.get(key, ""))
            if number:
                run.client.set_registered_model_alias(event["name"], alias, number)


def _known_versions(run: MlflowRun, name: str) -> dict[str, str]:
    """The numbers of the versions, by the ids of their runs."""
    found = run.client.search_model_versions(f"name = '{name}'", max_results=MOST_VERSIONS)
    return {str(entry.run_id): str(entry.version) for entry in found}
