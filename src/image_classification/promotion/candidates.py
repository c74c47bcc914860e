"""The runs that can become champion: those of the last comparison, best first."""

import json
from dataclasses import dataclass

from image_classification.core import paths
from image_classification.core.errors import UserError

LARGEST = 2**24  # bytes of the leaderboard


@dataclass(frozen=True)
class Candidate:
    """A run of the last comparison."""

    model: str
    seed: int
    key: str

    @property
    def run(self) -> str:
        """The run's name, which is also that of its folders."""
        return paths.run_name(self.model, self.seed)


def read() -> list[Candidate]:
    """The runs of the last comparison, best by validation first.

    Raises:
        UserError: there was none, or its leaderboard is damaged.
    """
    path = paths.LEADERBOARD
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST} bytes")
        found = [
            Candidate(str(row["model"]), int(row["seed"]), str(row["run"]))
            for row in json.loads(path.read_text())
        ]
        if not found:
            raise ValueError("it lists no run")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run `dvc repro`") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is not a leaderboard ({str(error)[:100]}): run `dvc repro --force "
            "--single-item compare`"
        ) from error
    return found


def find(candidates: list[Candidate], name: str) -> Candidate:
    """The best run of a model, or the run of a name or a key.

    Raises:
        UserError: the last comparison had no such run; names those it had.
    """
    for candidate in candidates:
        if name in (candidate.model, candidate.run, candidate.key):
            return candidate
    known = ", ".join(candidate.run for candidate in candidates)
    raise UserError(f"{name}: not among the runs compared last: {known}")
