"""Which models are to be served, by the records of promotions and the leaderboard."""

import json
from dataclasses import dataclass

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.promotion import records

LARGEST_LEADERBOARD = 2**24  # bytes
LEADERBOARD = paths.REPORTS / "leaderboard.json"


@dataclass(frozen=True)
class Champion:
    """The run that was promoted last, and the SHA-256 of its model.keras."""

    key: str
    run: str
    model_sha256: str


def promoted(name: str) -> Champion | None:
    """The champion of a data set by its records; None before the first promotion.

    Raises:
        UserError: the records are damaged.
    """
    record = records.champion(records.read(name))
    if record is None:
        return None
    return Champion(record.to.key, record.to.run, record.to.sha256)


def best_runs() -> list[str]:
    """The keys of each model's best run whose artefact is there, best first; none without a file.

    Raises:
        UserError: the leaderboard is damaged.
    """
    try:
        with LEADERBOARD.open("rb") as stream:
            rows = json.loads(stream.read(LARGEST_LEADERBOARD))
        best: dict[str, str] = {}
        for row in rows:  # best first
            best.setdefault(str(row["model"]), str(row["run"]))
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{LEADERBOARD} can't be read: run dvc repro") from error
    return [key for key in best.values() if (paths.EXPORTED / key).is_dir()]


def data_set() -> str | None:
    """The one data set that has records of promotions; None for none or several."""
    names = [path.stem for path in paths.PROMOTIONS.glob("*.jsonl")]
    return names[0] if len(names) == 1 else None
