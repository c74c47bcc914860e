"""A job of a search: a training with the values that Optuna chooses, ended early if it is bad."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState

from image_classification.core.config import Config, defining, flatten
from image_classification.core.errors import PrunedError
from image_classification.search import space, study
from image_classification.tracking.outbox import upload

Watch = Callable[[dict[str, float]], None]  # called with each row of fit.EpochRecord


def main(config: Config, train: Callable[[Config, Watch], Any]) -> int:
    """Train as a trial of the study, and tell it what came out.

    A trial that a kill has cut short goes on; one that has ended is skipped.

    Args:
        config: with a search and the number of the trial.
        train: the stage's function.
    """
    search, number = config.search, config.trial
    assert search is not None
    assert number is not None
    drawn_from = space.distributions(search.space)
    (drawn,) = np.random.SeedSequence([config.seed, number]).generate_state(1)
    found = study.open_study(search, _shared(config), seed=int(drawn))
    trial = study.begin(found, number)
    if trial is None:
        print(f"skipped: trial {number} of {search.study} has ended")
        return 0
    values = space.suggest(trial, drawn_from)
    shown = [f"{key}={_short(value)}" for key, value in values.items()]
    print(f"trial {number} of {search.study}: {', '.join(shown)}", flush=True)

    def watch(row: dict[str, float]) -> None:
        trial.report(row[search.metric], int(row["epoch"]))
        if trial.should_prune():
            raise PrunedError(int(row["epoch"]) + 1)

    try:
        trained = train(space.with_values(config, values), watch)
    except PrunedError as pruned:
        found.tell(trial, state=TrialState.PRUNED)
        print(f"trial {number} is pruned after epoch {pruned.epochs}: others were better by then")
        return 0  # it leaves no results
    except Exception:
        found.tell(trial, state=TrialState.FAIL)
        raise
    value = float(trained.history[search.metric].iloc[-1])
    found.tell(trial, value)
    print(f"trial {number}: {search.metric} {value:.4f}; best so far {found.best_value:.4f}")
    return upload(Path(config.output_dir))


def _shared(config: Config) -> dict[str, Any]:
    """What all trials of a study have in common."""
    assert config.search is not None
    searched = space.distributions(config.search.space)
    settings = {key: value for key, value in flatten(defining(config)) if key not in searched}
    return {"space": config.search.space, "metric": config.search.metric, **settings}


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
