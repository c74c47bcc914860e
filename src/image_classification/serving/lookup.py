"""Which run a name means: champion, a model, a version, a run or its key.

Without MLflow, whose import takes seconds: from what the stages, the gate and the exports left.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from image_classification.core import paths, readers
from image_classification.core.errors import UserError
from image_classification.promotion import candidates, records
from image_classification.serving.artifact import DESCRIPTION_FILE, LARGEST_DESCRIPTION

CHAMPION = "champion"
KEY = r"[0-9a-f]{32}"


@dataclass(frozen=True)
class TrainedRun:
    """A run whose results are on this machine.

    folder: what `train` wrote.
    model_sha256: of its model.keras, in hexadecimal.
    """

    folder: Path
    key: str
    model_sha256: str


def best_keys(name: str) -> list[str]:
    """The keys of the champion, if there is one, and of each model's best run.

    Args:
        name: of the data set.

    Raises:
        UserError: nothing has been compared yet.
    """
    champion = records.champion(records.read(name))
    best = {candidate.model: candidate.key for candidate in reversed(candidates.read())}
    keys = [champion.to.key] if champion else []
    return list(dict.fromkeys([*keys, *reversed(best.values())]))


def key_of(word: str, name: str) -> str | None:
    """The key of the run that a word means; None for a version that only MLflow may know.

    Args:
        word: champion, a model, the number of a version, a run of the last comparison, or a key.
        name: of the data set.

    Raises:
        UserError: it means no run.
    """
    if word == CHAMPION:
        champion = records.champion(records.read(name))
        if champion is None:
            raise UserError(
                f"{name} has no champion yet: run `dvc repro` or `image-classification promote`"
            )
        return champion.to.key
    if re.fullmatch(KEY, word):
        return word
    if word.isdecimal():
        return _known_versions(name).get(int(word))
    return candidates.find(candidates.read(), word).key


def run_with(key: str) -> TrainedRun | None:
    """The run with this key, if its results are on this machine."""
    for folder in paths.logged_folders():
        file = folder / paths.TRAINING_FILE
        if file.is_file():
            training = readers.read_training(file, "run `dvc repro`")
            if training["run"] == key:
                return TrainedRun(folder, key, training["model_sha256"])
    return None


def _known_versions(name: str) -> dict[int, str]:
    """The keys of the runs that were promoted or exported, by version."""
    promoted = [one.to for one in records.read(name)]
    found = {one.version: one.key for one in promoted if one.version is not None}
    for path in sorted(paths.EXPORTED.glob(f"*/{DESCRIPTION_FILE}")):
        described = readers.read_mapping(path, "remove it", LARGEST_DESCRIPTION)
        if described.get("name") == name and isinstance(described.get("version"), int):
            found[described["version"]] = path.parent.name
    return found
