"""The study, which all trials of a search share: on disk, or in a database."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import TrialState

from image_classification.core import paths
from image_classification.core.config import SearchConfig
from image_classification.core.errors import UserError

JOB = "job"  # the attribute that holds a trial's number in the sweep
SETTINGS = "settings"  # the attribute that holds what all trials of the study share
DIRECTIONS = {
    "val_accuracy": StudyDirection.MAXIMIZE,
    "val_loss": StudyDirection.MINIMIZE,
}
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5),
    "hyperband": optuna.pruners.HyperbandPruner,
    "none": optuna.pruners.NopPruner,
}

optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(search: SearchConfig, shared: Mapping[str, Any], seed: int) -> optuna.Study:
    """Find the study, or make it.

    Args:
        search: how to search.
        shared: the settings that all its trials have, and the space, for JSON.
        seed: of what is drawn next; each trial has its own.

    Raises:
        UserError: the storage can't be used; or the study holds trials of other settings.
    """
    try:
        study = optuna.create_study(
            storage=_storage(search.storage),
            sampler=_sampler(search.sampler, seed),
            pruner=PRUNERS[search.pruner](),
            study_name=search.study,
            direction=DIRECTIONS[search.metric],
            load_if_exists=True,
        )
    except (OSError, ImportError, optuna.exceptions.StorageInternalError) as error:
        raise UserError(f"search.storage: {search.storage} can't be used: {error}") from error
    described = json.dumps(shared, sort_keys=True)
    if study.user_attrs.setdefault(SETTINGS, described) != described:
        raise UserError(
            f"search.study: {search.study} holds trials of other settings: choose another name "
            "with search.study=NAME"
        )
    study.set_user_attr(SETTINGS, described)
    return study


def load(storage: str, name: str) -> optuna.Study:
    """A study that is there."""
    return optuna.load_study(storage=_storage(storage), study_name=name)


def _storage(place: str) -> BaseStorage:
    if "://" in place:
        return RDBStorage(place)
    path = paths.home() / place
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opening a file is atomic on every file system that a cluster shares; links are not.
    lock = JournalFileOpenLock(str(path))
    return JournalStorage(JournalFileBackend(str(path), lock))


def _sampler(name: str, seed: int) -> BaseSampler:
    return TPESampler(seed=seed) if name == "tpe" else RandomSampler(seed=seed)


def begin(study: optuna.Study, job: int) -> optuna.Trial | None:
    """The trial of a job of the sweep: a new one, or one that a kill has cut short.

    Returns:
        None if it has ended already, well or early.
    """
    for known in study.get_trials(deepcopy=False):
        if known.user_attrs.get(JOB) == job:
            if known.state is TrialState.RUNNING:
                return optuna.Trial(study, known._trial_id)
            if known.state is not TrialState.FAIL:
                return None
    trial = study.ask()
    trial.set_user_attr(JOB, job)
    return trial
