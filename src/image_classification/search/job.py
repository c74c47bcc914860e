"""A job of a search: a training with the values that Optuna chooses, pruned if it is bad."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from image_classification.core import paths
from image_classification.core.config import (
    Config,
    ModelConfig,
    SearchConfig,
    defining,
    flatten,
)
from image_classification.core.errors import PrunedError, UserError
from image_classification.core.locks import locked
from image_classification.core.signals import is_interrupted
from image_classification.data.fingerprint import dvc_hash
from image_classification.search import space, study
from image_classification.tracking.outbox import upload

FIXED = (  # what can be changed only before the configuration is composed, or never counts
    *("recipe.name", "augmentation.name", "model.name", "model.family"),
    *("model.fast", "model.augmentation"),
)
OnEpoch = Callable[[dict[str, float]], None]  # called with each row of fit.EpochReporter


def main(config: Config, train: Callable[[Config, OnEpoch], Any]) -> int:
    """Train as a trial of the study, and report the result to it.

    A killed trial resumes; one that has ended is skipped.

    Args:
        config: with a search and the number of the trial.
        train: the stage's function.

    Raises:
        UserError: the search is invalid, or another process is working on this trial.
    """
    search, number = config.search, config.trial
    assert search is not None
    assert number is not None
    drawn_from = _searched(search, config.model)
    lock = paths.home() / paths.SEARCHES / "locks" / f"{search.study}-{number}"
    with locked(lock, f"is working on trial {number} of {search.study}", wait=False):
        (drawn,) = np.random.SeedSequence([config.seed, number]).generate_state(1)
        found = study.open_study(search, _shared(config, drawn_from), seed=int(drawn))
        trial = study.begin(found, number)
        if trial is None:
            print(f"skipped: trial {number} of {search.study} has ended")
            return 0
        values = space.suggest(trial, drawn_from)
        shown = [f"{key}={_short(value)}" for key, value in values.items()]
        print(f"trial {number} of {search.study}: {', '.join(shown)}", flush=True)
        return _run(config, values, found, trial, train)


def _run(
    config: Config,
    values: dict[str, Any],
    found: optuna.Study,
    trial: optuna.Trial,
    train: Callable[[Config, OnEpoch], Any],
) -> int:
    assert config.search is not None
    number, metric = config.trial, config.search.metric
    try:
        changed = space.with_values(config, values)
        reported = found.trials[trial.number].intermediate_values  # before a kill, by epoch

        def on_epoch(row: dict[str, float]) -> None:
            epochs = int(row["epoch"]) + 1
            if epochs - 1 in reported:
                return
            trial.report(row[metric], epochs - 1)
            if epochs < changed.recipe.epochs and trial.should_prune():
                raise PrunedError(epochs)

        trained = train(changed, on_epoch)
    except PrunedError as pruned:
        found.tell(trial, state=TrialState.PRUNED)
        print(f"trial {number}: pruned after epoch {pruned.epochs}: others were better by then")
        return 0  # it leaves no results
    except Exception:
        if not is_interrupted():  # a library may have replaced what the signal raised
            found.tell(trial, state=TrialState.FAIL)
        raise
    value = float(trained.history[metric].iloc[-1])
    if math.isfinite(value):
        found.tell(trial, value)
        print(f"trial {number}: {metric} {value:.4f}; best so far {found.best_value:.4f}")
    else:
        found.tell(trial, state=TrialState.PRUNED)  # so that Optuna learns from it
        print(f"trial {number}: {metric} is {value}, which counts as pruned")
    return upload(Path(config.output_dir))


def _searched(search: SearchConfig, model: ModelConfig) -> dict[str, BaseDistribution]:
    """What Optuna draws from: no dropout for a model that has none.

    Raises:
        UserError: nothing is left, a setting would have no effect, or Optuna can't take some
            bounds.
    """
    drops = any(
        layer.get("type") == "Dropout" and "rate" not in layer for layer in model.layers.values()
    )
    found = space.distributions(search.space)
    for key in found:
        if any(f"{key}.".startswith(f"{fixed}.") for fixed in FIXED):
            raise UserError(
                f"search.space.{key}: has no effect in a trial: search settings of recipe and "
                "augmentation instead"
            )
    left = {key: one for key, one in found.items() if drops or key != "model.dropout"}
    if not left:
        raise UserError(f"search.space: has no setting that {model.name} takes")
    return left


def _shared(config: Config, searched: Iterable[str]) -> dict[str, Any]:
    """What all trials of a study have in common."""
    assert config.search is not None
    settings = {key: value for key, value in flatten(defining(config)) if key not in searched}
    return {
        "space": config.search.space,
        "metric": config.search.metric,
        "data": dvc_hash(paths.SPLIT),
        **settings,
    }


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
