"""Tables of the report that describe the models: the results of their runs in, rows out."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from image_classification.comparison.results import Result

SCORES = ("f1", "precision", "recall")  # columns of per_class.csv
MOST_LAYERS = 20  # of a model, one by one in words
PREPARING = ("InputLayer", "Rescaling", "Flatten")  # layers that only hand the image on


def architectures(results: Sequence[Result]) -> dict[str, str]:
    """The layers of each model in words, each with the shape of its output where that is new."""
    return {result.model: _in_words(result.layers) for result in reversed(results)}


def _in_words(layers: pd.DataFrame) -> str:
    if len(layers) > MOST_LAYERS:
        kinds = layers["type"].map(_plain).value_counts()
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        return f"{len(layers)} layers: {counts}"
    words, shape = [], ""
    for layer in layers.to_dict("records"):
        if layer["type"] not in PREPARING:
            new = f" {layer['output_shape']}" if layer["output_shape"] != shape else ""
            words.append(_plain(layer["type"]) + new)
        shape = layer["output_shape"]
    return ", ".join(words)


def _plain(layer_type: str) -> str:
    """A Keras layer's type in words: `MaxPooling2D` is max pooling."""
    layer_type = re.sub(r"[123]D\b", "", layer_type).replace("ReLU", "Relu")
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", layer_type).lower()
    return re.sub(r"\bconv\b", "convolution", spaced)


def recipes(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """The recipe of each model, with the precision that was used beside the one asked for."""
    rows: dict[str, dict[str, Any]] = {}
    for result in reversed(results):
        used = {
            str(other.training["provenance"].get("precision", "unknown"))
            for other in results
            if other.model == result.model
        }
        asked = {key: value for key, value in result.recipe.items() if key != "precision"}
        rows[result.model] = {
            **asked,
            "augmentation": _changes(result.recipe.get("augmentation", {})),
            "precision asked for": result.recipe.get("precision", "unknown"),
            "precision used": ", ".join(sorted(used)),
        }
    return rows


def _changes(augmentation: Mapping[str, Any]) -> str:
    """What an augmentation changes, in a cell: `light: shift 0.08, rotate 10`."""
    name = str(augmentation.get("name", "unknown"))
    changes = [
        f"{key} {value}"
        for key, value in augmentation.items()
        if key != "name" and value not in (0, "none")
    ]
    return f"{name}: {', '.join(changes)}" if changes else name


def per_class(results: Sequence[Result], most: int) -> dict[str, pd.DataFrame]:
    """Precision, recall and F1 of each class, means over the runs of each model, from 0 to 1.

    Args:
        results: of all runs.
        most: the maximum number of classes.

    Returns:
        For each of `SCORES` a table with a row for each class that occurs and the columns
        `examples` and the models. The classes with the lowest F1, averaged over the models, if
        there are more.
    """
    rows = pd.concat([result.per_class.assign(model=result.model) for result in results])
    rows = rows[rows["examples"] > 0]  # a class without examples has no scores
    tables = {
        score: rows.pivot_table(score, index="class", columns="model", sort=False)
        for score in SCORES
    }
    if len(tables["f1"]) > most:
        weakest = tables["f1"].mean(axis=1).nsmallest(most).index
        tables = {score: table.loc[weakest] for score, table in tables.items()}
    examples = rows.groupby("class")["examples"].first()
    return {score: table.assign(examples=examples) for score, table in tables.items()}


def robustness(results: Sequence[Result]) -> pd.DataFrame:
    """Accuracies from 0 to 1: a row for each model, a column for each corruption.

    Means over the strengths and over the runs.
    """
    rows = [{"model": result.model, **result.robustness_means()} for result in results]
    return pd.DataFrame(rows).groupby("model").mean()
