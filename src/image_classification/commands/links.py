"""Command `image-classification links`: where MLflow's pages show what the pipeline has made."""

import argparse
import os
from collections.abc import Sequence

from image_classification.core import paths
from image_classification.core.command import one_line_errors
from image_classification.core.compose import compose
from image_classification.tracking import event_log, mlflow_pages


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    base = parser().parse_args(arguments).base
    with one_line_errors():
        os.chdir(paths.project_root())
        print("\n".join(links(base)))


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser("image-classification links", description=__doc__)
    made.add_argument("base", nargs="?", help="what the addresses begin with, such as http://host")
    return made


def links(base: str | None = None) -> list[str]:
    """A line for each page: all runs, the models compared, the registered models.

    Args:
        base: what the addresses begin with; see `mlflow_pages.find`.

    Raises:
        UserError: MLflow's store can't be used, or params.yaml can't be read.
    """
    experiment, compared = _last_comparison()
    pages = mlflow_pages.find(experiment, compared, base)
    lines = {"All runs": pages.runs()}
    if pages.run_ids:
        lines["Compared"] = pages.comparison(compared)
        lines["Models"] = pages.models(experiment)
    return [f"{title:<12} {address}" for title, address in lines.items()]


def _last_comparison() -> tuple[str, list[str]]:
    """The experiment, and the keys of the runs compared: none before `compare` has run."""
    file = paths.REPORTS / paths.EVENTS_FILE
    if not file.exists():
        return compose().data.dataset, []
    first, *events = event_log.read(file)
    notes = " ".join(event["text"] for event in events if event["type"] == "note")
    return first["experiment"], mlflow_pages.compared_in(notes)
