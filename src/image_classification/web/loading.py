"""From the records to the models that are served: exported if need be, loaded and tested."""

import logging
import subprocess
import sys

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.serving.artifact import DESCRIPTION_FILE
from image_classification.web import limits, served_runs
from image_classification.web.models import Models, Served, load

log = logging.getLogger(__name__)


def load_models(name: str, old: Models | None = None) -> Models:
    """The promoted champion and the other models' best runs, of which a broken one is left out.

    Args:
        name: of the data set.
        old: what is loaded already, and need not be loaded again.

    Raises:
        UserError: there is no champion, or it can't be used.
    """
    wanted = served_runs.champion(name)
    if wanted is None:
        raise UserError(f"{name} has no champion: `image-classification promote` makes one")
    champion = old.find(wanted.key, wanted.weights_sha256) if old else None
    if champion is None:
        if not (paths.EXPORTED / wanted.key / DESCRIPTION_FILE).is_file():
            _export(wanted)
        champion = load(wanted.key, wanted.weights_sha256)
    return Models(champion, _others(champion, old))


def _others(champion: Served, old: Models | None) -> tuple[Served, ...]:
    loaded = {served.artifact.key: served for served in old.all()} if old else {}
    found: list[Served] = []
    try:
        for key in served_runs.best_runs():
            if key != champion.artifact.key:
                found += _beside(champion, key, loaded.get(key))
    except UserError as error:
        log.error("only the champion is served: %s", error)
    return tuple(found)


def _beside(champion: Served, key: str, loaded: Served | None) -> list[Served]:
    """A model that takes the champion's images and has its classes, or none."""
    try:
        other = loaded or load(key)
    except UserError as error:
        log.error("left out beside the champion: %s", error)
        return []
    alike = all(
        getattr(other.artifact, of) == getattr(champion.artifact, of)
        for of in ("image_shape", "classes", "resize", "normalise")
    )
    return [other] if alike else []


def _export(wanted: served_runs.Champion) -> None:
    """Make an artifact in a process of its own: it takes TensorFlow, which is not loaded here."""
    log.info("exporting %s, which takes a while", wanted.run)
    command = [sys.executable, "-m", "image_classification", "export", wanted.key]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limits.EXPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        hint = f"run `image-classification export {wanted.key}`"
        raise UserError(f"{wanted.run}: its export took too long: {hint}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{wanted.run} can't be exported: {last.removeprefix('error: ')}")
