from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from image_classification.comparison import leaderboard
from image_classification.comparison.leaderboard import COLUMNS, RANKED, Entry, Place
from image_classification.comparison.results import Result
from image_classification.core.config import METRICS
from image_classification.core.errors import UserError

PLACES: tuple[Place, ...] = ("runs", "calibration", "costs", "card")
KNOWN: dict[str, float] = {
    "parameters": 650_714,
    "validation_accuracy": 0.99,
    "validation_loss": 0.03,
    "test_accuracy": 0.98,
    "validation_balanced_accuracy": 0.95,
    "test_balanced_accuracy": 0.94,
    "validation_f1_macro": 0.93,
    "test_f1_macro": 0.92,
    "test_precision": 0.97,
    "test_recall": 0.96,
    "test_loss": 0.06,
    "test_brier": 0.03,
    "test_calibration_error": 0.01,
    "epochs": 4,
    "fit_seconds": 12.3,
    "model_bytes": 2_640_000,
    "microseconds_batch_1": 1100,
    "microseconds_batch_256": 66,
}
VALUES = {column.key: 0.5 for column in COLUMNS} | KNOWN  # with those of columns added later


def an_entry(
    model: str = "cnn", seed: int = 0, published: Sequence[float] = (), **values: float
) -> Entry:
    return Entry(model, seed, VALUES | values, "abc", published)


ENTRY = an_entry()


def a_result(without: str = "") -> Result:
    """A result of the run cnn-0 that holds all numbers but one, and others."""
    metrics: dict[str, Any] = {key: value for key, value in VALUES.items() if key != without}
    elsewhere = ("parameters", "epochs"), ("model_bytes", "fit_seconds")
    trained, costs = (
        {key: metrics.pop(key) for key in keys if key in metrics} for keys in elsewhere
    )
    return Result(
        model="cnn",
        seed=0,
        family="convolutional",
        recipe={},
        training={"run": "abc", "provenance": {}, **trained},
        metrics={**metrics, "of_no_column": 0.5},
        costs=costs,
        history=pd.DataFrame(),
        layers=pd.DataFrame(),
        per_class=pd.DataFrame(),
        robustness=pd.DataFrame(),
        probabilities=np.zeros((1, 1), np.float32),
    )


def test_an_entry_takes_its_numbers_from_all_files_of_the_run() -> None:
    entry = leaderboard.entry(a_result(), {"cnn": [0.992], "nn": [0.9]})

    assert entry == an_entry(published=[0.992])
    assert list(entry.row()) == [
        "model",
        "seed",
        *VALUES,
        "run",
        "published_test_accuracy",
    ]


@pytest.mark.parametrize("key", VALUES)
def test_a_missing_number_is_named_with_its_run(key: str) -> None:
    with pytest.raises(UserError, match=rf"results of cnn-0 lack {key}: run `dvc repro`$"):
        leaderboard.entry(a_result(without=key), {})


def test_every_column_has_its_own_key_and_title() -> None:
    assert len({column.key for column in COLUMNS}) == len({column.title for column in COLUMNS})
    assert len({column.key for column in COLUMNS}) == len(COLUMNS)


def test_each_place_shows_its_columns() -> None:
    shown = {
        place: [column.key for column in leaderboard.columns(place) if column.key in KNOWN]
        for place in PLACES
    }

    assert shown == {
        "runs": [
            *("validation_accuracy", "test_accuracy", "parameters", "test_balanced_accuracy"),
            *("test_f1_macro", "test_precision", "test_recall", "epochs", "fit_seconds"),
        ],
        "calibration": ["test_loss", "test_brier", "test_calibration_error"],
        "costs": [
            *("parameters", "fit_seconds", "model_bytes"),
            *("microseconds_batch_1", "microseconds_batch_256"),
        ],
        "card": [
            *("validation_accuracy", "test_accuracy", "parameters", "test_balanced_accuracy"),
            *("test_f1_macro", "test_precision", "test_recall", "test_loss", "test_brier"),
            *("test_calibration_error", "epochs", "fit_seconds", "model_bytes"),
            *("microseconds_batch_1", "microseconds_batch_256"),
        ],
    }


@pytest.mark.parametrize("place", RANKED)
@pytest.mark.parametrize("metric", METRICS)
def test_the_scores_that_decide_come_first(place: Place, metric: str) -> None:
    keys = [column.key for column in leaderboard.columns(place, metric)]

    assert keys[:2] == [f"validation_{metric}", f"test_{metric}"]
    assert len(set(keys)) == len(keys)
    assert {"test_accuracy", *keys[2:]} >= {c.key for c in leaderboard.columns(place)} - {*keys[:2]}


