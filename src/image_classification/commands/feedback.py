"""Command `image-classification feedback`: review users' corrections of predictions.

Nothing enters training by itself: accepted images are a data set of their own, of the kind table.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict

from image_classification.core import paths
from image_classification.core.command import is_setting, one_line_errors
from image_classification.core.compose import compose
from image_classification.core.errors import UserError
from image_classification.monitoring.corrections import MANIFEST, Correction, Corrections

SHORT = 8  # characters of an id that are shown
HEAD: tuple[str, ...] = ("ID", "TIME", "LABEL", "PREDICTED", "PROBABILITY", "VERSION")


def main(arguments: Sequence[str]) -> None:
    """Run the command; arguments with `=` are settings."""
    settings = [word for word in arguments if is_setting(word)]
    options = parser().parse_args([word for word in arguments if not is_setting(word)])
    with one_line_errors():
        os.chdir(paths.project_root())
        store = Corrections(compose(*settings).data.dataset)
        print(feedback(store, options.action, options.ids, options.all, options.format))


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser("image-classification feedback", description=__doc__)
    made.add_argument("action", choices=("list", "accept", "discard"))
    made.add_argument("ids", nargs="*", metavar="ID", help="of a correction, or a prefix of it")
    made.add_argument("--all", action="store_true", help="accept or discard every correction")
    made.add_argument("--format", choices=("table", "json"), default="table", help="of the list")
    return made


def feedback(
    store: Corrections,
    action: str,
    ids: Sequence[str] = (),
    every: bool = False,
    form: str = "table",
) -> str:
    """List the corrections, or decide on some of them; returns what to print.

    Raises:
        UserError: there is no such correction, or none is named.
    """
    if action == "list":
        return _listed(store, ids, form)
    if bool(ids) == every:
        raise UserError(
            f"{action}: name corrections, or give --all: `image-classification feedback list`"
        )
    decide = store.accept if action == "accept" else store.discard
    chosen = decide(ids)
    if action == "discard":
        return f"{len(chosen)} discarded, {len(store.waiting())} pending"
    use = f"use them with data.name=table data.path={store.accepted}"
    return f"{len(chosen)} accepted, {len(store.waiting())} pending: {use}"


def _listed(store: Corrections, ids: Sequence[str], form: str) -> str:
    waiting = [
        correction
        for correction in store.waiting()
        if not ids or correction.id.startswith(tuple(ids))
    ]
    if form == "json":
        return json.dumps([{"id": one.id, **asdict(one)} for one in waiting], indent=2)
    if not waiting:
        return "No feedback is pending."
    rows = [HEAD, *map(_row, waiting)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"Images: {store.pending}/, listed in {MANIFEST}"])


def _row(one: Correction) -> tuple[str, ...]:
    version = "-" if one.version is None else str(one.version)
    time = one.time[:16].replace("T", " ")
    return one.id[:SHORT], time, one.label, one.answer, f"{one.probability:.3f}", version
