"""Figures: arrays and tables in, a matplotlib Figure out.

Colours are seaborn's colour-blind palette; lines also differ in dash and marker, for print.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

COLOURS = seaborn.color_palette("colorblind")
MARKERS = "osD^vPX*"


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def accuracy_by_epoch(
    histories: Mapping[str, pd.DataFrame], test_accuracy: Mapping[str, float], title: str
) -> Figure:
    """Accuracy against epoch: training dashed, validation solid, test a dotted horizontal line.

    Args:
        histories: by the name of the training; columns epoch (from 0), accuracy, val_accuracy.
        test_accuracy: by the same names, from 0 to 1.
        title: of the figure.
    """
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    for index, (name, history) in enumerate(histories.items()):
        style = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        epochs = history["epoch"] + 1
        axes.plot(epochs, history["accuracy"], "--", **style, label=f"{name} training")
        axes.plot(epochs, history["val_accuracy"], "-", **style, label=f"{name} validation")
        label = f"{name} test {test_accuracy[name]:.2%}"
        axes.axhline(test_accuracy[name], linestyle=":", color=style["color"], label=label)
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.set_title(title)
    _epoch_axis(axes)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def loss_and_accuracy(history: pd.DataFrame, title: str) -> Figure:
    """Loss and accuracy side by side, training dashed, validation solid.

    Args:
        history: columns epoch (from 0), loss, val_loss, accuracy, val_accuracy.
        title: of the figure.
    """
    figure = _figure(8, 3.5)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        epochs = history["epoch"] + 1
        axes.plot(epochs, history[quantity], "--o", color=COLOURS[0], label="training")
        axes.plot(epochs, history[f"val_{quantity}"], "-s", color=COLOURS[1], label="validation")
        axes.set_ylabel("loss (nats)" if quantity == "loss" else quantity)
        _epoch_axis(axes)
        axes.legend()
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    figure.suptitle(title)
    return figure


def layer_table(layers: pd.DataFrame, title: str) -> Figure:
    """The layer table as a picture.

    Args:
        layers: columns layer, type, output_shape, parameters; a row a layer, from input to output.
        title: of the figure; the sum of the parameters is added.
    """
    figure = _figure(7, 0.8 + 0.3 * len(layers))
    axes = figure.subplots()
    axes.set_axis_off()
    rows = [[*row[:-1], f"{row[-1]:,}"] for row in layers.itertuples(index=False)]
    table = axes.table(
        rows,
        colLabels=["layer", "type", "output shape", "parameters"],
        colWidths=[0.3, 0.3, 0.22, 0.18],
        cellLoc="left",
        bbox=Bbox.unit(),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("0.8")
        if row == 0:
            cell.set_text_props(weight="bold")
            cell.set_facecolor("0.93")
        if column == 3:
            cell.set_text_props(ha="right")
    axes.set_title(f"{title}: {layers['parameters'].sum():,} parameters")
    return figure


def confusion_matrix(matrix: pd.DataFrame, title: str) -> Figure:
    """A confusion matrix: each row, an actual class, in per cent of its examples.

    Args:
        matrix: numbers of examples; a row an actual class, a column a predicted one.
        title: of the figure.
    """
    totals = matrix.sum(axis=1).to_numpy()[:, None]
    percent = 100 * matrix / np.maximum(totals, 1)
    side = 2 + 0.65 * len(matrix)
    figure = _figure(side, side - 0.5)
    axes = seaborn.heatmap(
        percent,
        ax=figure.subplots(),
        annot=True,
        fmt=".2f",
        cmap="Blues",
        vmin=0,
        vmax=100,
        linewidths=0.5,
        annot_kws={"size": 8},
        cbar_kws={"label": "per cent of the actual class"},
    )
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(f"{title}: test images, each row in per cent")
    return figure


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    axes.imshow(image.squeeze(), cmap="gray_r", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])


def example_prediction(
    image: NDArray[np.uint8],
    actual: int,
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    title: str,
) -> Figure:
    """One image beside the probability of each class.

    Args:
        image: uint8 (height, width, channels).
        actual: index of the true class.
        probabilities: (classes,).
        classes: their names.
        title: of the figure.
    """
    figure = _figure(7, 3.2)
    picture, bars = figure.subplots(1, 2, width_ratios=[1, 1.5])
    _show(picture, image)
    predicted = int(probabilities.argmax())
    picture.set_title(f"actual {classes[actual]}, predicted {classes[predicted]}")
    colours = [COLOURS[1] if index == predicted else "0.7" for index in range(len(classes))]
    bars.barh(list(classes), probabilities, color=colours)
    bars.invert_yaxis()
    bars.set_xlim(0, 1)
    bars.xaxis.set_major_formatter(PercentFormatter(1))
    bars.set_xlabel("probability")
    bars.set_ylabel("class")
    figure.suptitle(title)
    return figure


def mistakes(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    title: str,
) -> Figure:
    """A sheet of misclassified images, each with its classes and the model's confidence.

    Args:
        images: uint8 (n, height, width, channels), n from 0.
        labels: (n,), the true classes.
        probabilities: (n, classes).
        classes: their names.
        title: of the figure.
    """
    columns = 5
    rows = max(1, -(-len(images) // columns))
    figure = _figure(1.7 * columns, 0.6 + 1.8 * rows)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for cell in cells:
        cell.set_axis_off()
    for cell, image, label, row in zip(cells, images, labels, probabilities, strict=False):
        predicted = int(row.argmax())
        cell.set_axis_on()
        _show(cell, image)
        cell.set_title(
            f"{classes[label]} taken for {classes[predicted]}\n{row[predicted]:.1%} sure",
            fontsize=8,
        )
    figure.suptitle(f"{title}: worst mistakes on test" if len(images) else f"{title}: no mistake")
    return figure


def leaderboard(rows: pd.DataFrame, published: Mapping[str, Sequence[float]]) -> Figure:
    """Test and validation accuracy of each training, and what was published for its model.

    Args:
        rows: columns model, seed, test_accuracy, validation_accuracy.
        published: test accuracies by model, one a published training.
    """
    figure = _figure(7, 1.6 + 0.45 * rows["model"].nunique())
    axes = figure.subplots()
    models = list(dict.fromkeys(rows["model"]))
    heights = rows["model"].map(models.index)
    for column, marker, colour, offset in (
        ("validation_accuracy", "s", COLOURS[1], -0.15),
        ("test_accuracy", "o", COLOURS[0], 0),
    ):
        label = column.replace("_", " ")
        axes.scatter(rows[column], heights + offset, marker=marker, color=colour, label=label)
    reported = [(score, models.index(m)) for m in models for score in published.get(m, [])]
    if reported:
        scores, positions = zip(*reported, strict=True)
        axes.scatter(
            scores, np.add(positions, 0.15), marker="|", s=90, color="0.2", label="published test"
        )
    axes.set_yticks(range(len(models)), models)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.set_xlabel("accuracy")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure
