"""The pictures of the report: a comparison in; figures with their sections, texts and names out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from image_classification.comparison import error_analysis, leaderboard, verdict_text
from image_classification.comparison.leaderboard import percent
from image_classification.comparison.summary import Comparison
from image_classification.evaluation import corruptions, metrics
from image_classification.evaluation.captions import caption_line, mistake_captions, with_files
from image_classification.evaluation.figures import (
    SHEET_COLUMNS,
    confusion_matrix,
    image_sheet,
    reliability,
)
from image_classification.reporting import figures

SHEET = 20  # images on a sheet
COST_AXES = ("microseconds_batch_1", "microseconds_batch_256")  # columns of the leaderboard
DIFFERENT_MACHINES = "The runs were timed on different machines, so their times are not comparable."

Section = Literal[
    "verdict",
    "leaderboard",
    "curves",
    "confusion",
    "misses",
    "mistakes",
    "label_errors",
    "calibration",
    "robustness",
    "costs",
    "data",
    "near_duplicates",
]
Pictures = Iterator[tuple["Picture", Figure]]


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    section: of the page; its pictures stand there in the order in which `draw` yields them.
    name: of the file, without its suffix.
    alt: the text in place of the picture.
    caption: below the picture.
    photo: whether it shows images, which keep their colours on a dark page.
    """

    section: Section
    name: str
    alt: str
    caption: str = ""
    photo: bool = False


def draw(
    comparison: Comparison,
    curves: pd.DataFrame,
    images: NDArray[np.uint8],
    published: Mapping[str, Sequence[float]],
) -> Pictures:
    """Yield every picture of the report with its figure.

    Args:
        comparison: what to show.
        curves: columns model, epoch, accuracy, val_accuracy, loss, val_loss; one row per run and
            epoch.
        images: uint8 (test examples, height, width, channels).
        published: test accuracies from 0 to 1, by model.
    """
    yield from _scores(comparison, published)
    yield from _curves(comparison, curves)
    yield from _confusion(comparison)
    if len(comparison.probabilities) > 1:
        yield from _misses(comparison, images)
    yield from _mistakes(comparison, images)
    if len(comparison.label_errors):
        yield _label_errors(comparison, images)
    yield _calibration(comparison)
    yield _robustness(comparison)
    yield _costs(comparison)


def _scores(comparison: Comparison, published: Mapping[str, Sequence[float]]) -> Pictures:
    judged = comparison.verdict
    name = verdict_text.metric_name(judged)
    if judged.pairs:
        interval = verdict_text.interval_name(judged)
        yield (
            Picture(
                "verdict",
                "differences",
                f"Difference of test {name} of each pair with its {interval}. "
                + verdict_text.headline(judged),
                f"Differences of mean test {name} in points, with {interval}s.",
            ),
            figures.differences(judged.pairs, judged.metric),
        )
    means = ", ".join(f"{score.model} {percent(score.mean)}" for score in judged.scores)
    yield (
        Picture(
            "leaderboard",
            "leaderboard",
            f"Mean test {name}: {means}.",
            "Each run on validation and on test"
            + (", and the published results." if judged.metric == "accuracy" else "."),
        ),
        figures.leaderboard(
            pd.DataFrame([entry.row() for entry in comparison.entries]),
            judged.scores,
            published if judged.metric == "accuracy" else {},
            judged.metric,
        ),
    )


def _curves(comparison: Comparison, curves: pd.DataFrame) -> Pictures:
    means = comparison.means()
    accuracy, loss = (
        {str(model): float(mean) for model, mean in means[column].items()}
        for column in ("test_accuracy", "test_loss")
    )
    for family, models in comparison.families().items():
        chosen, name = curves[curves["model"].isin(models)], family.replace(" ", "_")
        yield (
            Picture(
                "curves",
                f"accuracy_{name}",
                f"Training, validation and test accuracy against the epoch: {family}.",
            ),
            figures.accuracy_by_epoch(chosen, accuracy, family),
        )
        yield (
            Picture(
                "curves",
                f"loss_{name}",
                f"Training, validation and test loss against the epoch: {family}.",
            ),
            figures.loss_by_epoch(chosen, loss, family),
        )


def _confusion(comparison: Comparison) -> Pictures:
    for score in comparison.verdict.scores:
        labels, probabilities = _pooled(comparison, score.model)
        predicted = probabilities.argmax(axis=1)
        mistakes = float((predicted != labels).mean())
        matrix = metrics.confusion_matrix(labels, predicted, comparison.classes)
        yield (
            Picture(
                "confusion",
                f"confusion_{score.model}",
                f"Confusion matrix of {score.model}: {percent(mistakes)} of the test images "
                "are off the diagonal.",
            ),
            confusion_matrix(matrix, score.model),
        )


def _calibration(comparison: Comparison) -> tuple[Picture, Figure]:
    tables = {
        model: metrics.reliability(*_pooled(comparison, model))
        for model in comparison.probabilities
    }
    picture = Picture(
        "calibration",
        "reliability",
        "Reliability diagrams: the accuracy of each model against its confidence.",
    )
    return picture, reliability(tables)


