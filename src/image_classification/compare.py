"""Stage `compare`: all trainings of the pipeline side by side, and the best one by validation.

Here models enter MLflow's registry, as versions of one registered model a data set: the alias of
a model's name is the best training of that model, `champion` the best of all.
"""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from image_classification import leaderboard, paths
from image_classification.config import Config, entry_point
from image_classification.errors import UserError
from image_classification.leaderboard import Entry

if TYPE_CHECKING:
    import pandas as pd

    from image_classification.verdict import Verdict

CHAMPION = "champion"


@entry_point
def main(config: Config) -> None:
    """Compare the trainings of all models and seeds."""
    champion, *_ = compare(config).entries
    print(f"champion by validation: {champion.name}; see {paths.REPORTS}/leaderboard.md")


@dataclass(frozen=True)
class Comparison:
    """The leaderboard, best first, what is known of the models, and the page in Markdown."""

    entries: list[Entry]
    verdict: "Verdict"
    page: str


@dataclass(frozen=True)
class _Result:
    """What the stages left of one training."""

    name: str
    model: str
    seed: int
    family: str
    training: dict[str, Any]
    metrics: dict[str, float]
    history: "pd.DataFrame"
    hits: NDArray[np.bool_]  # (test examples,): whether each is classified rightly


def compare(config: Config) -> Comparison:
    """Rank the trainings, write the reports, and point the registry's aliases at the best.

    Raises:
        UserError: a training or an evaluation is missing; MLflow can't be reached or lacks a run.
    """
    results = [_read(model, seed) for model in config.models for seed in config.seeds]

    from image_classification import tracking, verdict  # MLflow takes seconds to import

    run_ids = [result.training["run_id"] for result in results]
    versions = tracking.register(config.data.name, run_ids)
    published = config.data.published
    entries = leaderboard.ranked(_entry(result, versions, published) for result in results)
    judged = verdict.judge(
        {
            model: np.stack([result.hits for result in results if result.model == model])
            for model in config.models
        }
    )
    table = leaderboard.markdown(
        entries,
        title=f"Leaderboard: {config.data.name}",
        note=f"Recipe `{config.recipe.name}`, n = {len(config.seeds)} training(s) a model; "
        "test scores took no part in the order.",
    )
    page = f"{table}\n## Which model is better\n\n{verdict.markdown(judged)}"
    comparison = Comparison(entries, judged, page)
    _write(comparison, results, config)
    if not paths.is_copy():  # an experiment that is not applied leaves the aliases alone
        tracking.set_aliases(config.data.name, _aliases(entries))
    return comparison


def _read(model: str, seed: int) -> _Result:
    import pandas as pd

    name = paths.training_name(model, seed)
    training, evaluation = paths.MODELS / name, paths.EVALUATIONS / name
    try:
        predictions = pd.read_csv(
            evaluation / paths.PREDICTIONS_FILE,
            usecols=["actual", "predicted"],
            dtype=str,
            keep_default_na=False,
        )
        return _Result(
            name=name,
            model=model,
            seed=seed,
            family=yaml.safe_load((training / paths.CONFIG_FILE).read_text())["model"]["family"],
            training=json.loads((training / paths.TRAINING_FILE).read_text()),
            metrics=json.loads((evaluation / paths.METRICS_FILE).read_text()),
            history=pd.read_csv(training / paths.HISTORY_FILE),
            hits=(predictions["actual"] == predictions["predicted"]).to_numpy(bool),
        )
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run `dvc repro evaluate@{name}`") from error
    except (ValueError, KeyError) as error:
        raise UserError(f"{training} or {evaluation} is damaged: run `dvc repro`") from error


def _entry(result: _Result, versions: dict[str, int], published: dict[str, list[float]]) -> Entry:
    return Entry(
        model=result.model,
        seed=result.seed,
        parameters=result.training["parameters"],
        validation_accuracy=result.metrics["validation_accuracy"],
        validation_loss=result.metrics["validation_loss"],
        test_accuracy=result.metrics["test_accuracy"],
        test_precision=result.metrics["test_precision"],
        test_recall=result.metrics["test_recall"],
        epochs=result.training["epochs"],
        fit_seconds=result.training["fit_seconds"],
        run_id=result.training["run_id"],
        version=versions[result.training["run_id"]],
        published_test_accuracy=published.get(result.model, []),
    )


def _aliases(entries: list[Entry]) -> dict[str, int]:
    best = leaderboard.best_by_model(entries)
    return {**{model: entry.version for model, entry in best.items()}, CHAMPION: entries[0].version}


def _write(comparison: Comparison, results: list[_Result], config: Config) -> None:
    import pandas as pd

    from image_classification import figures

    folder = paths.REPORTS / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(entry) for entry in comparison.entries]
    (paths.REPORTS / "leaderboard.json").write_text(json.dumps(rows, indent=2) + "\n")
    (paths.REPORTS / "leaderboard.md").write_text(comparison.page)
    judged = json.dumps(asdict(comparison.verdict), indent=2)
    (paths.REPORTS / "verdict.json").write_text(judged + "\n")

    curves = pd.concat([result.history.assign(training=result.name) for result in results])
    curves.to_csv(paths.REPORTS / "curves.csv", index=False)

    figures.leaderboard(pd.DataFrame(rows), config.data.published).savefig(
        folder / "leaderboard.png"
    )
    for family in dict.fromkeys(result.family for result in results):
        members = [result for result in results if result.family == family]
        figure = figures.accuracy_by_epoch(
            {member.name: member.history for member in members},
            {member.name: member.metrics["test_accuracy"] for member in members},
            title=f"Accuracy by epoch: {family}",
        )
        figure.savefig(folder / f"accuracy_{family.replace(' ', '_')}.png")


if __name__ == "__main__":
    main()
