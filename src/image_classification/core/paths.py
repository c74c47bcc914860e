"""Every path of the project, relative to its root, which every command makes its working folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from image_classification.core.errors import UserError

CONF = Path("conf")
PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
SOURCE = Path("src/image_classification")
SETTINGS_PAGE = Path("docs/settings.md")

RAW = Path("data/raw")
SPLIT = Path("data/split")
RUNS = Path("runs")
EVALUATIONS = Path("evaluations")
REPORTS = Path("reports")
EXPORTED = Path("exported")  # the artifacts that are served, one folder for each key of a run
PROMOTIONS = Path("promotions")  # the records of decisions, which Git keeps

# In the main checkout (`home`), also for the copies that experiments run in.
CHECKPOINTS = Path("checkpoints")
OUTBOX = Path("outbox")
WEIGHTS = Path("weights")  # pretrained, fetched once
SEARCHES = Path("search")  # the studies of searches, and the locks of their trials

# What is recorded in use; see the room `monitoring`.
FEEDBACK = Path("feedback")
OBSERVATIONS = Path("observations")

LEADERBOARD = REPORTS / "leaderboard.json"

# What the stages write to a run's folder in RUNS and in EVALUATIONS.
MODEL_FILE = "model.keras"
HISTORY_FILE = "history.csv"
LAYERS_FILE = "layers.csv"
TRAINING_FILE = "training.json"
EXAMPLES_FILE = "input_examples.npy"
EVENTS_FILE = "events.jsonl"
CONFIG_FILE = "config.yaml"
ERROR_FILE = "error.txt"  # of a job of a sweep that has failed
METRICS_FILE = "metrics.json"
PER_CLASS_FILE = "per_class.csv"
PREDICTIONS = "predictions"  # a folder: of test and validation images, and of those without labels
TEST_FILE = f"{PREDICTIONS}/test.csv"
VALIDATION_FILE = f"{PREDICTIONS}/validation.csv"
UNLABELLED_FILE = f"{PREDICTIONS}/unlabelled.csv"
SUBMISSION_FILE = f"{PREDICTIONS}/submission.csv"
ROBUSTNESS_FILE = "robustness.csv"
COSTS_FILE = "costs.json"
SEARCH_PICTURES = "search"  # a folder, in that of a sweep
TABLES = "tables"  # a folder of those that MLflow's pages compare run by run


def run_name(model: str, seed: int) -> str:
    """The name of a run, and of its folders."""
    return f"{model}-{seed}"


def stage_folders(models: Iterable[str], seeds: Iterable[int]) -> list[Path]:
    """The folders of the pipeline that hold an event log, each after those that it refers to."""
    names = [run_name(model, seed) for model in models for seed in seeds]
    return [*(RUNS / name for name in names), *(EVALUATIONS / name for name in names), REPORTS]


def logged_folders() -> list[Path]:
    """All folders of outputs that hold an event log, each after those that it refers to."""
    by_hand = ("multirun/*", "multirun/*/*", "outputs/*")
    patterns = [f"{RUNS}/*", *by_hand, f"{EVALUATIONS}/*", str(REPORTS), f"{EXPORTED}/*"]
    return [
        path.parent
        for pattern in patterns
        for path in sorted(Path().glob(f"{pattern}/{EVENTS_FILE}"))
    ]


def project_root() -> Path:
    """The project that holds the working folder; of nested ones the innermost, such as a copy.

    Raises:
        UserError: the working folder lies in no project.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PARAMS).is_file() and (folder / CONF / "config.yaml").is_file():
            return folder
    raise UserError(f"{here} is not in a project: change to the folder that holds {PARAMS}")


def home() -> Path:
    """The main checkout, also from within the copies that `dvc exp run --temp` makes."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def is_copy() -> bool:
    """Whether this is a copy of the project that DVC throws away after the experiment."""
    return home() != Path.cwd()


def is_dvc_stage() -> bool:
    """Whether DVC runs this process as a stage of the pipeline."""
    return "DVC_STAGE" in os.environ
