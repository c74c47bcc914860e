"""Every path of the project, relative to its root, which every command makes its working folder."""

import os
from pathlib import Path

from image_classification.errors import UserError

CONF = Path("conf")
PARAMS = Path("params.yaml")

RAW = Path("data/raw")
SPLIT = Path("data/split")
MODELS = Path("models")
EVALUATIONS = Path("evaluations")
REPORTS = Path("reports")


# What the stages leave in a training's folder of MODELS and of EVALUATIONS.
MODEL_FILE = "model.keras"
HISTORY_FILE = "history.csv"
LAYERS_FILE = "layers.csv"
TRAINING_FILE = "training.json"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.json"
PER_CLASS_FILE = "per_class.csv"
PREDICTIONS_FILE = "predictions.csv"
ROBUSTNESS_FILE = "robustness.csv"
COSTS_FILE = "costs.json"


def training_name(model: str, seed: int) -> str:
    """The name of a training: of its run, and of its folders."""
    return f"{model}-{seed}"


def project_root() -> Path:
    """The project that the working folder lies in, the nearest one, so that a copy is its own.

    Raises:
        UserError: the working folder lies in no project.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PARAMS).is_file() and (folder / CONF / "config.yaml").is_file():
            return folder
    raise UserError(f"{here} lies in no project: go to the folder that holds {PARAMS}")


def home() -> Path:
    """The project's own checkout, also from within the copies that `dvc exp run --temp` makes."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def is_copy() -> bool:
    """Whether this is a copy of the project that DVC throws away after the experiment."""
    return home() != Path.cwd()
