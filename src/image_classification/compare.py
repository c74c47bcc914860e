"""Stage `compare`: all trainings of the pipeline side by side, the verdict, and the best model.

Here models enter MLflow's registry, as versions of one registered model a data set: the alias of
a model's name is the best training of that model by validation, `champion` the best of the model
whose trainings are the best on average.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from image_classification import dataset, files, leaderboard, paths, provenance, readers, records
from image_classification.command import entry_point
from image_classification.config import FAMILY, Config, flatten
from image_classification.dataset import Examples
from image_classification.errors import UserError
from image_classification.leaderboard import Entry
from image_classification.records import Record

if TYPE_CHECKING:
    from image_classification.comparison import Comparison, Result

CHAMPION = "champion"
REGISTERED_MODEL = (
    "Classifiers of the data set {name}, one version a training. `champion` is the best "
    "training of the model with the best mean validation accuracy; the alias of a model's name "
    "is its best training. To load one: `mlflow.pyfunc.load_model('models:/{name}@champion')`; it "
    "takes uint8 images as they are. The experiment's latest run `comparison` says which model is "
    "better, and how sure that is."
)


@entry_point
def main(config: Config) -> int:
    """Compare the trainings of all models and seeds, and tell MLflow."""
    champion, *_ = compare(config).entries
    print(f"champion by validation: {champion.name}; see {paths.REPORTS}/index.html")

    from image_classification import delivery

    return delivery.publish(*paths.stage_folders(config.models, config.seeds))


def compare(config: Config) -> "Comparison":
    """Judge the models, and write the reports and what the registry shall say.

    Raises:
        UserError: a training or an evaluation is missing or damaged.
    """
    split = dataset.load_split(paths.SPLIT)
    dataset.require_origin(split, config.data)
    test = split.test
    results = [
        _read(model, seed, test, config.data.classes)
        for model in config.models
        for seed in config.seeds
    ]

    from image_classification import comparison, report  # seconds to import

    published = config.data.published
    entries = leaderboard.ranked(_entry(result, published) for result in results)
    labels = np.asarray(test.labels)
    compared = comparison.judge(config.data.name, config.data.classes, results, entries, labels)

    tags = {result.training["run"]: result.tags for result in results}
    knobs = _knobs(config)
    commit = provenance.commit(apart_from=str(paths.PARAMS))  # the knobs tell what it says
    with files.written_whole(paths.REPORTS) as folder:
        _write(compared, config, folder)
        _draw(compared, test, config, folder)
        page = report.html(compared, config.data, tags, commit, knobs, folder / "figures")
        (folder / "index.html").write_text(page)
        cards = report.model_cards(compared, tags, config.data, config.recipe.name)
        records.write(folder, _records(compared, cards, commit, knobs))
    return compared


def _records(
    compared: "Comparison",
    cards: dict[str, str],
    commit: dict[str, str],
    knobs: dict[str, Any],
) -> list[Record]:
    from image_classification import report, runs

    tags = {"dataset": compared.data, **commit}
    run = {"type": "run", **runs.opening(compared.data, "comparison", tags)}
    trained = [result.training["run"] for result in compared.results]
    versions = {
        "type": "versions",
        "name": compared.data,
        "description": REGISTERED_MODEL.format(name=compared.data),
        "cards": {key: cards[key] for key in trained},
    }
    aliases = {"type": "aliases", "name": compared.data, "values": _aliases(compared.entries)}
    return [
        run,
        {"type": "params", "values": knobs},
        {"type": "inputs", "runs": trained},
        versions,
        {"type": "note", "text": report.comparison_note(compared, run["key"])},
        {"type": "artifacts", "path": "."},
        # An experiment that is not applied leaves the aliases alone.
        *([] if paths.is_copy() else [aliases]),
        {"type": "end", "status": "FINISHED", "time": records.now()},
    ]


def _read(model: str, seed: int, test: Examples, classes: list[str]) -> "Result":
    from image_classification.comparison import Result

    name = paths.training_name(model, seed)
    training, evaluation = paths.MODELS / name, paths.EVALUATIONS / name
    train_anew = f"run `dvc repro --force --single-item train@{name}`"
    evaluate_anew = f"run `dvc repro --force --single-item evaluate@{name}`"
    for path in (training / paths.CONFIG_FILE, evaluation / paths.METRICS_FILE):
        if not path.is_file():
            raise UserError(f"{path} is missing: run `dvc repro evaluate@{name}`")
    trained = readers.read_mapping(training / paths.CONFIG_FILE, train_anew)
    described, recipe = trained.get("model"), trained.get("recipe")
    family = described.get("family") if isinstance(described, dict) else None
    # The family becomes part of the name of a picture.
    named = isinstance(family, str) and re.fullmatch(FAMILY, family)
    if not named or not isinstance(recipe, dict):
        raise UserError(f"{training / paths.CONFIG_FILE}: no model.family or recipe: {train_anew}")
    columns = [f"probability_{name}" for name in classes]
    predictions = readers.read_table(
        evaluation / paths.PREDICTIONS_FILE,
        dict.fromkeys(columns, np.float32),
        len(test.labels),
        evaluate_anew,
    )
    probabilities = predictions[columns].to_numpy()
    if len(probabilities) != len(test.labels) or not np.isfinite(probabilities).all():
        raise UserError(
            f"{evaluation / paths.PREDICTIONS_FILE}: there must be probabilities for each of the "
            f"{len(test.labels)} test images: {evaluate_anew}"
        )
    scores = dict.fromkeys(["precision", "recall", "f1"], float)
    return Result(
        model=model,
        seed=seed,
        family=str(family),
        recipe=recipe,
        training=readers.read_training(training / paths.TRAINING_FILE, train_anew),
        tags=records.tags(records.read(training / paths.RECORDS_FILE)),
        metrics=readers.read_numbers(evaluation / paths.METRICS_FILE, None, evaluate_anew),
        costs=readers.read_numbers(evaluation / paths.COSTS_FILE, None, evaluate_anew),
        history=readers.read_history(training / paths.HISTORY_FILE, train_anew),
        per_class=readers.read_table(
            evaluation / paths.PER_CLASS_FILE,
            {"class": str, **scores, "examples": int},
            len(classes),
            evaluate_anew,
        ),
        robustness=readers.read_table(
            evaluation / paths.ROBUSTNESS_FILE,
            {"corruption": str, "strength": float, "accuracy": float},
            readers.MOST_VALUES,
            evaluate_anew,
        ),
        probabilities=probabilities,
    )


def _entry(result: "Result", published: dict[str, list[float]]) -> Entry:
    try:
        return Entry(
            model=result.model,
            seed=result.seed,
            parameters=result.training["parameters"],
            validation_accuracy=result.metrics["validation_accuracy"],
            validation_loss=result.metrics["validation_loss"],
            test_accuracy=result.metrics["test_accuracy"],
            test_precision=result.metrics["test_precision"],
            test_recall=result.metrics["test_recall"],
            test_loss=result.metrics["test_loss"],
            test_brier=result.metrics["test_brier"],
            test_calibration_error=result.metrics["test_calibration_error"],
            epochs=result.training["epochs"],
            fit_seconds=result.training["fit_seconds"],
            model_bytes=int(result.costs["model_bytes"]),
            microseconds_batch_1=result.costs["microseconds_batch_1"],
            microseconds_batch_256=result.costs["microseconds_batch_256"],
            run=result.training["run"],
            published_test_accuracy=published.get(result.model, []),
        )
    except KeyError as error:
        name = paths.training_name(result.model, result.seed)
        raise UserError(f"the results of {name} lack {error}: run `dvc repro`") from error


def _aliases(entries: Sequence[Entry]) -> dict[str, str]:
    best = leaderboard.best_by_model(entries)
    return {**{model: entry.run for model, entry in best.items()}, CHAMPION: entries[0].run}


def _knobs(config: Config) -> dict[str, Any]:
    """What params.yaml sets; what it leaves null is conf/'s and may be each model's own."""
    params = dict(flatten(readers.read_mapping(paths.PARAMS, "mend it")))
    given = {
        "models": config.models,
        "seeds": config.seeds,
        "data.name": config.data.name,
        "recipe.name": config.recipe.name,
    }
    return {key: value for key, value in (params | given).items() if value is not None}


def _write(compared: "Comparison", config: Config, folder: Path) -> None:
    from image_classification import verdict

    rows = [asdict(entry) for entry in compared.entries]
    (folder / "leaderboard.json").write_text(json.dumps(rows, indent=2) + "\n")
    judged = json.dumps(asdict(compared.verdict), indent=2)
    (folder / "verdict.json").write_text(judged + "\n")
    compared.label_errors.to_csv(folder / "likely_label_errors.csv", index=False)
    table = leaderboard.markdown(
        compared.entries,
        title=f"Leaderboard: {config.data.name}",
        note=f"Recipe `{config.recipe.name}`, n = {len(config.seeds)} training(s) a model; "
        "test scores took no part in the order.",
    )
    page = f"{table}\n## Which model is better\n\n{verdict.markdown(compared.verdict)}"
    (folder / "leaderboard.md").write_text(page)


def _draw(compared: "Comparison", test: Examples, config: Config, folder: Path) -> None:
    import pandas as pd

    from image_classification import pictures

    curves = pd.concat(
        [
            result.history.assign(
                model=result.model, training=paths.training_name(result.model, result.seed)
            )
            for result in compared.results
        ]
    )
    curves.to_csv(folder / "curves.csv", index=False)
    (folder / "figures").mkdir()
    for name, figure in pictures.draw(compared, curves, test.images, config.data.published):
        figure.savefig(folder / "figures" / f"{name}.png")


if __name__ == "__main__":
    main()
