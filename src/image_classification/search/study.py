"""The study, which all trials of a search share: on disk, or in a database."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from image_classification.core import paths
from image_classification.core.config import SearchConfig
from image_classification.core.errors import UserError, without_login

NUMBER = "number"  # the attribute that holds the `trial` of the configuration
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
    with _storage(search.storage) as storage:
        study = optuna.create_study(
            storage=storage,
            sampler=_sampler(search.sampler, seed),
            pruner=PRUNERS[search.pruner](),
            study_name=search.study,
            direction=DIRECTIONS[search.metric],
            load_if_exists=True,
        )
    described = json.dumps(shared, sort_keys=True)
    known = study.user_attrs.get(SETTINGS)
    if known is None:
        study.set_user_attr(SETTINGS, described)
    elif known != described:
        raise UserError(
            f"search.study: {search.study} holds trials of other settings or data: choose another "
            "name with search.study=NAME"
        )
    return study


def load(address: str, name: str) -> optuna.Study:
    """Load an existing study.

    Raises:
        KeyError: it does not exist.
        UserError: the storage can't be used.
    """
    with _storage(address) as storage:
        return optuna.load_study(storage=storage, study_name=name)


@contextmanager
def _storage(address: str) -> Iterator[BaseStorage]:
    try:
        if "://" in address:
            yield RDBStorage(address)
            return
        path = paths.home() / address
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opening a file is atomic on every file system that a cluster shares; links are not.
        lock = JournalFileOpenLock(str(path))
        yield JournalStorage(JournalFileBackend(str(path), lock))
    except (
        *(OSError, ImportError, ValueError),  # ValueError: a damaged journal
        *(SQLAlchemyError, optuna.exceptions.StorageInternalError),
    ) as error:
        shown = without_login(address)
        raise UserError(f"search.storage: {shown} can't be used: {error}") from error


def _sampler(name: str, seed: int) -> BaseSampler:
    return TPESampler(seed=seed) if name == "tpe" else RandomSampler(seed=seed)


def begin(study: optuna.Study, number: int) -> optuna.Trial | None:
    """The trial of this number: a new one, or one that was killed.

    Returns:
        None if it has been completed or pruned already.
    """
    for known in study.get_trials(deepcopy=False):
        if known.user_attrs.get(NUMBER) == number:
            if known.state is TrialState.RUNNING:
                return optuna.Trial(study, known._trial_id)
            if known.state is not TrialState.FAIL:
                return None
    trial = study.ask()
    trial.set_user_attr(NUMBER, number)
    return trial
