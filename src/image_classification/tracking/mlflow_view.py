"""How MLflow's pages show an experiment: the saved view of its runs, best on the test images first.

A saved view is a tag of the experiment, as MLflow's own button *Share* writes it.
"""

import json

NAME = "leaderboard"
METRICS = (
    "test_accuracy",
    "validation_accuracy",
    "test_loss",
    "fit_seconds",
    "microseconds_batch_1",
    "parameters",
)
WIDTH = 140  # of a column, in pixels
PARAMS = ("model.name", "seed", "recipe.name")


def _view() -> str:
    columns = [f"params.`{name}`" for name in PARAMS] + [f"metrics.`{name}`" for name in METRICS]
    return json.dumps(
        {
            "orderByKey": f"metrics.`{METRICS[0]}`",
            "orderByAsc": False,
            "selectedColumns": columns,
            "columnOrder": columns,
            "columnWidths": dict.fromkeys(columns, WIDTH),
        }
    )


EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # of models, not of language models
    "mlflow.experiment.primaryMetric.name": METRICS[0],
    f"mlflow.sharedViewState.{NAME}": _view(),
}