def _pooled(comparison: Comparison, model: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Labels (n,) and probabilities (n, classes) of all runs of a model, one after the other."""
    probabilities = comparison.probabilities[model]
    labels = np.tile(comparison.labels, len(probabilities))
    return labels, probabilities.reshape(-1, len(comparison.classes))


def _misses(comparison: Comparison, images: NDArray[np.uint8]) -> Pictures:
    """The images that all models miss, and those that only one misses."""
    classes, labels, misses = comparison.classes, comparison.labels, comparison.misses
    shared = misses.shared[:SHEET]
    everyone = np.concatenate(list(comparison.probabilities.values()))
    together = error_analysis.mistaken_for(labels, everyone)
    captions = [
        caption_line(f"{index}: ", classes[labels[index]])
        + "\n"
        + caption_line("taken for ", classes[together[index]])
        for index in shared
    ]
    captions = with_files(captions, _files(comparison, shared))
    yield (
        Picture(
            "misses",
            "missed_by_all",
            "Test images that every model misses, each with its label and the class that it is "
            "most often taken for.",
            photo=True,
        ),
        image_sheet(images[shared], captions, "Missed by every model"),
    )

    chosen: list[int] = []
    captions = []
    for model, indices in misses.alone.items():
        taken_for = error_analysis.mistaken_for(labels, comparison.probabilities[model])
        for index in indices[:SHEET_COLUMNS]:
            chosen.append(int(index))
            captions.append(
                caption_line(f"only {model}: ", classes[labels[index]])
                + "\n"
                + caption_line("taken for ", classes[taken_for[index]])
            )
    captions = with_files(captions, _files(comparison, chosen))
    yield (
        Picture(
            "misses",
            "missed_by_one",
            "Test images that only one model misses, each with the model, its label and the class "
            "that it is taken for.",
            photo=True,
        ),
        image_sheet(images[np.array(chosen, int)], captions, "Missed by only one model"),
    )


def _mistakes(comparison: Comparison, images: NDArray[np.uint8]) -> Pictures:
    labels = comparison.labels
    for score in comparison.verdict.scores:
        probabilities = comparison.probabilities[score.model].mean(axis=0)
        worst = metrics.worst_mistakes(labels, probabilities, SHEET // 2)
        captions = mistake_captions(
            labels[worst], probabilities[worst], comparison.classes, _files(comparison, worst)
        )
        yield (
            Picture(
                "mistakes",
                f"confident_mistakes_{score.model}",
                f"The most confident mistakes of {score.model}, each with its label, the class "
                "that it is taken for, and how confident the model is.",
                photo=True,
            ),
            image_sheet(images[worst], captions, f"{score.model}: most confident mistakes"),
        )


def _label_errors(comparison: Comparison, images: NDArray[np.uint8]) -> tuple[Picture, Figure]:
    doubted = comparison.label_errors[:SHEET]
    captions = [
        caption_line(f"{row['example']}: label ", row["label"])
        + "\n"
        + caption_line("looks like ", row["suggested"])
        for row in doubted.to_dict("records")
    ]
    captions = with_files(captions, _files(comparison, doubted["example"]))
    picture = Picture(
        "label_errors",
        "likely_label_errors",
        "Test images whose label is doubtful, each with its label and the suggested class.",
        photo=True,
    )
    chosen = images[doubted["example"].to_numpy(int)]
    return picture, image_sheet(chosen, captions, "Likely label errors")


def _files(comparison: Comparison, examples: Iterable[int]) -> list[str]:
    """The names of the examples' files; none for data without files."""
    return [comparison.names[int(index)] for index in examples] if comparison.names else []


def _robustness(comparison: Comparison) -> tuple[Picture, Figure]:
    rows = pd.concat(
        [result.robustness.assign(model=result.model) for result in comparison.results]
    )
    units = {kind: corruption.unit for kind, corruption in corruptions.CORRUPTIONS.items()}
    corrupted = len(corruptions.sample(comparison.verdict.examples))
    bands = "; bands from the lowest to the highest run" if comparison.verdict.runs > 1 else ""
    picture = Picture(
        "robustness",
        "robustness",
        "Accuracy against the strength of each corruption, one line per model.",
        f"Accuracy on {corrupted:,} evenly spaced test images, from clean (0) to strongly "
        f"corrupted{bands}.",
    )
    return picture, figures.robustness(rows, units)


def _costs(comparison: Comparison) -> tuple[Picture, Figure]:
    titles = {column.key: column.title for column in leaderboard.COLUMNS}
    name = verdict_text.metric_name(comparison.verdict)
    machines = {result.costs["machine"] for result in comparison.results}
    timed = f"Timed on {machines.pop()}." if len(machines) == 1 else DIFFERENT_MACHINES
    picture = Picture(
        "costs",
        "costs",
        f"Test {name} against the time per image, one at a time and in batches of 256; a line "
        f"joins the models that no other beats in both {name} and time.",
        f"The line joins the models that no other beats in both {name} and time. {timed}",
    )
    means = comparison.means().reset_index()
    axes = {key: titles[key] for key in COST_AXES}
    return picture, figures.costs(means, axes, comparison.verdict.metric)
