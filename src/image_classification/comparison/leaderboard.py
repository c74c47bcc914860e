"""The leaderboard: results in, ranked entries and a page of Markdown out.

`COLUMNS` lists all numbers of a run that are displayed. The leaderboard, the report and
the model cards take their columns from it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from image_classification.comparison.results import Result
from image_classification.core import paths
from image_classification.core.errors import UserError

Place = Literal["runs", "calibration", "costs", "card", "dvc"]
RANKED: tuple[Place, ...] = ("runs", "card", "dvc")  # that show the scores that decide first


@dataclass(frozen=True)
class Column:
    """A number of a run, and how it is displayed.

    key: of the number in metrics.json, costs.json or training.json.
    title: with the unit, if there is one.
    format: turns the number into the text that is shown.
    places: `runs`, the tables of all runs in leaderboard.md and in the report; `calibration` and
        `costs`, the tables of means in these sections of the report; `card`, the model cards;
        `dvc`, the metrics that DVC shows. The scores that decide are in all of `RANKED` anyway.
    """

    key: str
    title: str
    format: Callable[[float], str]
    places: tuple[Place, ...] = ()


def percent(share: float, digits: int = 2) -> str:
    """A share from 0 to 1 in per cent."""
    return f"{100 * share:.{digits}f} %"


_score, _count, _tenths = "{:.4f}".format, "{:,.0f}".format, "{:,.1f}".format

COLUMNS = (
    Column("parameters", "parameters", _count, ("runs", "costs", "card")),
    Column("validation_accuracy", "validation accuracy", _score, ("runs", "card", "dvc")),
    Column("validation_loss", "validation loss, nats", _score),
    Column("test_accuracy", "test accuracy", _score, ("runs", "card", "dvc")),
    Column("validation_balanced_accuracy", "validation balanced accuracy", _score),
    Column("test_balanced_accuracy", "test balanced accuracy", _score, ("runs", "card")),
    Column("validation_f1_macro", "validation macro F1", _score),
    Column("test_f1_macro", "test macro F1", _score, ("runs", "card")),
    Column("test_precision", "precision, weighted", _score, ("runs", "card")),
    Column("test_recall", "recall, weighted", _score, ("runs", "card")),
    Column("test_loss", "negative log-likelihood, nats", _score, ("calibration", "card", "dvc")),
    Column("test_brier", "Brier score", _score, ("calibration", "card")),
    Column(
        "test_calibration_error", "expected calibration error", percent, ("calibration", "card")
    ),
    Column("epochs", "epochs", _count, ("runs", "card")),
    Column("fit_seconds", "fit seconds", _tenths, ("runs", "costs", "card", "dvc")),
    Column("model_bytes", "size, MB", lambda size: f"{size / 1e6:.2f}", ("costs", "card")),
    Column("microseconds_batch_1", "µs per image, one at a time", _count, ("costs", "card")),
    Column("microseconds_batch_256", "µs per image, batches of 256", _tenths, ("costs", "card")),
)


def columns(place: Place, metric: str = "accuracy") -> list[Column]:
    """The columns that are shown in a place, in the order of `COLUMNS`.

    In `RANKED` places the scores by the metric that decides come first.
    """
    deciding = [f"validation_{metric}", f"test_{metric}"] if place in RANKED else []
    first = [column for column in COLUMNS if column.key in deciding]
    return first + [column for column in COLUMNS if place in column.places and column not in first]


@dataclass(frozen=True)
class Entry:
    """One run.

    values: the numbers of `COLUMNS`, by key.
    key: of the run; its id in every MLflow store, while `name` is that of its folders.
    published_test_accuracy: from 0 to 1, one for each published run of the model.
    """

    model: str
    seed: int
    values: dict[str, float]
    key: str
    published_test_accuracy: Sequence[float] = ()

    @property
    def name(self) -> str:
        """The run's name, which is also that of its folders."""
        return paths.run_name(self.model, self.seed)

    def row(self) -> dict[str, Any]:
        """The entry without nesting, as in leaderboard.json."""
        return {
            "model": self.model,
            "seed": self.seed,
            **self.values,
            "run": self.key,
            "published_test_accuracy": self.published_test_accuracy,
        }


