"""Command `image-classification promote`: ask the gate whether a run becomes champion."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from image_classification.core import paths, readers
from image_classification.core.command import one_line_errors
from image_classification.core.compose import compose
from image_classification.core.config import Config
from image_classification.core.errors import UserError
from image_classification.core.tensorflow_log import leave_out_advice_on_tracing, quiet_start
from image_classification.promotion import (
    candidates,
    decision_text,
    decisions,
    records,
    registry_state,
)
from image_classification.promotion.candidates import Candidate
from image_classification.promotion.decisions import REPEATED, Outcome, PromotionRequest
from image_classification.promotion.evidence import EvaluatedRun, ValidationSet
from image_classification.promotion.records import JudgedRun
from image_classification.tracking import mlflow_promotions

EXIT_REFUSED = 3  # the gate refused it


def main(arguments: Sequence[str]) -> NoReturn:
    """Run the command."""
    with one_line_errors():
        options = parser().parse_intermixed_args(arguments)
        os.chdir(paths.project_root())
        settings = [word for word in options.words if "=" in word]
        named = [word for word in options.words if "=" not in word]
        if len(named) > 1:
            raise UserError(f"{' '.join(named)}: one model or version at a time")
        config = compose(*settings)
        sys.exit(promote(config, named[0] if named else None, options.reason, options.dry_run))


def promote(config: Config, named: str | None, reason: str | None, dry_run: bool) -> int:
    """Decide whether a run of the last comparison becomes champion, and update MLflow.

    Args:
        config: of the project.
        named: the version, the model, the run or its key; None for the best by validation.
        reason: a person's, to promote what is no worse; None without one.
        dry_run: decide only; record nothing, and leave MLflow as it is.

    Returns:
        The exit code: 0; EXIT_REFUSED; or that of outbox.upload, if MLflow could not be updated.

    Raises:
        UserError: there is no such run, or a file is missing or damaged.
    """
    if paths.is_copy():
        raise UserError("this is an experiment's copy of the project: promote in the original")
    name = config.data.dataset
    compared = candidates.read()
    candidate = _find(name, compared, named)
    version = mlflow_promotions.versions(name, [candidate.key]).get(candidate.key)
    reason = records.one_line(reason)
    request = PromotionRequest(candidate, version, len(compared), reason, "promote")

    def measure(judged: JudgedRun, validation_set: ValidationSet) -> EvaluatedRun:
        return _measure(name, judged, validation_set)

    outcome = decisions.decide(request, config, measure, dry_run)
    print(f"{'dry run: ' if dry_run else ''}{decision_text.outcome(outcome, candidate.run)}")
    code = 0 if dry_run else _update_registry(name)
    return EXIT_REFUSED if _is_refused(outcome) else code


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser("image-classification promote", description=__doc__)
    made.add_argument(
        "words",
        nargs="*",
        metavar="MODEL|VERSION|SETTING=VALUE",
        help="a run of the last comparison (default: best by validation); promotion settings",
    )
    made.add_argument("--reason", help="why a model that is no worse should become champion")
    made.add_argument("--dry-run", action="store_true", help="decide, and change nothing")
    return made


def _find(name: str, compared: list[Candidate], named: str | None) -> Candidate:
    if named is None:
        return compared[0]
    if not named.isdecimal():
        return candidates.find(compared, named)
    key = mlflow_promotions.key_of(name, int(named))
    if key not in {candidate.key for candidate in compared}:
        raise UserError(
            f"version {named} is not among the runs compared last: `image-classification rollback` "
            "makes an earlier champion champion again"
        )
    return candidates.find(compared, key)


def _measure(name: str, judged: JudgedRun, validation_set: ValidationSet) -> EvaluatedRun:
    """A champion on examples that it was not judged on before."""
    print(f"measuring {judged.run} on the current validation examples")
    leave_out_advice_on_tracing()
    with quiet_start():  # TensorFlow takes seconds to import, and this alone needs it
        from image_classification.promotion import measuring

    with tempfile.TemporaryDirectory() as scratch:
        path = _trained_here(judged) or mlflow_promotions.download(name, judged.key, Path(scratch))
        return measuring.measure(judged, path, validation_set)


def _trained_here(judged: JudgedRun) -> Path | None:
    """The file of its model, if its folder still holds this very run."""
    folder = paths.RUNS / judged.run
    try:
        training = readers.read_training(folder / paths.TRAINING_FILE, "")
    except UserError:
        return None
    return folder / paths.MODEL_FILE if training["run"] == judged.key else None


def _update_registry(name: str) -> int:
    state = registry_state.of_records(records.read(name))
    return mlflow_promotions.update_registry(name, state.champion, state.tags, state.texts)


def _is_refused(outcome: Outcome) -> bool:
    return outcome.decision in (records.REFUSED, REPEATED)
