"""Figures of several models side by side: tables in, a matplotlib Figure out.

Figures show the spread over the runs of a model, and are narrow enough to read on a phone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from image_classification.comparison.contributions import METRICS
from image_classification.comparison.verdict import Pair, Score
from image_classification.evaluation.figures import (
    ACCURACY,
    COLOURS,
    MARKERS,
    STRETCHED,
    STRETCHED_TOWARDS_1,
    accuracy_ticks,
    epoch_axis,
    new_figure,
)

WIDTH = 6.0  # inches
LOSSES = (1, 1.5, 2, 3, 5, 7)  # ticks of a decade


def leaderboard(
    rows: pd.DataFrame,
    scores: Sequence[Score],
    published: Mapping[str, Sequence[float]],
    metric: str = "accuracy",
) -> Figure:
    """Scores of each run, the mean on test with its interval, and the published scores.

    Args:
        rows: columns model, and `test_` and `validation_` with the metric (0 to 1); one row per
            run.
        scores: the models from top to bottom; the intervals shown are those over seeds,
            and for single runs those over examples.
        published: test scores from 0 to 1 by model, one for each published run.
        metric: of the scores, one of `contributions.METRICS`.
    """
    figure = new_figure(WIDTH, 1.6 + 0.5 * len(scores))
    axes = figure.subplots()
    axes.set_xscale("function", functions=STRETCHED)  # before limits are computed
    models = [score.model for score in scores]
    heights = rows["model"].map(models.index)
    for part, marker, colour, offset in (
        ("validation", "s", COLOURS[1], -0.2),
        ("test", "o", COLOURS[0], 0),
    ):
        axes.scatter(
            rows[f"{part}_{metric}"],
            heights + offset,
            s=18,
            alpha=0.6,
            marker=marker,
            color=colour,
            label=part,
        )
    reported = [(score, models.index(m)) for m in models for score in published.get(m, [])]
    if reported:
        values, positions = zip(*reported, strict=True)
        axes.scatter(
            values, np.add(positions, 0.2), marker="|", s=90, color="0.2", label="published test"
        )
    _draw_means(axes, scores)
    axes.set_yticks(range(len(models)), models)
    axes.invert_yaxis()
    accuracy_ticks(axes.xaxis, axes.get_xlim())
    axes.set_xlabel(f"{METRICS[metric].name} {STRETCHED_TOWARDS_1}")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return figure


def _draw_means(axes: Axes, scores: Sequence[Score]) -> None:
    """The mean of each model with its interval over seeds, or over examples for single runs."""
    label = f"test: mean, 95 % interval over {'seeds' if scores[0].over_seeds else 'examples'}"
    for height, score in enumerate(scores):
        interval = score.over_seeds or score.over_examples
        axes.plot([interval.low, interval.high], [height] * 2, "k", label="" if height else label)
    axes.plot([score.mean for score in scores], range(len(scores)), "|k", markersize=10)


def differences(pairs: Sequence[Pair], metric: str = "accuracy") -> Figure:
    """The difference of each pair with its interval, in points; filled if significant.

    Args:
        pairs: from top to bottom.
        metric: of the scores, one of `contributions.METRICS`.
    """
    figure = new_figure(WIDTH, 1.2 + 0.3 * len(pairs))
    axes = figure.subplots()
    for height, pair in enumerate(pairs):
        interval = pair.difference.interval
        colour = COLOURS[0] if pair.significant else COLOURS[1]
        axes.plot([100 * interval.low, 100 * interval.high], [height] * 2, color=colour)
        axes.plot(
            100 * pair.difference.difference,
            height,
            "o",
            color=colour,
            markerfacecolor=colour if pair.significant else "white",
        )
    axes.axvline(0, color="0.3", linewidth=1)
    # On a linear scale, pairs with the weakest model would leave all others in one spot.
    axes.set_xscale("symlog", linthresh=0.5)
    negative, positive = [-50, -20, -10, -5, -2, -1, -0.2], [0.2, 0.5, 1, 2, 5, 10, 20, 50]
    axes.set_xticks([*negative, 0, *positive], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    bounds = [
        100 * end
        for pair in pairs
        for end in (pair.difference.interval.low, pair.difference.interval.high)
    ]
    axes.set_xlim(min([0.0, *bounds]) - 0.15, max([0.0, *bounds]) * 1.3 + 0.1)
    axes.set_yticks(range(len(pairs)), [f"{pair.first} - {pair.second}" for pair in pairs])
    axes.invert_yaxis()
    axes.set_xlabel(f"difference of test {METRICS[metric].name}, points")
    axes.grid(axis="x", alpha=0.3)
    axes.set_title("filled: significant", fontsize="medium")
    return figure


def accuracy_by_epoch(
    curves: pd.DataFrame, test_accuracy: Mapping[str, float], title: str
) -> Figure:
    """Accuracy against epoch: training dashed, validation solid, test a dotted horizontal line.

    The lines are means over the runs of a model, the bands go from the lowest to the highest.

    Args:
        curves: columns model, epoch (from 0), accuracy, val_accuracy (0 to 1); one row per run and
            epoch.
        test_accuracy: by model, the mean, from 0 to 1.
        title: of the figure.
    """
    figure = new_figure(WIDTH, 4.2)
    axes = figure.subplots()
    axes.set_yscale("function", functions=STRETCHED)
    tests = {model: f"{accuracy:.2%}" for model, accuracy in test_accuracy.items()}
    _draw_curves(axes, curves, "accuracy", test_accuracy, tests)
    accuracy_ticks(axes.yaxis, axes.get_ylim())
    axes.set_ylabel(ACCURACY)
    axes.set_title(f"{title}: accuracy")
    return figure


def loss_by_epoch(curves: pd.DataFrame, test_loss: Mapping[str, float], title: str) -> Figure:
    """Loss in nats against epoch, on a logarithmic scale; else as `accuracy_by_epoch`.

    Args:
        curves: columns model, epoch (from 0), loss, val_loss; one row per run and epoch.
        test_loss: by model, the mean.
        title: of the figure.
    """
    figure = new_figure(WIDTH, 4.2)
    axes = figure.subplots()
    axes.set_yscale("log")
    tests = {model: f"{loss:.4f}" for model, loss in test_loss.items()}
    _draw_curves(axes, curves, "loss", test_loss, tests)
    axes.yaxis.set_major_locator(LogLocator(subs=LOSSES))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("loss (nats)")
    axes.set_title(f"{title}: loss")
    return figure


def _draw_curves(
    axes: Axes,
    curves: pd.DataFrame,
    quantity: str,
    tested: Mapping[str, float],
    texts: Mapping[str, str],
) -> None:
    for index, (name, history) in enumerate(curves.groupby("model", sort=False)):
        style = _style(index)
        for column, dash, label in (
            (quantity, "--", "training"),
            (f"val_{quantity}", "-", "validation"),
        ):
            spread = history.groupby("epoch")[column].agg(["mean", "min", "max"])
            epochs = spread.index + 1
            axes.plot(epochs, spread["mean"], dash, **style, label=f"{name} {label}")
            axes.fill_between(
                epochs, spread["min"], spread["max"], color=style["color"], alpha=0.15, linewidth=0
            )
        label = f"{name} test {texts[str(name)]}"
        axes.axhline(tested[str(name)], linestyle=":", color=style["color"], label=label)
    epoch_axis(axes)
    axes.legend(fontsize="small")


def robustness(rows: pd.DataFrame, units: Mapping[str, str]) -> Figure:
    """Accuracy against the strength of each kind of corruption; bands from lowest to highest run.

    Args:
        rows: columns model, corruption, strength, accuracy (0 to 1); one row per run, corruption
            and strength.
        units: of the strengths, by corruption, in the order of the panels.
    """
    columns = 2
    lines = -(-len(units) // columns)
    figure = new_figure(WIDTH, 0.6 + 2.3 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for panel in panels[len(units) :]:
        panel.set_axis_off()
    panels[0].set_yscale("function", functions=STRETCHED)  # the panels share it
    for panel, (kind, unit) in zip(panels, units.items(), strict=False):
        of_kind = rows[rows["corruption"] == kind]
        for index, (name, chosen) in enumerate(of_kind.groupby("model", sort=False)):
            spread = chosen.groupby("strength")["accuracy"].agg(["mean", "min", "max"])
            style = _style(index)
            panel.plot(spread.index, spread["mean"], **style, markersize=4, label=str(name))
            panel.fill_between(
                spread.index, spread["min"], spread["max"], color=style["color"], alpha=0.15, lw=0
            )
        panel.set_title(kind, fontsize="medium")
        panel.set_xlabel(unit, fontsize="small")
        panel.grid(alpha=0.3)
    accuracy_ticks(panels[0].yaxis, panels[0].get_ylim())
    figure.supylabel(ACCURACY, fontsize="medium")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize="small")
    return figure


def costs(rows: pd.DataFrame, columns: Mapping[str, str], metric: str = "accuracy") -> Figure:
    """The score on test against each cost; a line joins the models that no other beats in both.

    Args:
        rows: columns model, `test_` with the metric (0 to 1) and the costs; one row per model.
        columns: the columns of the costs, each with the title of its axis; one panel each.
        metric: one of `contributions.METRICS`.
    """
    score = f"test_{metric}"
    figure = new_figure(WIDTH, 3.2 * len(columns))
    panels = figure.subplots(len(columns), squeeze=False).ravel()
    for panel, (column, title) in zip(panels, columns.items(), strict=True):
        best = rows[pareto(rows[column].to_numpy(), rows[score].to_numpy())]
        best = best.sort_values(column)
        panel.set_xscale("log")
        panel.set_yscale("function", functions=STRETCHED)
        panel.step(best[column], best[score], where="post", color="0.6", zorder=1)
        for index, row in enumerate(rows.to_dict("records")):
            style = _style(index)
            panel.plot(row[column], row[score], linestyle="", **style, label=row["model"])
        panel.margins(x=0.15, y=0.15)
        accuracy_ticks(panel.yaxis, panel.get_ylim())
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel(title)
        panel.set_ylabel(f"test {METRICS[metric].name}")
        panel.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize="small")
    return figure


def pareto(costs: NDArray[np.floating], values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which points no other beats: none is at least as good in both and better in one.

    Args:
        costs: (n,), less is better.
        values: (n,), more is better.

    Returns:
        Booleans (n,).
    """
    as_cheap = costs[None, :] <= costs[:, None]
    as_good = values[None, :] >= values[:, None]
    better = (costs[None, :] < costs[:, None]) | (values[None, :] > values[:, None])
    return np.asarray(~(as_cheap & as_good & better).any(axis=1))


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
