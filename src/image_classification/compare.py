"""Stage `compare`: all runs of the pipeline side by side, the verdict, and the candidate.

Models enter MLflow's registry here, as versions of one registered model per data set. The alias of
a model's name is its best run by validation; `candidate` is the best run of the model that is best
by its mean over all runs. The promotion gate decides whether it becomes `champion`.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from image_classification.comparison import leaderboard, summary, verdict_text
from image_classification.comparison.leaderboard import Entry
from image_classification.comparison.results import Result, read_result
from image_classification.comparison.summary import Baseline, Comparison
from image_classification.core import paths, readers
from image_classification.core.compose import SETTINGS_HINT
from image_classification.core.config import Config, flatten
from image_classification.core.errors import UserError
from image_classification.core.files import atomic_folder
from image_classification.data.arrays import Split
from image_classification.data.fingerprint import require_split
from image_classification.evaluation import metrics
from image_classification.promotion import decision_text, decisions, records, registry_state
from image_classification.promotion.candidates import Candidate
from image_classification.promotion.decisions import PromotionRequest
from image_classification.reporting import data_gallery, data_sheet, gallery, report
from image_classification.reporting.data_sheet import DataSheet
from image_classification.reporting.gallery import Picture
from image_classification.reporting.report import Links
from image_classification.tracking import (
    event_log,
    live_run,
    mlflow_pages,
    mlflow_promotions,
    provenance,
    run_folder,
)
from image_classification.tracking.event_log import Event
from image_classification.tracking.mlflow_store import UnreachableError
from image_classification.tracking.outbox import upload

CANDIDATE = "candidate"
IDS = "MLflow's run ids belong to the store that this page was made with; another has others."
REGISTERED_MODEL = (
    "Classifiers of the data set {name}, one version per run. `candidate` is the best run of the "
    "model with the best mean validation {metric}; `champion` is the last one that the promotion "
    "gate let pass; the alias of a model's name is the best run of that model. Load one with "
    "`mlflow.pyfunc.load_model('models:/{name}@champion')`; it takes "
    "uint8 images with pixels from 0 to 255 as they are, not scaled. The latest run `comparison` "
    "of the experiment says which model is better, and how certain that is."
)


def main(config: Config) -> int:
    """Compare the runs of all models and seeds, log it to MLflow, and ask the promotion gate."""
    run_folder.discard_finished()
    best, *others = compare(config).entries
    print(f"best by validation: {best.name}; see {paths.REPORTS}/index.html")
    code = upload(*paths.stage_folders(config.models, config.seeds))
    if not paths.is_copy():  # an experiment that is not applied changes no champion
        code = max(code, _ask_gate(config, best, 1 + len(others)))
    return code


def compare(config: Config) -> Comparison:
    """Compare the models, and write the reports and the new state of the registry.

    Raises:
        UserError: a run or an evaluation is missing or damaged, or of different trainings.
    """
    split = require_split(paths.SPLIT, config.data)
    compared = _judge(config, split)
    settings = _settings(config)
    links = _links(config.data.dataset, compared.entries)
    commit = provenance.commit(ignore=str(paths.PARAMS))  # the settings hold its contents
    with atomic_folder(paths.REPORTS) as folder:
        _write_tables(compared, config, links, folder)
        known = data_sheet.of_split(split)
        pictures = _draw(compared, split, known, config, folder)
        page = report.html(
            compared, config.data, commit, settings, pictures, folder / "figures", links, known
        )
        (folder / "index.html").write_text(page)
        folds, count = config.data.folds, len(split.validation.labels)
        held_out = f"1 of {folds} folds" if folds else f"{count:,} examples"
        cards = report.model_cards(compared, config.recipe.name, split.image_shape, held_out)
        event_log.write(folder, _events(compared, cards, commit, settings, known))
    return compared


def _ask_gate(config: Config, best: Entry, chosen_from: int) -> int:
    """Decide whether the best run becomes champion, and update MLflow; exit code as of upload."""
    name = config.data.dataset
    candidate = Candidate(best.model, best.seed, best.key)
    version = mlflow_promotions.versions(name, [best.key]).get(best.key)
    request = PromotionRequest(candidate, version, chosen_from, reason=None, command="compare")
    outcome = decisions.decide(request, config)
    print(decision_text.outcome(outcome, best.name))
    if outcome.decision == decisions.UNMEASURED:
        # In a process of its own, since it takes TensorFlow, which no comparison needs.
        settings = [word for word in sys.argv[1:] if not word.startswith(("hydra.", "-"))]
        promote = [sys.executable, "-m", "image_classification", "promote", best.key]
        subprocess.run([*promote, *settings], check=False)
    state = registry_state.of_records(records.read(name))
    return mlflow_promotions.update_registry(name, state.champion, state.tags, state.texts)


def _judge(config: Config, split: Split) -> Comparison:
    labels = np.asarray(split.test.labels)
    results = [
        read_result(model, seed, len(labels), split.classes)
        for model in config.models
        for seed in config.seeds
    ]
    for result in results:
        _require_own_evaluation(result)
    published = config.data.published
    metric = config.compare.metric
    entries = leaderboard.ranked(
        (leaderboard.entry(result, published) for result in results), metric
    )
    return summary.judge(
        config.data.dataset,
        split.classes,
        results,
        entries,
        labels,
        _baseline(split),
        metric,
        names=split.names("test"),
    )


def _require_own_evaluation(result: Result) -> None:
    """Check that the run was not trained again since it was evaluated."""
    name = paths.run_name(result.model, result.seed)
    folder = paths.EVALUATIONS / name
    evaluated, *_ = event_log.read(folder / paths.EVENTS_FILE) or [{}]
    if evaluated.get("key") != result.training["run"]:
        raise UserError(
            f"{folder} is the evaluation of an earlier training of {name}: "
            f"run `dvc repro --force --single-item evaluate@{name}`"
        )


def _baseline(split: Split) -> Baseline:
    named = metrics.majority_class(split.train.labels)
    labels = np.asarray(split.test.labels)
    scores = metrics.of_predictions(labels, np.full(len(labels), named))
    return Baseline(split.classes[named], scores)


def _settings(config: Config) -> dict[str, Any]:
    """The settings in params.yaml except nulls, which leave them to conf/ and to each model."""
    params = dict(flatten(readers.read_mapping(paths.PARAMS, SETTINGS_HINT)))
    given = {
        "models": config.models,
        "seeds": config.seeds,
        "data.name": config.data.name,
        "recipe.name": config.recipe.name,
    }
    used = {"compare.metric": config.compare.metric, "promotion.name": config.promotion.name}
    named = {word.partition("=")[0] for word in sys.argv[1:]}
    # A null stays one: with its value in place, the report's own command would compare anew.
    given |= {key: used[key] for key in used if params.get(key) is not None or key in named}
    return {key: value for key, value in (params | given).items() if value is not None}


def _links(experiment: str, entries: Sequence[Entry]) -> Links | None:
    """Where MLflow shows the runs; None, with a message, while it can't be reached."""
    best = [runs[0].key for runs in leaderboard.by_model(entries).values()]
    try:
        pages = mlflow_pages.find(experiment, [entry.key for entry in entries])
    except UnreachableError as error:
        print(f"MLflow: {error}: the report does not link to the runs", file=sys.stderr)
        return None
    runs = {key: pages.run(key) for key in pages.run_ids}
    return Links(runs, pages.runs(), pages.comparison(best))


