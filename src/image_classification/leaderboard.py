"""The leaderboard: entries in, ranks and a page of Markdown out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from image_classification import paths


@dataclass(frozen=True)
class Entry:
    """One training; accuracy, precision and recall are from 0 to 1, the averages weighted."""

    model: str
    seed: int
    parameters: int
    validation_accuracy: float
    validation_loss: float  # nats
    test_accuracy: float
    test_precision: float
    test_recall: float
    epochs: int
    fit_seconds: float
    run_id: str
    version: int  # of the registered model
    published_test_accuracy: Sequence[float] = ()  # one a published training of the model

    @property
    def name(self) -> str:
        """The training's name, as its folders and its run bear it."""
        return paths.training_name(self.model, self.seed)


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Best first, by validation accuracy, then validation loss; test scores take no part."""
    return sorted(entries, key=lambda entry: (-entry.validation_accuracy, entry.validation_loss))


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
        "| precision | recall | epochs | fit seconds | version | run |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for entry in entries:
        scores = ", ".join(f"{score:.4f}" for score in entry.published_test_accuracy) or "-"
        lines.append(
            f"| {entry.name} | {entry.parameters:,} | {entry.validation_accuracy:.4f} "
            f"| {entry.test_accuracy:.4f} | {scores} "
            f"| {entry.test_precision:.4f} | {entry.test_recall:.4f} | {entry.epochs} "
            f"| {entry.fit_seconds:.1f} | {entry.version} | `{entry.run_id}` |"
        )
    return "\n".join(lines) + "\n"
