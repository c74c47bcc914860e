import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from image_classification.comparison import verdict
from image_classification.comparison.intervals import Interval
from image_classification.reporting import figures


def drawn(figure: Figure) -> Figure:
    """Every figure must also survive being drawn."""
    figure.savefig(io.BytesIO(), format="png")
    return figure


def curves(models: int, seeds: int) -> pd.DataFrame:
    rows = [
        (f"m{model}", seed, epoch, 0.8 + 0.05 * epoch, 0.8 + 0.05 * epoch + 0.01 * seed)
        for model in range(models)
        for seed in range(seeds)
        for epoch in range(3)
    ]
    return pd.DataFrame(rows, columns=["model", "seed", "epoch", "accuracy", "val_accuracy"])


def judged(seeds: int) -> verdict.Verdict:
    generator = np.random.default_rng(0)
    return verdict.judge(
        {name: generator.random((seeds, 500)) < rate for name, rate in (("nn", 0.8), ("cnn", 0.9))}
    )


def test_training_validation_and_test_accuracy_differ_in_dash() -> None:
    figure = drawn(figures.accuracy_by_epoch(curves(1, 1), {"m0": 0.88}, "title"))
    training, validation, test = figure.axes[0].get_lines()

    assert [line.get_linestyle() for line in (training, validation, test)] == ["--", "-", ":"]
    assert np.asarray(training.get_xdata()).tolist() == [1, 2, 3]
    assert np.asarray(validation.get_ydata()).tolist() == pytest.approx([0.8, 0.85, 0.9])
    assert set(np.asarray(test.get_ydata()).tolist()) == {0.88}


def test_losses_differ_in_dash_on_a_logarithmic_scale() -> None:
    losses = curves(1, 1).rename(columns={"accuracy": "loss", "val_accuracy": "val_loss"})
    figure = drawn(figures.loss_by_epoch(losses, {"m0": 0.88}, "title"))
    axes = figure.axes[0]
    training, validation, test = axes.get_lines()

    assert [line.get_linestyle() for line in (training, validation, test)] == ["--", "-", ":"]
    assert np.asarray(validation.get_ydata()).tolist() == pytest.approx([0.8, 0.85, 0.9])
    assert set(np.asarray(test.get_ydata()).tolist()) == {0.88}
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "loss (nats)")


def shares(axes: Axes, low: float, high: float) -> float:
    """The share of the height of a panel that lies between two values."""
    ends = axes.transData.transform([(0, low), (0, high)])
    return float(np.diff(axes.transAxes.inverted().transform(ends)[:, 1])[0])


def test_98_and_99_4_per_cent_can_be_told_apart() -> None:
    rows = curves(1, 1).assign(accuracy=[0.5, 0.98, 0.994], val_accuracy=[0.6, 0.985, 0.99])
    by_epoch = drawn(figures.accuracy_by_epoch(rows, {"m0": 0.99}, "title"))
    corrupted = pd.DataFrame(
        {"model": "nn", "corruption": "blur", "strength": [0, 1, 2], "accuracy": [0.994, 0.98, 0.1]}
    )
    robustness = drawn(figures.robustness(corrupted, {"blur": "pixels"}))

    for figure in (by_epoch, robustness):
        assert shares(figure.axes[0], 0.98, 0.994) > 0.1
        ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        assert {"90%", "99%"} <= set(ticks)


def test_curves_of_several_seeds_show_the_mean_and_the_spread() -> None:
    figure = drawn(figures.accuracy_by_epoch(curves(1, 3), {"m0": 0.88}, "title"))
    _, validation, _ = figure.axes[0].get_lines()
    _, band = figure.axes[0].collections

    assert np.asarray(validation.get_ydata()).tolist() == pytest.approx([0.81, 0.86, 0.91])
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.8, 0.92))


