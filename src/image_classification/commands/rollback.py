"""Command `image-classification rollback`: make an earlier champion champion again."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from image_classification.core import paths
from image_classification.core.command import one_line_errors
from image_classification.core.compose import compose
from image_classification.core.errors import UserError
from image_classification.promotion import decision_text, records, registry_state, rollbacks
from image_classification.tracking import mlflow_promotions


def main(arguments: Sequence[str]) -> NoReturn:
    """Run the command."""
    with one_line_errors():
        options = parser().parse_args(arguments)
        os.chdir(paths.project_root())
        sys.exit(rollback(compose().data.dataset, options.to, options.reason))


def rollback(name: str, number: int | None, reason: str | None) -> int:
    """Make an earlier champion champion again, bypassing the gate, and update MLflow.

    Args:
        name: of the registered model.
        number: of the record that made it champion, as `history` counts; None for the one before.
        reason: a person's; None without one.

    Returns:
        The exit code, as of outbox.upload.

    Raises:
        UserError: there is no such champion.
    """
    if paths.is_copy():
        raise UserError("this is an experiment's copy of the project: roll back in the original")
    print(decision_text.sentence(rollbacks.roll_back(name, number, records.one_line(reason))))
    state = registry_state.of_records(records.read(name))
    return mlflow_promotions.update_registry(name, state.champion, state.tags, state.texts)


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser("image-classification rollback", description=__doc__)
    made.add_argument("--to", type=int, metavar="N", help="decision in `history` (the one before)")
    made.add_argument("--reason", help="why, for the record")
    return made
