"""Every path of the project, relative to its root, which every command makes its working folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from image_classification.errors import UserError

CONF = Path("conf")
PARAMS = Path("params.yaml")

RAW = Path("data/raw")
SPLIT = Path("data/split")
MODELS = Path("models")
EVALUATIONS = Path("evaluations")
REPORTS = Path("reports")

# Of the project's own checkout (`home`), also for the copies that experiments run in.
CHECKPOINTS = Path("checkpoints")
OUTBOX = Path("outbox")

# What the stages leave in a training's folder of MODELS and of EVALUATIONS.
MODEL_FILE = "model.keras"
HISTORY_FILE = "history.csv"
LAYERS_FILE = "layers.csv"
TRAINING_FILE = "training.json"
EXAMPLES_FILE = "input_examples.npy"
RECORDS_FILE = "records.jsonl"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.json"
PER_CLASS_FILE = "per_class.csv"
PREDICTIONS_FILE = "predictions.csv"
ROBUSTNESS_FILE = "robustness.csv"
COSTS_FILE = "costs.json"


def training_name(model: str, seed: int) -> str:
    """The name of a training: of its run, and of its folders."""
    return f"{model}-{seed}"


def stage_folders(models: Iterable[str], seeds: Iterable[int]) -> list[Path]:
    """The folders of the pipeline that hold records, trainings before what rests on them."""
    names = [training_name(model, seed) for model in models for seed in seeds]
    return [*(MODELS / name for name in names), *(EVALUATIONS / name for name in names), REPORTS]


def recorded_folders() -> list[Path]:
    """All folders of outputs that hold records, trainings before what rests on them."""
    by_hand = ("multirun/*", "multirun/*/*", "outputs/*")
    patterns = [*by_hand, f"{MODELS}/*", f"{EVALUATIONS}/*", str(REPORTS)]
    return [
        path.parent
        for pattern in patterns
        for path in sorted(Path().glob(f"{pattern}/{RECORDS_FILE}"))
    ]


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