def test_models_of_a_family_differ_in_colour_and_marker() -> None:
    accuracy = {f"m{index}": 0.9 for index in range(8)}
    figure = drawn(figures.accuracy_by_epoch(curves(8, 1), accuracy, "title"))
    solid = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "-"]

    assert len({(line.get_color(), line.get_marker()) for line in solid}) == 8


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_leaderboard_shows_every_score_and_the_interval_of_the_mean(seeds: int) -> None:
    scores = judged(seeds).scores
    rows = pd.DataFrame(
        {
            "model": ["cnn", "nn"],
            "test_accuracy": [0.99, 0.98],
            "validation_accuracy": [0.991, 1.0],
        }
    )
    figure = drawn(figures.leaderboard(rows, scores, {"cnn": [0.992, 0.993]}))
    validation, test, published = figure.axes[0].collections

    assert np.asarray(test.get_offsets())[:, 0].tolist() == [0.99, 0.98]
    assert np.asarray(validation.get_offsets())[:, 0].tolist() == [0.991, 1.0]
    assert np.asarray(published.get_offsets())[:, 0].tolist() == [0.992, 0.993]
    bars = [np.asarray(line.get_xdata()).tolist() for line in figure.axes[0].get_lines()]
    intervals = [score.over_examples if seeds == 1 else score.over_seeds for score in scores]
    assert bars[:2] == [[interval.low, interval.high] for interval in intervals if interval]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    over = "examples" if seeds == 1 else "seeds"
    assert f"test: mean, 95 % interval over {over}" in labels


def test_the_axis_of_the_leaderboard_is_no_longer_than_its_scores() -> None:
    rows = pd.DataFrame(
        {"model": ["cnn", "nn"], "test_accuracy": [0.998, 0.93], "validation_accuracy": 0.95}
    )
    within = Interval(0.94, 0.99)
    scores = [replace(score, mean=0.95, over_examples=within) for score in judged(1).scores]
    figure = drawn(figures.leaderboard(rows, scores, {}))
    axes = figure.axes[0]

    places = [
        axes.transAxes.inverted().transform(axes.transData.transform((score, 0)))[0]
        for score in (0.93, 0.998)
    ]
    assert places == pytest.approx([0, 1], abs=0.1)


def test_a_significant_difference_is_filled() -> None:
    (pair,) = judged(4).pairs
    figure = drawn(figures.differences([pair]))
    bar, mark, _ = figure.axes[0].get_lines()

    assert pair.significant
    assert mark.get_markerfacecolor() == mark.get_color()
    assert np.asarray(bar.get_xdata()).tolist() == [
        100 * pair.difference.interval.low,
        100 * pair.difference.interval.high,
    ]


def test_robustness_has_one_panel_per_corruption_and_one_line_per_model() -> None:
    rows = pd.DataFrame(
        [
            (model, kind, strength, 0.9 - strength)
            for model in ("nn", "cnn")
            for kind in ("blur", "noise", "shift")
            for strength in (0.0, 0.1)
        ],
        columns=["model", "corruption", "strength", "accuracy"],
    )
    units = {"shift": "pixels", "blur": "pixels", "noise": "share"}
    figure = drawn(figures.robustness(rows, units))

    assert [axes.get_title() for axes in figure.axes if axes.axison] == ["shift", "blur", "noise"]
    first, second = figure.axes[0].get_lines()
    assert (first.get_label(), second.get_label()) == ("nn", "cnn")
    assert np.asarray(first.get_ydata()).tolist() == pytest.approx([0.9, 0.8])


def test_models_that_cost_more_and_score_less_are_off_the_pareto_line() -> None:
    costs = np.array([1.0, 2, 3, 4, 4])
    values = np.array([0.9, 0.95, 0.94, 0.99, 0.99])

    assert figures.pareto(costs, values).tolist() == [True, True, False, True, True]


def test_costs_shows_every_model_against_each_cost() -> None:
    rows = pd.DataFrame(
        {"model": ["lm", "nn"], "test_accuracy": [0.92, 1.0], "slow": [10, 20], "fast": [1, 2]}
    )
    figure = drawn(figures.costs(rows, {"slow": "microseconds", "fast": "microseconds"}))

    for axes in figure.axes:
        assert {"lm", "nn"} <= {line.get_label() for line in axes.get_lines()}