def test_each_column_has_its_format() -> None:
    formatted = {c.key: c.format(KNOWN[c.key]) for c in COLUMNS if c.key in KNOWN}

    assert formatted == {
        "parameters": "650,714",
        "validation_accuracy": "0.9900",
        "validation_loss": "0.0300",
        "test_accuracy": "0.9800",
        "validation_balanced_accuracy": "0.9500",
        "test_balanced_accuracy": "0.9400",
        "validation_f1_macro": "0.9300",
        "test_f1_macro": "0.9200",
        "test_precision": "0.9700",
        "test_recall": "0.9600",
        "test_loss": "0.0600",
        "test_brier": "0.0300",
        "test_calibration_error": "1.00 %",
        "epochs": "4",
        "fit_seconds": "12.3",
        "model_bytes": "2.64",
        "microseconds_batch_1": "1,100",
        "microseconds_batch_256": "66.0",
    }


def test_rank_goes_by_validation_and_never_by_test() -> None:
    better = an_entry("nn", validation_accuracy=0.991, test_accuracy=0.5)

    assert leaderboard.ranked([ENTRY, better]) == [better, ENTRY]


def test_equal_accuracies_are_ranked_by_validation_loss() -> None:
    better = an_entry(seed=1, validation_loss=0.02)

    assert leaderboard.ranked([ENTRY, better]) == [better, ENTRY]


@pytest.mark.parametrize("metric", METRICS)
def test_rank_goes_by_the_metric_that_decides(metric: str) -> None:
    worse = {f"validation_{other}": 0.1 for other in METRICS}
    better = replace(ENTRY, model="nn", values=VALUES | worse | {f"validation_{metric}": 0.995})

    assert leaderboard.ranked([ENTRY, better], metric) == [better, ENTRY]


def test_a_model_with_one_lucky_run_does_not_rank_above_the_better_one() -> None:
    lucky = [
        an_entry("nn", seed, validation_accuracy=accuracy)
        for seed, accuracy in enumerate((0.97, 0.995, 0.98))
    ]
    steady = [
        an_entry(seed=seed, validation_accuracy=accuracy)
        for seed, accuracy in enumerate((0.99, 0.989, 0.991))
    ]

    order = [(entry.model, entry.seed) for entry in leaderboard.ranked([*lucky, *steady])]

    assert order == [("cnn", 2), ("cnn", 0), ("cnn", 1), ("nn", 1), ("nn", 2), ("nn", 0)]


def test_the_best_run_of_each_model_comes_first() -> None:
    better = an_entry(seed=1, validation_loss=0.02)
    other = an_entry("lm", validation_accuracy=0.92)

    assert leaderboard.by_model(leaderboard.ranked([other, ENTRY, better])) == {
        "cnn": [better, ENTRY],
        "lm": [other],
    }


def test_a_line_stands_below_the_table() -> None:
    page = leaderboard.markdown([ENTRY], "Title", "Note.", {}, below="A line.")

    assert page.endswith(" | - |\n\nA line.\n")


def test_the_page_shows_the_columns_of_runs_and_the_published_accuracies() -> None:
    entry = replace(ENTRY, published_test_accuracy=[0.992, 0.9909])

    page = leaderboard.markdown([entry], "Title", "Note.", {"abc": "http://host/#/runs/id"})

    assert page.startswith("# Title\n\nBest by validation: **cnn-0**. Note.\n\n| run |")
    heads, rule, row = (line.split("|")[1:-1] for line in page.splitlines()[-3:])
    assert len(heads) == len(rule) == len(row)
    cells = {head.strip(): cell.strip() for head, cell in zip(heads, row, strict=True)}
    expected = {
        "run": "cnn-0",
        "parameters": "650,714",
        "validation accuracy": "0.9900",
        "test accuracy": "0.9800",
        "test balanced accuracy": "0.9400",
        "test macro F1": "0.9200",
        "precision, weighted": "0.9700",
        "recall, weighted": "0.9600",
        "epochs": "4",
        "fit seconds": "12.3",
        "published test accuracy": "0.9920, 0.9909",
        "MLflow run": "[id]",
    }
    assert {head: cells.get(head) for head in expected} == expected
    assert "Brier score" not in cells
