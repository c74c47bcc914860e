"""Every picture of the report: a comparison in, figures by name out."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from image_classification import comparison_figures, failures, figures, metrics
from image_classification.comparison import Comparison
from image_classification.corruptions import CORRUPTIONS

SHEET = 20  # images on a sheet
COST_AXES = {
    "microseconds_batch_1": "microseconds an image, one at a time",
    "microseconds_batch_256": "microseconds an image, 256 at once",
}


def family_picture(family: str) -> str:
    """The name of the picture of a family's accuracy by epoch."""
    return f"accuracy_{family.replace(' ', '_')}"


def draw(
    comparison: Comparison,
    curves: pd.DataFrame,
    images: NDArray[np.uint8],
    published: Mapping[str, Sequence[float]],
) -> Iterator[tuple[str, Figure]]:
    """Yield (name, figure).

    Args:
        comparison: what to show.
        curves: columns model, epoch, accuracy, val_accuracy; a row a training and epoch.
        images: uint8 (test examples, height, width, channels).
        published: test accuracies by model.
    """
    scores, means = comparison.verdict.scores, comparison.means().reset_index()
    rows = pd.DataFrame(comparison.entries)
    yield "leaderboard", comparison_figures.leaderboard(rows, scores, published)
    if comparison.verdict.pairs:
        yield "differences", comparison_figures.differences(comparison.verdict.pairs)
    yield "costs", comparison_figures.costs(means, COST_AXES)
    yield "robustness", _robustness(comparison)

    accuracy = {score.model: score.mean for score in scores}
    for family, models in comparison.families().items():
        chosen = curves[curves["model"].isin(models)]
        figure = comparison_figures.accuracy_by_epoch(chosen, accuracy, family)
        yield family_picture(family), figure

    reliability = {}
    for model, values in comparison.probabilities.items():
        labels = np.tile(comparison.labels, len(values))
        pooled = values.reshape(-1, len(comparison.classes))
        reliability[model] = metrics.reliability(labels, pooled)
        matrix = metrics.confusion_matrix(labels, pooled.argmax(axis=1), comparison.classes)
        yield f"confusion_{model}", figures.confusion_matrix(matrix, model)
    yield "reliability", figures.reliability(reliability)
    yield from _sheets(comparison, images)


def _robustness(comparison: Comparison) -> Figure:
    rows = pd.concat(
        [result.robustness.assign(model=result.model) for result in comparison.results]
    )
    units = {kind: corruption.unit for kind, corruption in CORRUPTIONS.items()}
    return comparison_figures.robustness(rows, units)


def _sheets(comparison: Comparison, images: NDArray[np.uint8]) -> Iterator[tuple[str, Figure]]:
    """The sheets of images."""
    classes, labels = comparison.classes, comparison.labels
    if len(comparison.probabilities) > 1:
        yield from _misses(comparison, images)

    doubted = comparison.label_errors[:SHEET]
    captions = [
        f"{row['example']}: label {row['label']}\nlooks like {row['suggested']}"
        for row in doubted.to_dict("records")
    ]
    chosen = doubted["example"].to_numpy(int)
    yield (
        "likely_label_errors",
        figures.image_sheet(images[chosen], captions, "Likely label errors"),
    )

    for model, values in comparison.probabilities.items():
        probabilities = values.mean(axis=0)
        worst = metrics.worst_mistakes(labels, probabilities, SHEET // 2)
        captions = figures.mistake_captions(labels[worst], probabilities[worst], classes)
        title = f"{model}: most confident mistakes"
        yield f"confident_mistakes_{model}", figures.image_sheet(images[worst], captions, title)


def _misses(comparison: Comparison, images: NDArray[np.uint8]) -> Iterator[tuple[str, Figure]]:
    """What all models miss, and what one alone does."""
    classes, labels, misses = comparison.classes, comparison.labels, comparison.misses
    shared = misses.shared[:SHEET]
    everyone = np.concatenate(list(comparison.probabilities.values()))
    together = failures.mistaken_for(labels, everyone)
    captions = [
        f"{index}: {classes[labels[index]]}\ntaken for {classes[together[index]]}"
        for index in shared
    ]
    yield "missed_by_all", figures.image_sheet(images[shared], captions, "Missed by every model")

    chosen: list[int] = []
    captions = []
    for model, indices in misses.alone.items():
        taken_for = failures.mistaken_for(labels, comparison.probabilities[model])
        for index in indices[: figures.SHEET_COLUMNS]:
            chosen.append(int(index))
            captions.append(
                f"{model} alone: {classes[labels[index]]}\ntaken for {classes[taken_for[index]]}"
            )
    title = "Missed by one model alone"
    yield "missed_by_one", figures.image_sheet(images[np.array(chosen, int)], captions, title)
