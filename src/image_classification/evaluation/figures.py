"""Figures of one model: arrays and tables in, a matplotlib Figure out.

Colours are from seaborn's colour-blind palette; lines also differ in dash and marker, for print.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from image_classification.evaluation.captions import LINE, shortened

COLOURS = seaborn.color_palette("colorblind")
MARKERS = "osD^vPX*"
MOST_LAYERS = 60  # rows of a layer table; of more, the first and the last
SHEET_COLUMNS = 5  # images in a row
LONGEST_NAME = 18  # characters of a class beside an axis
MOST_BARS = 10  # classes beside an example
MOST_NUMBERED = 20  # classes of a confusion matrix that has a number in each cell
LARGEST_SIDE = 12.0  # inches of a confusion matrix
STRETCHED_TOWARDS_1 = "(stretched towards 100 %)"
ACCURACY = f"accuracy {STRETCHED_TOWARDS_1}"
LOWEST, HIGHEST = 0.05, 0.0005  # how far a stretched axis extends beyond 0 and 1
FEWEST_TICKS = 3
TICKS = (  # of such an axis, from coarse to fine
    (0.1, 0.5, 0.9, 0.99, 0.999),
    (0, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999),
    (
        *(0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96),
        *(0.97, 0.98, 0.985, 0.99, 0.992, 0.994, 0.996, 0.998, 0.999),
    ),
)


def _stretch(accuracy: NDArray[np.floating]) -> NDArray[np.floating]:
    """Nearly a logit: 90 % and 99 % are about as far apart as 99 % and 99.9 %."""
    accuracy = np.clip(accuracy, -LOWEST + 1e-6, 1 + HIGHEST - 1e-6)
    return np.asarray(np.log10((LOWEST + accuracy) / (1 + HIGHEST - accuracy)))


def _shrink(place: NDArray[np.floating]) -> NDArray[np.floating]:
    odds = 10 ** np.asarray(place)
    return np.asarray(((1 + HIGHEST) * odds - LOWEST) / (1 + odds))


STRETCHED = (_stretch, _shrink)  # matplotlib's `functions` of a scale for accuracies from 0 to 1


def accuracy_ticks(axis: Axis, limits: tuple[float, float]) -> None:
    """Ticks in per cent on a stretched axis: the fewest that tell its values apart.

    Args:
        axis: of accuracies from 0 to 1.
        limits: of the axis.
    """
    low, high = max(0.0, min(limits)), min(1.0, max(limits))
    for ticks in TICKS:
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) >= FEWEST_TICKS:
            break
    shown = shown if len(shown) > 1 else [low, high]
    axis.set_ticks(shown, [f"{round(100 * tick, 2):g}%" for tick in shown])
    axis.set_minor_locator(NullLocator())


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def plain(text: str) -> str:
    """A text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


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
    rows = [[*row[:-1], f"{row[-1]:,}"] for row in layers.itertuples(index=False)]
    left_out = len(rows) - MOST_LAYERS
    if left_out > 0:  # the rest is in the table of the run
        half = MOST_LAYERS // 2
        rows[half:-half] = [[f"… {left_out} more …", "", "", ""]]
    figure = new_figure(7, 0.8 + 0.3 * len(rows))
    axes = figure.subplots()
    axes.set_axis_off()
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

    Up to `MOST_NUMBERED` classes the cells hold numbers; with more, a bar explains their colours,
    and of hundreds of classes some are named.

    Args:
        matrix: numbers of examples; one row per actual class, one column per predicted class.
        title: the name of the model.
    """
    totals = matrix.sum(axis=1).to_numpy()[:, None]
    percent = 100 * matrix / np.maximum(totals, 1)
    names = [shortened(str(name), LONGEST_NAME) for name in matrix.index]
    numbered = len(names) <= MOST_NUMBERED
    for_names = 0.085 * max(0, max(map(len, names)) - 2)
    cells = 0.46 * len(names) if numbered else min(0.16 * len(names), LARGEST_SIDE - 3.4)
    cells = max(cells, 1.4)
    side = 1.2 + cells + for_names
    figure = new_figure(side if numbered else side + 0.6, side)
    axes = seaborn.heatmap(
        percent,
        ax=figure.subplots(),
        annot=numbered,
        fmt=".2f",
        cmap="Blues",
        norm=PowerNorm(0.4, 0, 100),  # makes one per cent of mistakes visible
        linewidths=0.5 if numbered else 0,
        annot_kws={"size": 7.5},
        cbar=not numbered,
        cbar_kws={"shrink": 0.5, "ticks": [0, 1, 5, 20, 50, 100], "format": "%g %%"},
        square=not numbered,
        xticklabels=False,
        yticklabels=False,
    )
    _name_cells(axes, names, points=72 * cells / len(names), upright=numbered)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    text = f"{title}: test images, each row in per cent"
    axes.set_title(text if cells > 3 else text.replace(", ", ",\n"), fontsize="medium")
    return figure


def _name_cells(axes: Axes, names: Sequence[str], points: float, upright: bool) -> None:
    """Name rows and columns in a size that fits their height in points, or every so many."""
    size = min(10.0, 0.8 * points) if points >= 6 else 6.0
    every = max(1, math.ceil(size / points))
    shown = range(0, len(names), every)
    places = [index + 0.5 for index in shown]
    texts = [plain(names[index]) for index in shown]
    upright = upright and max(map(len, names)) * 0.6 * size < points
    axes.set_xticks(places, texts, rotation=0 if upright else 90, fontsize=size)
    axes.set_yticks(places, texts, rotation=0, fontsize=size)


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    """The pixels as they are: 0 is black."""
    coloured = image.shape[-1] in (3, 4)
    axes.imshow(image if coloured else image[..., 0], cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])


def example_prediction(
    image: NDArray[np.uint8],
    actual: int,
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    title: str,
) -> Figure:
    """One image next to the probability of each class, or of the `MOST_BARS` most probable.

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
    names = [shortened(name, LONGEST_NAME) for name in classes]
    both = f"actual {names[actual]}, predicted {names[predicted]}"
    if len(both) <= LINE:
        picture.set_title(plain(both))
    else:
        picture.set_title(plain(both).replace(", predicted", "\npredicted"), fontsize="small")
    shown = range(len(classes))
    if len(classes) > MOST_BARS:
        shown = np.argsort(-probabilities, kind="stable")[:MOST_BARS].tolist()
    colours = [COLOURS[1] if index == predicted else "0.7" for index in shown]
    bars.barh(range(len(shown)), probabilities[list(shown)], color=colours)
    bars.set_yticks(range(len(shown)), [plain(names[index]) for index in shown])
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
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    longest = max((len(line) for caption in captions for line in caption.split("\n")), default=1)
    figure = new_figure(1.2 * columns, 0.5 + (1.2 + 0.15 * max(2, lines)) * rows)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for cell in cells:
        cell.set_axis_off()
    for cell, image, caption in zip(cells, images, captions, strict=False):
        cell.set_axis_on()
        _show(cell, image)
        size = min(8.0, 136 / max(longest, 1))  # as wide as the image
        cell.set_title(plain(caption), fontsize=size)
    figure.suptitle(title if len(images) else f"{title}: none")
    return figure


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The accuracy of each model against its confidence; on the diagonal, the two agree.

    The area of a marker grows with the number of examples in its bin.

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
    shown = [
        table[column].min() for table in tables.values() for column in ("confidence", "accuracy")
    ]
    lowest = max(0.0, min(0.5, *shown) - 0.03)
    for index, (name, table) in enumerate(tables.items()):
        panel = panels[index]
        panel.plot([lowest, 1], [lowest, 1], color="0.6", linewidth=1)
        share = table["examples"] / table["examples"].sum()
        colour = COLOURS[index % len(COLOURS)]
        panel.plot(table["confidence"], table["accuracy"], color=colour, linewidth=1)
        panel.scatter(
            table["confidence"], table["accuracy"], 10 + 150 * share, color=colour, clip_on=False
        )
        panel.set_title(name, fontsize="medium")
        panel.set_xscale("function", functions=STRETCHED)
        panel.set_yscale("function", functions=STRETCHED)
        panel.set_xlim(lowest, 1)
        panel.set_ylim(lowest, 1)
        accuracy_ticks(panel.xaxis, (lowest, 1))
        accuracy_ticks(panel.yaxis, (lowest, 1))
        panel.tick_params("x", labelsize="x-small")
        panel.grid(alpha=0.3)
    figure.supxlabel("confidence (stretched towards 100 %)", fontsize="medium")
    figure.supylabel(ACCURACY, fontsize="medium")
    return figure
