"""Stage `compare`: all trainings of the pipeline side by side, the verdict, and the best model.

Here models enter MLflow's registry, as versions of one registered model a data set: the alias of
a model's name is the best training of that model by validation, `champion` the best of the model
whose trainings are the best on average.
"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from image_classification import dataset, leaderboard, paths, provenance
from image_classification.config import Config, entry_point, flatten
from image_classification.dataset import Examples
from image_classification.errors import UserError
from image_classification.leaderboard import Entry

if TYPE_CHECKING:
    from image_classification.comparison import Comparison, Result

CHAMPION = "champion"


@entry_point
def main(config: Config) -> None:
    """Compare the trainings of all models and seeds."""
    champion, *_ = compare(config).entries
    print(f"champion by validation: {champion.name}; see {paths.REPORTS}/index.html")


def compare(config: Config) -> "Comparison":
    """Judge the models, write the reports, log them, and point the registry's aliases at the best.

    Raises:
        UserError: a training or an evaluation is missing; MLflow can't be reached or lacks a run.
    """
    test = dataset.load_split(paths.SPLIT).test
    results = [
        _read(model, seed, test, config.data.classes)
        for model in config.models
        for seed in config.seeds
    ]

    from image_classification import comparison, report, tracking  # seconds to import

    run_ids = [result.training["run_id"] for result in results]
    versions = tracking.register(config.data.name, run_ids)
    published = config.data.published
    entries = leaderboard.ranked(_entry(result, versions, published) for result in results)
    labels = np.asarray(test.labels)
    compared = comparison.judge(config.data.name, config.data.classes, results, entries, labels)

    tags = tracking.tags(run_ids)
    _write(compared, config)
    _draw(compared, test, config)
    knobs = _knobs(config)
    commit = provenance.commit(apart_from=str(paths.PARAMS))  # the knobs tell what it says
    page = report.html(compared, config.data, tags, commit, knobs, paths.REPORTS / "figures")
    (paths.REPORTS / "index.html").write_text(page)

    cards = report.model_cards(compared, tags, config.data, config.recipe.name)
    tracking.describe_versions(config.data.name, cards)
    with tracking.comparison_run(config.data.name, run_ids, knobs) as address:
        note = report.comparison_note(compared, *address)
        tracking.log_comparison(note, paths.REPORTS)
    if not paths.is_copy():  # an experiment that is not applied leaves the aliases alone
        tracking.set_aliases(config.data.name, _aliases(entries))
    return compared


def _read(model: str, seed: int, test: Examples, classes: list[str]) -> "Result":
    import pandas as pd

    from image_classification.comparison import Result

    name = paths.training_name(model, seed)
    training, evaluation = paths.MODELS / name, paths.EVALUATIONS / name
    try:
        trained = yaml.safe_load((training / paths.CONFIG_FILE).read_text())
        columns = [f"probability_{name}" for name in classes]
        predictions = pd.read_csv(
            evaluation / paths.PREDICTIONS_FILE, usecols=columns, dtype=np.float32
        )
        if len(predictions) != len(test.labels):
            raise ValueError("there must be one prediction for each test example")
        return Result(
            model=model,
            seed=seed,
            family=trained["model"]["family"],
            recipe=trained["recipe"],
            training=json.loads((training / paths.TRAINING_FILE).read_text()),
            metrics=json.loads((evaluation / paths.METRICS_FILE).read_text()),
            costs=json.loads((evaluation / paths.COSTS_FILE).read_text()),
            history=pd.read_csv(training / paths.HISTORY_FILE),
            per_class=pd.read_csv(
                evaluation / paths.PER_CLASS_FILE, dtype={"class": str}, keep_default_na=False
            ),
            robustness=pd.read_csv(evaluation / paths.ROBUSTNESS_FILE),
            probabilities=predictions[columns].to_numpy(),
        )
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run `dvc repro evaluate@{name}`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{training} or {evaluation} is damaged: run `dvc repro`") from error


def _entry(result: "Result", versions: dict[str, int], published: dict[str, list[float]]) -> Entry:
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
            run_id=result.training["run_id"],
            version=versions[result.training["run_id"]],
            published_test_accuracy=published.get(result.model, []),
        )
    except KeyError as error:
        name = paths.training_name(result.model, result.seed)
        raise UserError(f"the results of {name} lack {error}: run `dvc repro`") from error


def _aliases(entries: list[Entry]) -> dict[str, int]:
    best = leaderboard.best_by_model(entries)
    return {**{model: entry.version for model, entry in best.items()}, CHAMPION: entries[0].version}


def _knobs(config: Config) -> dict[str, Any]:
    """What params.yaml sets; what it leaves null is conf/'s and may be each model's own."""
    params = dict(flatten(yaml.safe_load(paths.PARAMS.read_text())))
    given = {
        "models": config.models,
        "seeds": config.seeds,
        "data.name": config.data.name,
        "recipe.name": config.recipe.name,
    }
    return {key: value for key, value in (params | given).items() if value is not None}


def _write(compared: "Comparison", config: Config) -> None:
    from image_classification import verdict

    paths.REPORTS.mkdir(exist_ok=True)
    rows = [asdict(entry) for entry in compared.entries]
    (paths.REPORTS / "leaderboard.json").write_text(json.dumps(rows, indent=2) + "\n")
    judged = json.dumps(asdict(compared.verdict), indent=2)
    (paths.REPORTS / "verdict.json").write_text(judged + "\n")
    compared.label_errors.to_csv(paths.REPORTS / "likely_label_errors.csv", index=False)
    table = leaderboard.markdown(
        compared.entries,
        title=f"Leaderboard: {config.data.name}",
        note=f"Recipe `{config.recipe.name}`, n = {len(config.seeds)} training(s) a model; "
        "test scores took no part in the order.",
    )
    page = f"{table}\n## Which model is better\n\n{verdict.markdown(compared.verdict)}"
    (paths.REPORTS / "leaderboard.md").write_text(page)


def _draw(compared: "Comparison", test: Examples, config: Config) -> None:
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
    curves.to_csv(paths.REPORTS / "curves.csv", index=False)
    folder = paths.REPORTS / "figures"
    folder.mkdir(exist_ok=True)
    for name, figure in pictures.draw(compared, curves, test.images, config.data.published):
        figure.savefig(folder / f"{name}.png")


if __name__ == "__main__":
    main()