def _write_tables(compared: Comparison, config: Config, links: Links | None, folder: Path) -> None:
    rows = [entry.row() for entry in compared.entries]
    (folder / paths.LEADERBOARD.name).write_text(json.dumps(rows, indent=2) + "\n")
    metric, name = compared.verdict.metric, verdict_text.metric_name(compared.verdict)
    shown = json.dumps(leaderboard.metrics(compared.entries, metric), indent=2, sort_keys=True)
    (folder / paths.METRICS_FILE).write_text(shown + "\n")
    judged = json.dumps(asdict(compared.verdict), indent=2)
    (folder / "verdict.json").write_text(judged + "\n")
    compared.label_errors.to_csv(folder / "likely_label_errors.csv", index=False)
    table = leaderboard.markdown(
        compared.entries,
        title=f"Leaderboard: {config.data.dataset}",
        note=f"Recipe `{config.recipe.name}`, n = {len(config.seeds)} run(s) per model, ordered by "
        f"validation {name}; test scores do not affect the order.",
        addresses=links.runs if links else {},
        metric=metric,
        below=compared.baseline.sentence(),
    )
    page = f"{table}\n## Which model is better\n\n{verdict_text.markdown(compared.verdict)}"
    if links:
        page += f"\n{IDS}\n\n{leaderboard.references(links.runs.values())}"
    (folder / "leaderboard.md").write_text(page)


def _draw(
    compared: Comparison, split: Split, known: DataSheet, config: Config, folder: Path
) -> list[Picture]:
    curves = pd.concat([_curve(result) for result in compared.results])
    curves.to_csv(folder / "curves.csv", index=False)
    (folder / "figures").mkdir()
    pictures = []
    of_models = gallery.draw(compared, curves, split.test.images, config.data.published)
    for picture, figure in chain(of_models, data_gallery.draw(known, split)):
        figure.savefig(folder / "figures" / f"{picture.name}.png")
        pictures.append(picture)
    return pictures


def _curve(result: Result) -> pd.DataFrame:
    run = paths.run_name(result.model, result.seed)
    return result.history.assign(model=result.model, run=run)  # .dvc/plots/ draws a line per run


def _events(
    compared: Comparison,
    cards: dict[str, str],
    commit: dict[str, str],
    settings: dict[str, Any],
    known: DataSheet,
) -> list[Event]:
    tags = {"dataset": compared.data, **commit}
    opening = live_run.opening(compared.data, "comparison", tags)
    runs = [result.training["run"] for result in compared.results]
    versions = {
        "type": "versions",
        "name": compared.data,
        "description": REGISTERED_MODEL.format(
            name=compared.data, metric=verdict_text.metric_name(compared.verdict)
        ),
        "cards": {key: cards[key] for key in runs},
    }
    aliases = {"type": "aliases", "name": compared.data, "values": _aliases(compared.entries)}
    return [
        {"type": "run", **opening},
        {"type": "params", "values": settings},
        {"type": "inputs", "runs": runs},
        versions,
        {"type": "note", "text": report.comparison_note(compared, opening["key"], known)},
        {"type": "artifacts", "path": "."},
        # An experiment that is not applied leaves the aliases alone.
        *([] if paths.is_copy() else [aliases]),
        {"type": "end", "status": "FINISHED", "time": event_log.now()},
    ]


def _aliases(entries: Sequence[Entry]) -> dict[str, str]:
    best = {model: runs[0].key for model, runs in leaderboard.by_model(entries).items()}
    return {**best, CANDIDATE: entries[0].key}
