"""Command `image-classification drift`: do incoming images still look like validation?

It compares anonymous statistics of the images that the server has seen lately with those of the
validation images under the same model.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from image_classification.core import paths
from image_classification.core.command import is_setting, one_line_errors
from image_classification.core.compose import compose
from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.data.arrays import Split
from image_classification.data.splits import split_for_run
from image_classification.monitoring import drift_report, observations
from image_classification.monitoring.drift_report import Report
from image_classification.monitoring.statistics import Statistics, describe, join
from image_classification.serving import artifact
from image_classification.serving.artifact import Artifact
from image_classification.serving.engine import BATCH, Engine

EXIT_DRIFT = 3  # drift was found
MOST_IMAGES = 10_000  # validation images, evenly spaced


def main(arguments: Sequence[str]) -> NoReturn:
    """Run the command; arguments with `=` are settings. Exit code 0 without drift, 3 with it."""
    settings = [word for word in arguments if is_setting(word)]
    options = parser().parse_args([word for word in arguments if not is_setting(word)])
    with one_line_errors():
        os.chdir(paths.project_root())
        found = drift(compose(*settings).data, options.hours)
        as_json = json.dumps(drift_report.as_json(found), indent=2)
        print(as_json if options.format == "json" else drift_report.as_text(found))
        sys.exit(EXIT_DRIFT if found.drift else 0)


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser("image-classification drift", description=__doc__)
    help_hours = "look at the last HOURS hours only (default: all that is kept, 24)"
    made.add_argument("--hours", type=float, default=observations.HOURS, help=help_hours)
    made.add_argument("--format", choices=("text", "json"), default="text")
    return made


def drift(data: DataConfig, hours: float = observations.HOURS) -> Report:
    """Compare what was observed in the last hours with the validation images.

    Raises:
        UserError: nothing was observed, or the model observed, or its split, is missing.
    """
    window = observations.read(data.dataset, hours)
    served = artifact.read(paths.EXPORTED / window.key)
    split = split_for_run(paths.SPLIT, data, seed=int(served.run.rpartition("-")[2]))
    reference = _of_validation(served, split)
    model, version = served.run, served.version
    return drift_report.report(data.dataset, model, version, window, reference, split.classes)


def _of_validation(served: Artifact, split: Split) -> Statistics:
    """The statistics of the validation images under the model that was observed."""
    images = split.validation.images
    if served.classes != split.classes or images.shape[1:] != served.image_shape:
        raise UserError(
            f"{served.folder} has other classes or images than {split.folder}: "
            "set data.name to what it was trained on, and run `dvc repro split`"
        )
    engine = Engine(served)
    rows = np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).astype(np.intp)
    parts = (images[rows[start : start + BATCH]] for start in range(0, len(rows), BATCH))
    return join([describe(part, engine.predict(part)) for part in parts])
