"""Figures of a study, drawn by Optuna: study in, matplotlib Figures out."""

import warnings

import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState
from optuna.visualization import matplotlib as drawn

FEWEST_DISTINCT = 2  # different results, and settings, that a figure can compare


def figures(study: optuna.Study, metric: str) -> dict[str, Figure]:
    """The history, the epochs, the importances, and parallel coordinates, by name.

    The last two compare trials, and are left out while there is too little to compare.

    Args:
        study: in which a trial has completed.
        metric: of validation, which the study is about.
    """
    done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    searched = {name for trial in done for name in trial.params}
    made = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        axes = drawn.plot_optimization_history(study, target_name=metric)
        made["history"] = _named(axes, "Every trial, and the best so far")
        axes = drawn.plot_intermediate_values(study)
        axes.set(xlabel="epoch", ylabel=metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(lambda step, _: f"{step + 1:.0f}")  # steps begin at 0
        made["epochs"] = _named(axes, "Every trial by epoch; those cut short were pruned", False)
        if len({trial.value for trial in done}) >= FEWEST_DISTINCT:
            evaluator = PedAnovaImportanceEvaluator()
            axes = drawn.plot_param_importances(study, evaluator=evaluator, target_name=metric)
            made["importances"] = _named(axes, "What decided whether a trial was good", False)
            if len(searched) >= FEWEST_DISTINCT:
                axes = drawn.plot_parallel_coordinate(study, target_name=metric)
                made["parallel_coordinates"] = _named(axes, "A line for each trial")
    return made


def _named(axes: Axes, title: str, legend: bool = True) -> Figure:
    axes.set_title("", loc="left")  # where Optuna puts one of its own
    axes.set_title(title)
    shown = axes.get_legend()
    if shown and not legend:
        shown.remove()
    figure = axes.figure
    assert isinstance(figure, Figure)
    for each in figure.axes[1:]:
        each.grid(False)  # of scales that stand beside each other
    figure.set_size_inches(9, 5)
    return figure
