"""Which models are to be served, by the records of promotions and the leaderboard."""

from dataclasses import dataclass

from image_classification.core import paths
from image_classification.promotion import candidates, records
from image_classification.serving.artifact import DESCRIPTION_FILE


@dataclass(frozen=True)
class Champion:
    """The run that was promoted last, and the SHA-256 of its weights."""

    key: str
    run: str
    weights_sha256: str


def champion(name: str) -> Champion | None:
    """The champion of a data set by its records; None before the first promotion.

    Raises:
        UserError: the records are damaged.
    """
    record = records.champion(records.read(name))
    if record is None:
        return None
    return Champion(record.to.key, record.to.run, record.to.weights_sha256)


def best_runs() -> list[str]:
    """The keys of each model's best run whose artifact is there, best first; none without a file.

    Raises:
        UserError: the leaderboard is damaged.
    """
    if not paths.LEADERBOARD.exists():
        return []
    best: dict[str, str] = {}
    for candidate in candidates.read():  # best first
        best.setdefault(candidate.model, candidate.key)
    return [key for key in best.values() if (paths.EXPORTED / key / DESCRIPTION_FILE).is_file()]


def dataset() -> str | None:
    """The one data set that has records of promotions; None for none or several."""
    names = records.names()
    return names[0] if len(names) == 1 else None
