"""How MLflow's pages show an experiment: the saved view of its runs, best on the test images first.

A saved view is a tag of the experiment, as MLflow's own button *Share* writes it.
"""

import json

NAME = "leaderboard"
METRICS = (
    "test_accuracy",
    "validation_accuracy",
    "test_balanced_accuracy",
    "test_f1_macro",
    "test_loss",
    "fit_seconds",
    "microseconds_batch_1",
    "parameters",
)
PARAMS = ("model.name", "seed", "recipe.name")


def _view() -> str:
    widths = {f"params.`{name}`": _width(name) for name in PARAMS}
    widths |= {f"metrics.`{name}`": _width(name) for name in METRICS}
    return json.dumps(
        {
            "orderByKey": f"metrics.`{METRICS[0]}`",
            "orderByAsc": False,
            "selectedColumns": list(widths),
            "columnOrder": list(widths),
            "columnWidths": widths,
        }
    )


def _width(name: str) -> int:
    """Pixels of a column whose head can be read."""
    return max(90, 9 * len(name) + 24)


EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # of models, not of language models
    "mlflow.experiment.primaryMetric.name": METRICS[0],
    f"mlflow.sharedViewState.{NAME}": _view(),
}
