"""The leaderboard: entries in, ranks and a page of Markdown out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from image_classification import paths


@dataclass(frozen=True)
class Entry:
    """One training; accuracy, precision, recall and calibration error are from 0 to 1.

    Precision and recall are averages weighted by the classes' examples.
    """

    model: str
    seed: int
    parameters: int
    validation_accuracy: float
    validation_loss: float  # nats
    test_accuracy: float
    test_precision: float
    test_recall: float
    test_loss: float  # nats: the mean negative log-likelihood
    test_brier: float  # 0 to 2
    test_calibration_error: float
    epochs: int
    fit_seconds: float
    model_bytes: int  # of the file
    microseconds_batch_1: float  # an image, in batches of so many
    microseconds_batch_256: float
    run: str  # the name of its run: the tag `run.key` in MLflow
    published_test_accuracy: Sequence[float] = ()  # one a published training of the model

    @property
    def name(self) -> str:
        """The training's name, as its folders and its run bear it."""
        return paths.training_name(self.model, self.seed)


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Best model first, and of each model its best training first; test scores take no part.

    Models rank by the mean validation accuracy of their trainings, then the mean validation loss: a
    model that won one draw among many would otherwise stand above the better one.
    """
    entries = list(entries)
    trainings: dict[str, list[Entry]] = {}
    for entry in entries:
        trainings.setdefault(entry.model, []).append(entry)
    ranks = {
        model: (
            -fmean(entry.validation_accuracy for entry in members),
            fmean(entry.validation_loss for entry in members),
            model,
        )
        for model, members in trainings.items()
    }
    return sorted(
        entries,
        key=lambda entry: (ranks[entry.model], -entry.validation_accuracy, entry.validation_loss),
    )


def best_by_model(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The first entry of each model; of entries that are `ranked`, its best."""
    best: dict[str, Entry] = {}
    for entry in entries:
        best.setdefault(entry.model, entry)
    return best


def markdown(entries: Sequence[Entry], title: str, note: str) -> str:
    """The leaderboard as a page.

    Args:
        entries: in the order they shall stand; the first is the champion.
        title: of the page.
        note: a line on how the results were obtained.
    """
    lines = [
        f"# {title}",
        "",
        f"Champion by validation: **{entries[0].name}**. {note}",
        "",
        "| training | parameters | validation accuracy | test accuracy | published test accuracy "
        "| precision | recall | epochs | fit seconds | run |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for entry in entries:
        scores = ", ".join(f"{score:.4f}" for score in entry.published_test_accuracy) or "-"
        lines.append(
            f"| {entry.name} | {entry.parameters:,} | {entry.validation_accuracy:.4f} "
            f"| {entry.test_accuracy:.4f} | {scores} "
            f"| {entry.test_precision:.4f} | {entry.test_recall:.4f} | {entry.epochs} "
            f"| {entry.fit_seconds:.1f} | `{entry.run}` |"
        )
    return "\n".join(lines) + "\n"