def entry(result: Result, published: Mapping[str, Sequence[float]]) -> Entry:
    """The entry of a run.

    Args:
        result: of the run.
        published: test accuracies from 0 to 1, by model.

    Raises:
        UserError: the result lacks a number of `COLUMNS`; names the run.
    """
    numbers = result.numbers()
    missing = [column.key for column in COLUMNS if column.key not in numbers]
    if missing:
        name = paths.run_name(result.model, result.seed)
        raise UserError(f"the results of {name} lack {missing[0]}: run `dvc repro`")
    return Entry(
        model=result.model,
        seed=result.seed,
        values={column.key: numbers[column.key] for column in COLUMNS},
        key=result.training["run"],
        published_test_accuracy=published.get(result.model, ()),
    )


def ranked(entries: Iterable[Entry], metric: str = "accuracy") -> list[Entry]:
    """Best model first, and the best run of each model first; the very first is the candidate.

    Models rank by the mean validation score of their runs, then by the mean validation loss. By
    its best run alone, a lucky model would rank above a better one. Test scores do not count.

    Args:
        entries: in any order.
        metric: that scores, one of `contributions.METRICS`.
    """
    entries, score = list(entries), f"validation_{metric}"
    ranks = {
        model: (
            -fmean(entry.values[score] for entry in runs),
            fmean(entry.values["validation_loss"] for entry in runs),
            model,
        )
        for model, runs in by_model(entries).items()
    }
    return sorted(
        entries,
        key=lambda entry: (
            ranks[entry.model],
            -entry.values[score],
            entry.values["validation_loss"],
        ),
    )


def by_model(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The entries of each model, both in the order given."""
    grouped: dict[str, list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(entry.model, []).append(entry)
    return grouped


def metrics(entries: Iterable[Entry], metric: str = "accuracy") -> dict[str, dict[str, float]]:
    """The metrics that DVC shows, by the name of the run."""
    return {
        entry.name: {column.key: entry.values[column.key] for column in columns("dvc", metric)}
        for entry in entries
    }


def markdown(
    entries: Sequence[Entry],
    title: str,
    note: str,
    addresses: Mapping[str, str],
    metric: str = "accuracy",
    below: str = "",
) -> str:
    """The leaderboard as a page.

    Args:
        entries: in the order to show; the first is the best.
        title: of the page.
        note: a line on how the results were obtained.
        addresses: of MLflow's pages of the runs, by the runs' keys; `references` has to follow.
        metric: that decides.
        below: a line under the table.
    """
    shown = columns("runs", metric)
    heads = ["run", *(column.title for column in shown), "published test accuracy", "MLflow run"]
    lines = [
        f"# {title}",
        "",
        f"Best by validation: **{entries[0].name}**. {note}",
        "",
        _line(heads),
        "|".join(["", "---", *["--:"] * (len(shown) + 1), "---", ""]),
    ]
    for entry in entries:
        numbers = [column.format(entry.values[column.key]) for column in shown]
        published = ", ".join(map(_score, entry.published_test_accuracy)) or "-"
        run = f"[{run_id(addresses[entry.key])}]" if entry.key in addresses else "-"
        lines.append(_line([entry.name, *numbers, published, run]))
    if below:
        lines += ["", below]
    return "\n".join(lines) + "\n"


def references(addresses: Iterable[str]) -> str:
    """What the run ids in `markdown` link to: the end of the page."""
    return "".join(f"[{run_id(address)}]: {address}\n" for address in addresses)


def run_id(address: str) -> str:
    """The id of a run in MLflow, from the address of its page."""
    return address.rpartition("/")[2]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
