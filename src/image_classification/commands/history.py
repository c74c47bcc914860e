"""Command `image-classification history`: every decision about the champion."""

import argparse
import os
from collections.abc import Sequence

from image_classification.core import paths
from image_classification.core.command import one_line_errors
from image_classification.core.compose import compose
from image_classification.promotion import decision_text, records


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    settings = parser().parse_args(arguments).settings
    with one_line_errors():
        os.chdir(paths.project_root())
        print(history(compose(*settings).data.dataset))


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser("image-classification history", description=__doc__)
    made.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="such as data.name=…")
    return made


def history(name: str) -> str:
    """A line for each decision, oldest first, the one that made the champion marked by a star.

    Raises:
        UserError: the records are damaged.
    """
    known = records.read(name)
    return decision_text.history(known) if known else f"{records.file_of(name)}: no decision yet"
