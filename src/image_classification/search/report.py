"""When a search ends: figures of its study, and its best trial as an experiment of conf/."""

import sys
from pathlib import Path
from typing import Any

import optuna
import yaml
from hydra.experimental.callback import Callback
from matplotlib import pyplot
from omegaconf import DictConfig
from optuna.trial import TrialState

from image_classification.core import paths
from image_classification.core.errors import explain
from image_classification.search import space, study
from image_classification.search.figures import figures


class SearchReport(Callback):
    """Hydra calls this around a search; conf/hydra/callbacks/search.yaml names it."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Draw the study and write its best trial; Hydra would turn an error into a warning."""
        try:
            _report(config)
        except Exception as error:
            line = explain(error)
            if line is None:
                raise
            print(f"error: {line}", file=sys.stderr)


def _report(config: DictConfig) -> None:
    try:
        found = study.load(config.search.storage, config.search.study)
    except KeyError:  # no trial has begun
        return
    ended = found.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    pruned = found.get_trials(deepcopy=False, states=[TrialState.PRUNED])
    print(f"{config.search.study}: {len(ended)} trials completed, {len(pruned)} pruned", flush=True)
    if not ended:
        return
    folder = Path(config.hydra.sweep.dir) / paths.SEARCH_PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(found, config.search.metric).items():
        figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
        pyplot.close(figure)
    choices = config.hydra.runtime.choices
    written = paths.CONF / "experiment" / f"{config.search.study}.yaml"
    written.parent.mkdir(exist_ok=True)
    written.write_text(experiment(found, choices.model, choices.data, config.search.metric))
    print(f"the best is in {written}, the figures in {folder}: hydra +experiment={written.stem}")


def experiment(found: optuna.Study, model: str, data: str, metric: str) -> str:
    """The best trial as a file of conf/experiment/.

    Args:
        found: the study, in which a trial has completed.
        model: that all its trials trained.
        data: the data set.
        metric: of validation, by which the trial is the best.
    """
    best = found.best_trial
    settings = " ".join(f"-S {word}" for word in space.words(best.params, model))
    states = [TrialState.COMPLETE, TrialState.PRUNED]
    count = len(found.get_trials(deepcopy=False, states=states))
    values = yaml.safe_dump(space.nested(best.params), sort_keys=False)
    return (
        "# @package _global_\n"
        f"# The best of {count} trials on {data}: trial {best.user_attrs[study.NUMBER]}, "
        f"{metric} {best.value:.4f}.\n"
        f"# The same for the pipeline: dvc exp run --temp -S 'models=[{model}]' {settings}\n"
        f"defaults: [override /model: {model}]\n{values}"
    )
