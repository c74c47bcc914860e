"""Optuna's search against random search, with the same budget of epochs, several times.

    python benchmarks/searches.py

searches on the data of params.yaml, whose split must have been made (`dvc repro split`), by the
commands that users type. Then it trains the best of each search, and the recipe as it comes, with
seeds that no search had, and writes a table, all trials and a figure to studies/search/. Killed, it
resumes where it was. Only validation is seen.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import optuna
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from measure import run
from optuna.trial import TrialState
from scipy.stats import ttest_1samp

from image_classification.core.command import one_line_errors
from image_classification.search import study

KINDS = ("optuna", "random")  # files of conf/search/
METRIC = "val_accuracy"
SWEEPS = Path("multirun")


@dataclass(frozen=True)
class Plan:
    """What is searched, and how long."""

    name: str  # that the studies' names begin with
    model: str
    epochs: int  # of a trial that is not pruned
    budget: int  # epochs of a search, over all its trials
    repetitions: int  # of each search, with seeds from 0
    fresh: int  # seeds of the trainings after the searches


@dataclass(frozen=True)
class Search:
    """One of the searches: its file in conf/search/, and its seed."""

    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.seed}"


def make(search: Search, plan: Plan) -> optuna.Study:
    """Make trials until the epochs that are left make no whole one."""
    name, storage = f"{plan.name}-{search}", f"search/{search.kind}.log"
    trials = plan.budget // plan.epochs
    while True:
        run(
            *("hydra", "-m", f"hydra.sweep.dir={SWEEPS / name}", f"trial=range(0,{trials})"),
            *(f"search={search.kind}", f"search.study={name}", f"search.storage={storage}"),
            *(f"search.metric={METRIC}", f"model={plan.model}", f"recipe.epochs={plan.epochs}"),
            f"seed={search.seed}",
        )
        found = study.load(storage, name)
        more = (plan.budget - sum(map(epochs_of, found.trials))) // plan.epochs
        if more <= 0:
            return found
        trials += more


def epochs_of(trial: optuna.trial.FrozenTrial) -> int:
    """How many epochs a trial has trained."""
    return len(trial.intermediate_values)


def train(plan: Plan, name: str, *overrides: str) -> list[float]:
    """Validation accuracies of fresh seeds."""
    folder = SWEEPS / f"{name}-fresh"
    first = plan.repetitions
    run(
        *("hydra", "-m", *overrides, f"recipe.epochs={plan.epochs}"),
        f"seed=range({first},{first + plan.fresh})",
        f"hydra.sweep.dir={folder}",
    )
    return [
        float(pd.read_csv(path)[METRIC].iloc[-1]) for path in sorted(folder.glob("*/history.csv"))
    ]


def table(studies: Mapping[Search, optuna.Study]) -> pd.DataFrame:
    """A row for each trial: its search, state, settings and accuracy, and the best so far."""
    trials = pd.DataFrame(
        {
            **{"search": search.kind, "seed": search.seed},
            **{"trial": trial.number, "state": trial.state.name, "epochs": epochs_of(trial)},
            METRIC: trial.value if trial.state is TrialState.COMPLETE else None,
            **trial.params,
        }
        for search, one in studies.items()
        for trial in one.trials
    )
    of_search = trials.groupby(["search", "seed"])
    trials["epochs so far"] = of_search["epochs"].cumsum()
    trials["best so far"] = of_search[METRIC].transform(lambda column: column.cummax().ffill())
    return trials


def figure(trials: pd.DataFrame) -> Figure:
    """The best so far against the epochs trained, a line for each search."""
    drawn = Figure((7, 4), layout="constrained")
    axes = drawn.subplots()
    seaborn.lineplot(
        trials,
        **{"x": "epochs so far", "y": "best so far", "hue": "search", "units": "seed"},
        **{"estimator": None, "drawstyle": "steps-post", "ax": axes},
    )
    axes.set(
        title="The best trial so far, a line for each repetition",
        xlabel="epochs trained, over all trials of the search",
        ylabel=METRIC,
    )
    axes.grid(alpha=0.3)
    return drawn


def page(trials: pd.DataFrame, fresh: Mapping[Search | None, Sequence[float]]) -> str:
    """The searches side by side, and what became of their best with fresh seeds.

    Args:
        trials: as `table` makes them.
        fresh: accuracies of the best of each search, and of the recipe as it comes (None).
    """
    lines = [
        "| search | trials | pruned | epochs | best trial | its mean with fresh seeds | sd |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    best: dict[str, list[float]] = {kind: [] for kind in KINDS}
    means: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for search, values in fresh.items():
        again = f"{100 * fmean(values):.2f} | {100 * stdev(values):.2f}"
        if search is None:
            lines.append(f"| none: the recipe as it comes | | | | | {again} |")
            continue
        rows = trials[(trials["search"] == search.kind) & (trials["seed"] == search.seed)]
        best[search.kind].append(rows["best so far"].max())
        means[search.kind].append(fmean(values))
        pruned = sum(rows["state"] == TrialState.PRUNED.name)
        lines.append(
            f"| {search} | {len(rows)} | {pruned} | {rows['epochs'].sum()} "
            f"| {100 * best[search.kind][-1]:.2f} | {again} |"
        )
    for what, found in (("Best trial", best), ("With fresh seeds", means)):
        gains = [one - other for one, other in zip(*found.values(), strict=True)]
        low, high = ttest_1samp(gains, 0).confidence_interval()
        lines += [
            "",
            f"{what}, {' over '.join(KINDS)}: {100 * fmean(gains):+.2f} points, 95 % interval "
            f"{100 * low:.2f} to {100 * high:.2f} (paired t, n = {len(gains)}).",
        ]
    return "\n".join(lines) + "\n"


def measure(plan: Plan, output: Path) -> None:
    """Search, train again, and write what was found."""
    studies = {}
    for search in (Search(kind, seed) for seed in range(plan.repetitions) for kind in KINDS):
        studies[search] = make(search, plan)
        print(f"{search}: best {studies[search].best_value:.4f}")
    fresh: dict[Search | None, list[float]] = {}
    known: dict[str, list[float]] = {}  # by settings: what is done is not trained again
    for one in (None, *studies):
        name = f"{plan.name}-{one or 'plain'}"
        settings = str(studies[one].best_params) if one else ""
        if settings not in known:
            best = f"+experiment={name}" if one else f"model={plan.model}"
            known[settings] = train(plan, name, best)
        fresh[one] = known[settings]
        print(f"{name}, fresh seeds: {', '.join(f'{value:.4f}' for value in fresh[one])}")
    output.mkdir(parents=True, exist_ok=True)
    trials = table(studies)
    trials.to_csv(output / "trials.csv", index=False, float_format="%.6g")
    figure(trials).savefig(output / "searches.png", dpi=110)
    (output / "searches.md").write_text(page(trials, fresh))
    print(f"written to {output}")


def main() -> None:
    """Search as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="searches", help="that the studies' names begin with")
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--epochs", type=int, default=2, help="of a trial that is not pruned")
    parser.add_argument("--budget", type=int, default=48, help="epochs of a search")
    parser.add_argument("--repetitions", type=int, default=3, help="at least 2")
    parser.add_argument("--fresh", type=int, default=5, help="seeds, at least 2")
    parser.add_argument("--output", type=Path, default=Path("studies/search"))
    options = vars(parser.parse_args())
    output = options.pop("output")
    with one_line_errors():
        measure(Plan(**options), output)


if __name__ == "__main__":
    main()
