"""Figures of one model: arrays and tables in, a matplotlib Figure out.

Colours are from seaborn's colour-blind palette; lines also differ in dash and marker, for print.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

COLOURS = seaborn.color_palette("colorblind")
MARKERS = "osD^vPX*"
SHEET_COLUMNS = 5  # images in a row


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def epoch_axis(axes: Axes) -> None:
    """Label the x axis with epochs, counted from 1, and draw a grid."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def loss_and_accuracy(history: pd.DataFrame, title: str) -> Figure:
    """Loss and accuracy side by side; training dashed, validation solid.

    Args:
        history: columns epoch (from 0), loss, val_loss, accuracy, val_accuracy.
        title: of the figure.
    """
    figure = new_figure(8, 3.5)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        epochs = history["epoch"] + 1
        axes.plot(epochs, history[quantity], "--o", color=COLOURS[0], label="training")
        axes.plot(epochs, history[f"val_{quantity}"], "-s", color=COLOURS[1], label="validation")
        axes.set_ylabel("loss (nats)" if quantity == "loss" else quantity)
        epoch_axis(axes)
        axes.legend()
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    figure.suptitle(title)
    return figure


def layer_table(layers: pd.DataFrame, title: str) -> Figure:
    """The layer table as a picture.

    Args:
        layers: columns layer, type, output_shape, parameters; one row per layer, input first.
        title: of the figure, which adds the sum of the parameters.
    """
    figure = new_figure(7, 0.8 + 0.3 * len(layers))
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
    """A confusion matrix, each row in per cent of the examples of its class.

    Args:
        matrix: numbers of examples; one row per actual class, one column per predicted class.
        title: the name of the model.
    """
    totals = matrix.sum(axis=1).to_numpy()[:, None]
    percent = 100 * matrix / np.maximum(totals, 1)
    side = 1.2 + 0.46 * len(matrix)
    figure = new_figure(side, side)
    axes = seaborn.heatmap(
        percent,
        ax=figure.subplots(),
        annot=True,
        fmt=".2f",
        cmap="Blues",
        norm=PowerNorm(0.4, 0, 100),  # makes one per cent of mistakes visible
        linewidths=0.5,
        annot_kws={"size": 7.5},
        cbar=False,
    )
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(f"{title}: test images, each row in per cent", fontsize="medium")
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
    """One image next to the probability of each class.

    Args:
        image: uint8 (height, width, channels).
        actual: index of the true class.
        probabilities: (classes,).
        classes: their names.
        title: of the figure.
    """
    figure = new_figure(7, 3.2)
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


def image_sheet(images: NDArray[np.uint8], captions: Sequence[str], title: str) -> Figure:
    """A sheet of images, each below its caption.

    Args:
        images: uint8 (n, height, width, channels); n may be 0.
        captions: one for each image.
        title: of the figure.
    """
    columns = SHEET_COLUMNS
    rows = max(1, -(-len(images) // columns))
    figure = new_figure(1.2 * columns, 0.5 + 1.5 * rows)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for cell in cells:
        cell.set_axis_off()
    for cell, image, caption in zip(cells, images, captions, strict=False):
        cell.set_axis_on()
        _show(cell, image)
        cell.set_title(caption, fontsize=8)
    figure.suptitle(title if len(images) else f"{title}: none")
    return figure


def mistake_captions(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], classes: Sequence[str]
) -> list[str]:
    """The label of each image, the class that it is taken for, and the model's confidence.

    Args:
        labels: (n,), the true classes.
        probabilities: (n, classes).
        classes: their names.
    """
    return [
        f"{classes[label]} taken for {classes[row.argmax()]}\n{row.max():.1%} confident"
        for label, row in zip(labels, probabilities, strict=True)
    ]


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The accuracy of each model against its confidence; on the diagonal, the two agree.

    The area of a mark grows with the number of examples in its bin.

    Args:
        tables: from metrics.reliability, by model.
    """
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure = new_figure(
        2.1 * columns if len(tables) > 1 else 4, 0.4 + (2.2 if rows > 1 else 3) * rows
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel in panels[len(tables) :]:
        panel.set_axis_off()
    for index, (name, table) in enumerate(tables.items()):
        panel = panels[index]
        panel.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        share = table["examples"] / table["examples"].sum()
        colour = COLOURS[index % len(COLOURS)]
        panel.plot(table["confidence"], table["accuracy"], color=colour, linewidth=1)
        panel.scatter(table["confidence"], table["accuracy"], 10 + 150 * share, color=colour)
        panel.set_title(name, fontsize="medium")
        panel.set_xlim(0, 1.03)
        panel.set_ylim(-0.03, 1.03)
        panel.xaxis.set_major_formatter(PercentFormatter(1))
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        panel.grid(alpha=0.3)
    figure.supxlabel("confidence", fontsize="medium")
    figure.supylabel("accuracy", fontsize="medium")
    return figure
