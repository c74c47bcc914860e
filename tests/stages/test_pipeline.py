"""The whole pipeline by its commands, on the tiny data set."""

import html
import json
import re
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Compose, Project
from mlflow.entities import Run

from image_classification import compare
from image_classification.core import compose as composing
from image_classification.core.errors import UserError
from image_classification.evaluation.corruptions import CORRUPTIONS
from image_classification.tracking import mlflow_tags
from image_classification.tracking.mlflow_tags import RUN_KEY

NAMES = ["tiny_cnn-0", "tiny_lm-0"]
PARAMETERS = {"tiny_cnn": 3_362, "tiny_lm": 7_850}


def client(project: Project) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")


def runs(project: Project) -> dict[str, Run]:
    """The finished runs of the project by name; later ones win."""
    store = client(project)
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is not None
    found = store.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")
    return {run.info.run_name: run for run in reversed(found)}


def artifacts(project: Project, run: Run, folder: str) -> set[str]:
    listed = client(project).list_artifacts(run.info.run_id, folder)
    return {Path(entry.path).name for entry in listed}


def aliases(project: Project) -> dict[str, str]:
    """The run that each alias of the registry leads to, by its name in MLflow."""
    store = client(project)
    names = store.get_registered_model("tiny").aliases
    versions = {alias: store.get_model_version_by_alias("tiny", alias) for alias in names}
    return {alias: str(version.run_id) for alias, version in versions.items()}


def started(said: str) -> list[str]:
    """The stages that `dvc repro` says it runs."""
    return re.findall(r"^Running stage '([^']+)'", said, re.MULTILINE)


@pytest.fixture(scope="module")
def here(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which `dvc repro` has run, for tests that run DVC and take back their edits."""
    return trained.copy(tmp_path_factory.mktemp("here"))


def test_each_run_is_finished_and_has_its_history(trained: Project) -> None:
    assert sorted(runs(trained)) == ["comparison", *NAMES]
    for run in (runs(trained)[name] for name in NAMES):
        for metric in (
            "loss",
            "accuracy",
            "val_loss",
            "val_accuracy",
            "learning_rate",
            "epoch_seconds",
        ):
            history = client(trained).get_metric_history(run.info.run_id, metric)
            assert [entry.step for entry in history] == [0, 1], metric


def test_a_run_says_where_it_comes_from(trained: Project) -> None:
    run = runs(trained)["tiny_cnn-0"]
    lock = yaml.safe_load((trained.root / "dvc.lock").read_text())
    first = trained.must("git", "rev-list", "--max-parents=0", "HEAD").strip()

    tags = run.data.tags
    data_hash = lock["stages"]["split"]["outs"][0]["md5"]
    assert tags[mlflow_tags.stored("dvc.data")] == data_hash
    assert (tags["git.commit"], tags["git.dirty"]) == (first, "false")
    assert tags["mlflow.source.name"].endswith("train.py")
    assert tags["mlflow.user"]
    assert [tags[key] for key in ("dataset", "model", "recipe", "seed")] == [
        "tiny",
        "tiny_cnn",
        "fast",
        "0",
    ]
    assert run.inputs is not None
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("tiny", data_hash)
    # MLflow's pages show the tags that do not begin like its own: no hash and no process.
    shown = {key for key in tags if not key.startswith("mlflow.")}
    origin = {"git.commit", "git.dirty", "machine", "precision", "backend", "devices"}
    assert shown == {"dataset", "model", "recipe", "seed"} | origin


def test_a_run_holds_parameters_test_metrics_and_artifacts(trained: Project) -> None:
    run = runs(trained)["tiny_cnn-0"]

    assert run.data.params["recipe.epochs"] == "2"
    assert run.data.params["augmentation.name"] == "by_model"
    assert run.data.params["model.dropout"] == "0.25"
    assert run.data.params["seed"] == "0"
    # Details would come first in MLflow's table of differences; config.yaml has them.
    assert not [key for key in run.data.params if key.startswith(("model.layers", "data.classes"))]
    measured = json.loads((trained.root / "evaluations/tiny_cnn-0/metrics.json").read_text())
    for name in ("loss", "accuracy", "precision", "f1_macro", "brier", "calibration_error"):
        assert run.data.metrics[f"test_{name}"] == pytest.approx(measured[f"test_{name}"])
    assert any(name.startswith("system/cpu") for name in run.data.metrics)
    assert artifacts(trained, run, "training") >= {
        "config.yaml",
        "history.csv",
        "layers.csv",
    }
    assert artifacts(trained, run, "evaluation") >= {
        "confusion_matrix.csv",
        "per_class.csv",
        "predictions",
        "robustness.csv",
        "costs.json",
    }
    tables = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert {(table["path"], table["type"]) for table in tables} == {
        ("evaluation/tables/per_class.json", "table"),
        ("evaluation/tables/mistakes.json", "table"),
    }
    assert artifacts(trained, run, "evaluation/figures") == {
        "confusion_matrix.png",
        "worst_mistakes.png",
        "reliability.png",
        "example_prediction.png",
        "loss_and_accuracy.png",
        "layers.png",
    }


def test_the_registry_names_the_present_models_and_the_champion(trained: Project) -> None:
    store = client(trained)
    board = json.loads((trained.root / "reports/leaderboard.json").read_text())
    best = max(board, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))

    for name in ("tiny_lm", "tiny_cnn"):
        version = store.get_model_version_by_alias("tiny", name)
        assert version.run_id == runs(trained)[f"{name}-0"].info.run_id
    for alias in ("candidate", "champion"):  # the first champion has nobody to beat
        run_id = str(store.get_model_version_by_alias("tiny", alias).run_id)
        assert client(trained).get_run(run_id).data.tags[RUN_KEY] == best["run"]
    assert len(store.search_model_versions("name = 'tiny'")) == 2

    mlflow.set_tracking_uri(f"sqlite:///{trained.root / 'mlflow.db'}")
    images = np.load(trained.root / "data/split/test_images.npy")
    labels = np.load(trained.root / "data/split/test_labels.npy")
    row = next(row for row in board if row["model"] == "tiny_cnn")
    for load in (mlflow.pyfunc.load_model, mlflow.keras.load_model):
        model = load("models:/tiny@tiny_cnn")
        accuracy = (np.asarray(model.predict(images)).argmax(axis=1) == labels).mean()
        assert accuracy == pytest.approx(row["test_accuracy"])


def test_the_leaderboard_has_what_the_stages_measured(trained: Project) -> None:
    board = json.loads((trained.root / "reports/leaderboard.json").read_text())

    assert sorted(f"{row['model']}-{row['seed']}" for row in board) == NAMES
    assert {row["model"]: row["parameters"] for row in board} == PARAMETERS
    for row in board:
        run = runs(trained)[f"{row['model']}-0"]
        assert row["run"] == run.data.tags[RUN_KEY]
        assert row["test_accuracy"] == pytest.approx(run.data.metrics["test_accuracy"])
        assert row["epochs"] == 2
    page = (trained.root / "reports/leaderboard.md").read_text()
    assert all(f"| {name} |" in page for name in NAMES)
    figures = {path.name for path in (trained.root / "reports/figures").iterdir()}
    assert figures >= {"leaderboard.png", "accuracy_linear.png", "accuracy_convolutional.png"}


def test_robustness_and_costs_are_measured_on_the_model(trained: Project) -> None:
    folder = trained.root / "evaluations/tiny_cnn-0"
    robustness = pd.read_csv(folder / "robustness.csv")
    metrics = json.loads((folder / "metrics.json").read_text())
    costs = json.loads((folder / "costs.json").read_text())

    clean = robustness[robustness["strength"] == 0]
    assert clean["accuracy"].tolist() == pytest.approx(
        [metrics["test_accuracy"]] * len(CORRUPTIONS)
    )
    noisy = robustness[(robustness["corruption"] == "noise") & (robustness["strength"] > 0)]
    assert metrics["robustness_noise"] == pytest.approx(noisy["accuracy"].mean())
    assert costs["parameters"] == PARAMETERS["tiny_cnn"]
    assert costs["model_bytes"] == (trained.root / "runs/tiny_cnn-0/model.keras").stat().st_size
    assert costs["microseconds_batch_1"] > costs["microseconds_batch_256"] > 0


def test_the_comparison_is_a_run_that_leads_to_the_runs_compared(trained: Project) -> None:
    run = client(trained).get_run(runs(trained)["comparison"].info.run_id)
    compared = [runs(trained)[name] for name in NAMES]

    note = run.data.tags["mlflow.note.content"]
    for each in compared:
        experiment, run_id = each.info.experiment_id, each.info.run_id
        assert f"(#/experiments/{experiment}/runs/{run_id})" in note
    assert "## The data\n\n800 images of 10 classes: 500 training" in note
    described = client(trained).get_experiment(run.info.experiment_id)
    assert described.tags["mlflow.note.content"] == note
    assert run.inputs is not None
    linked = {model.model_id for model in run.inputs.model_inputs}
    assert linked == {
        output.model_id
        for each in compared
        if each.outputs
        for output in each.outputs.model_outputs
    }
    logged = artifacts(trained, run, "")
    assert {"index.html", "verdict.json", "leaderboard.md", "figures"} <= logged


def test_a_comparison_records_the_metric_and_the_gate_that_it_used(
    compose: Compose, configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line may say otherwise than params.yaml."""
    monkeypatch.chdir(configuration)

    words = ("compare.metric=f1_macro", "promotion.name=none")
    monkeypatch.setattr(sys, "argv", ["compare", *words])

    used = compare._settings(compose(*words))

    assert (used["compare.metric"], used["promotion.name"]) == ("f1_macro", "none")


def test_the_evaluation_of_an_earlier_training_is_refused(
    trained_copy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `dvc repro --force --single-item train@tiny_lm-0`."""
    monkeypatch.chdir(trained_copy.root)
    path = Path("runs/tiny_lm-0/training.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": "0" * 32}))

    with pytest.raises(
        UserError, match=r"^evaluations/tiny_lm-0 .* earlier .* evaluate@tiny_lm-0`"
    ):
        compare.compare(composing.compose())


@pytest.mark.slow
def test_the_reports_are_written_without_links_while_mlflow_is_down(trained_copy: Project) -> None:
    done = trained_copy.run(
        *("python", "-m", "image_classification", "compare", "hydra.run.dir=."),
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )

    assert done.returncode == 75  # the event log waits in the outbox
    assert "it does not respond: the report does not link to the runs" in done.stderr
    page = (trained_copy.root / "reports/index.html").read_text()
    assert "MLflow could not be reached when this page was made" in page
    assert "127.0.0.1" not in page + (trained_copy.root / "reports/leaderboard.md").read_text()


def test_every_version_has_a_model_card(trained: Project) -> None:
    for name in ("tiny_lm", "tiny_cnn"):
        version = client(trained).get_model_version_by_alias("tiny", name)
        run = runs(trained)[f"{name}-0"]
        card = version.description or ""
        assert f"{run.data.metrics['test_accuracy']:.4f}" in card
        assert run.data.tags["git.commit"] in card
        assert run.data.tags["machine"] in card
        assert card.lower().count("unknown") == 1
        assert "pixels 0 to 255 as they are. Do not scale them" in card
        assert "*" not in card  # which some of MLflow's pages show raw
        assert f"(#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})" in card
        tags = {key: v for key, v in version.tags.items() if not key.startswith("promotion.")}
        assert tags == {
            **{key: run.data.tags[key] for key in ("model", "seed", "recipe")},
            **{
                f"{part}_{name}": f"{run.data.metrics[f'{part}_{name}']:.4f}"
                for part in ("test", "validation")
                for name in ("accuracy", "balanced_accuracy", "f1_macro")
            },
        }


def test_the_verdict_rests_on_the_predictions(trained: Project) -> None:
    board = json.loads((trained.root / "reports/leaderboard.json").read_text())
    accuracy = {row["model"]: row["test_accuracy"] for row in board}
    verdict = json.loads((trained.root / "reports/verdict.json").read_text())
    (pair,) = verdict["pairs"]

    assert verdict["examples"] == 200
    assert {score["model"]: score["mean"] for score in verdict["scores"]} == pytest.approx(accuracy)
    assert pair["difference"]["difference"] == pytest.approx(
        accuracy[pair["first"]] - accuracy[pair["second"]]
    )
    assert "McNemar" in pair["difference"]["test"]
    page = (trained.root / "reports/leaderboard.md").read_text()
    assert f"| {pair['first']}, {pair['second']} |" in page


@pytest.mark.slow
def test_another_metric_compares_again_by_it(trained_copy: Project) -> None:
    trained_copy.set("params.yaml", "compare.metric", "f1_macro")
    assert started(trained_copy.must("dvc", "repro")) == ["compare"]

    board = json.loads((trained_copy.root / "reports/leaderboard.json").read_text())
    scores = {row["model"]: row["test_f1_macro"] for row in board}
    verdict = json.loads((trained_copy.root / "reports/verdict.json").read_text())
    assert {score["model"]: score["mean"] for score in verdict["scores"]} == pytest.approx(scores)
    assert verdict["metric"] == "f1_macro"
    assert "paired t test" in verdict["pairs"][0]["difference"]["test"]
    best = max(board, key=lambda row: row["validation_f1_macro"])
    (champion, *_) = board
    assert champion == best
    shown = json.loads((trained_copy.root / "reports/metrics.json").read_text())
    assert shown[f"{best['model']}-0"]["validation_f1_macro"] == best["validation_f1_macro"]
    page = (trained_copy.root / "reports/leaderboard.md").read_text()
    assert "| run | validation macro F1 | test macro F1 | parameters |" in page
    assert "By test macro F1" in page


def test_the_leaderboard_says_what_the_majority_class_scores(trained: Project) -> None:
    labels, majority = (
        np.load(trained.root / f"data/split/{part}_labels.npy") for part in ("test", "train")
    )
    named = int(np.bincount(majority).argmax())
    page = (trained.root / "reports/leaderboard.md").read_text()

    said = f"Always predicting {named}, the most frequent class of the training images,"
    assert f"\n\n{said} scores: accuracy {(labels == named).mean():.4f}, balanced " in page


def test_dvc_shows_the_same_metrics_and_the_plots(here: Project) -> None:
    shown = json.loads(here.must("dvc", "metrics", "show", "--json"))
    board = json.loads((here.root / "reports/leaderboard.json").read_text())

    keys = ("test_accuracy", "validation_accuracy", "test_loss", "fit_seconds")
    assert shown[""]["data"]["reports/metrics.json"]["data"] == {
        f"{row['model']}-0": {key: row[key] for key in keys} for row in board
    }
    assert len(shown[""]["data"]) == 1  # with all there is, `dvc exp show` had 332 columns
    here.must("dvc", "plots", "show", "--out", "dvc_plots")
    page = (here.root / "dvc_plots/index.html").read_text()
    assert "leaderboard.png" in page
    assert "val_accuracy" in page


def test_a_second_repro_runs_nothing(here: Project) -> None:
    assert started(here.must("dvc", "repro")) == []
    assert here.must("git", "status", "--porcelain") == ""


CODE = "src/image_classification"
TRAINED = {f"train@{name}" for name in NAMES}
EVALUATED = {f"evaluate@{name}" for name in NAMES}


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("conf/model/tiny_cnn.yaml", {"dropout": 0.5}, {"train@tiny_cnn-0"}),
        ("conf/model/tiny_cnn.yaml", "# a comment\n", set()),
        ("conf/model/nn.yaml", {"family": "another"}, set()),  # not one of `models`
        ("conf/recipe/notebook.yaml", {"epochs": 99}, set()),
        ("conf/recipe/fast.yaml", {"warm_up": 0.123}, TRAINED),
        ("params.yaml", {"recipe.epochs": 3}, TRAINED),
        ("params.yaml", {"augmentation.name": "light"}, TRAINED),
        ("conf/augmentation/by_model.yaml", {"shift": 0.1}, TRAINED),
        ("conf/augmentation/light.yaml", {"shift": 0.2}, set()),
        ("conf/data/tiny.yaml", {"split_seed": 43}, {"split", "compare"}),
        ("params.yaml", {"compare.metric": "f1_macro"}, {"compare"}),
        ("params.yaml", {"promotion.name": "none"}, {"compare"}),
        ("params.yaml", {"promotion.margin": -0.5}, {"compare"}),
        ("conf/promotion/default.yaml", {"requirements.accuracy": 0.9}, {"compare"}),
        ("conf/promotion/none.yaml", {"margin": -1}, set()),
        ("params.yaml", {"data.split_per_seed": True}, TRAINED | EVALUATED),
        ("conf/data/tiny.yaml", {"mirrors": []}, {"split", "compare"}),  # which is the same again
        (f"{CODE}/models/build.py", "# a comment\n", TRAINED | EVALUATED),
        (f"{CODE}/training/fit.py", "# a comment\n", TRAINED),
        (f"{CODE}/evaluation/latency.py", "# a comment\n", EVALUATED | {"compare"}),
        (f"{CODE}/reporting/templates/report.html.j2", "\n", {"compare"}),
        (f"{CODE}/promotion/gate.py", "# a comment\n", {"compare"}),
        (f"{CODE}/formats/decode.py", "# a comment\n", {"download", "split"}),
        (f"{CODE}/sources/mirrors.py", "# a comment\n", set()),  # what it fetches is checked
        (f"{CODE}/tracking/uploader.py", "# a comment\n", set()),
        (f"{CODE}/core/command.py", "# a comment\n", set()),
    ],
)
def test_a_change_reruns_just_what_it_affects(
    here: Project, file: str, change: str | dict[str, object], expected: set[str]
) -> None:
    try:
        if isinstance(change, str):
            (here.root / file).write_text((here.root / file).read_text() + change)
        else:
            for key, value in change.items():
                here.set(file, key, value)
        found = here.dvc_status()
    finally:
        here.restore()

    assert set(found) == expected


def test_another_seed_runs_what_is_new_and_compares(here: Project) -> None:
    try:
        here.set("params.yaml", "seeds", [0, 1])
        found = here.dvc_status()
    finally:
        here.restore()

    # A stage that has never run is listed, with its missing outputs.
    new = {stage.replace("-0", "-1") for stage in TRAINED | EVALUATED}
    assert set(found) == new | {"compare"}


@pytest.mark.slow
def test_the_registry_follows_the_parameters_there_and_back(trained_copy: Project) -> None:
    before = aliases(trained_copy)
    (worst,) = (name for name in PARAMETERS if before[name] != before["champion"])

    trained_copy.set("params.yaml", "models", [worst])
    trained_copy.set("params.yaml", "promotion.gate", "none")
    data = trained_copy.root / "conf/data/tiny.yaml"
    described = yaml.safe_load(data.read_text())
    del described["published"]  # a data set's file need not have it
    data.write_text(yaml.safe_dump(described))
    # The split is made from the whole description; that it is the same again, nothing is trained.
    assert started(trained_copy.must("dvc", "repro")) == ["split", "compare"]
    moved = dict.fromkeys(("candidate", "champion"), before[worst])
    assert aliases(trained_copy) == {**before, **moved}

    trained_copy.restore()
    trained_copy.set("params.yaml", "promotion.gate", "none")
    assert started(trained_copy.must("dvc", "repro")) == ["compare"]  # DVC's cache does not answer
    assert aliases(trained_copy) == before


@pytest.mark.slow
def test_the_reports_own_command_trains_nothing_anew(here: Project) -> None:
    page = (here.root / "reports/index.html").read_text()
    (command,) = re.findall(r"^(dvc exp run [^<]*)</pre>", page, re.MULTILINE)
    command = html.unescape(command).replace("dvc exp run", "dvc exp run --temp")

    said = here.must("bash", "-c", command)

    assert "Stage 'train@tiny_cnn-0' didn't change, skipping" in said
    assert started(said) == []


@pytest.mark.slow
def test_a_comparison_in_a_copy_is_logged_to_the_main_checkout_and_moves_no_alias(
    trained_copy: Project,
) -> None:
    before, comparison = aliases(trained_copy), runs(trained_copy)["comparison"].info.run_id
    (worst,) = (name for name in PARAMETERS if before[name] != before["champion"])

    said = trained_copy.must("dvc", "exp", "run", "--temp", "-S", f"models=[{worst}]")

    assert started(said) == ["compare"]
    found = runs(trained_copy)["comparison"]
    assert found.info.run_id != comparison
    assert found.data.params["models"] == f"['{worst}']"
    assert aliases(trained_copy) == before
    assert trained_copy.must("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_changed_model_reruns_its_own_stages_and_the_old_one_comes_from_the_cache(
    split_project: Project,
) -> None:
    project = split_project
    project.set("params.yaml", "models", ["tiny_lm"])
    project.set("params.yaml", "promotion.gate", "none")
    project.must("git", "commit", "--quiet", "--all", "--message", "one model")
    project.must("dvc", "repro")
    before = aliases(project)

    project.set("conf/model/tiny_lm.yaml", "fast.batch_size", 64)
    said = project.must("dvc", "repro")

    assert started(said) == ["train@tiny_lm-0", "evaluate@tiny_lm-0", "compare"]
    assert not set(aliases(project).values()) & set(before.values())

    project.restore()
    said = project.must("dvc", "repro")

    # Nothing is trained again, and the registry points at the first run again.
    assert started(said) == ["compare"]
    assert aliases(project) == before


@pytest.mark.slow
def test_an_experiment_in_a_copy_reads_its_own_config_and_logs_to_the_main_checkout(
    trained_copy: Project,
) -> None:
    before = aliases(trained_copy)
    known = {run.info.run_id for run in runs(trained_copy).values()}

    trained_copy.must(
        *("dvc", "exp", "run", "--temp", "-S", "recipe.epochs=1", "-S", "models=[tiny_cnn]"),
        *("-S", "conf/model/tiny_cnn.yaml:dropout=0.7"),
    )

    found = runs(trained_copy)
    new = {name: run for name, run in found.items() if run.info.run_id not in known}
    assert sorted(new) == ["comparison", "tiny_cnn-0"]
    params = new["tiny_cnn-0"].data.params
    assert (params["recipe.epochs"], params["model.dropout"]) == ("1", "0.7")
    assert aliases(trained_copy) == before
    assert trained_copy.dvc_status() == {}


@pytest.mark.slow
def test_mlflow_run_trains_one_model_with_any_setting(trained_copy: Project) -> None:
    said = trained_copy.must(
        *("mlflow", "run", ".", "--env-manager", "local", "-e", "train"),
        *("-P", "model=tiny_lm", "-P", "recipe.epochs=1", "-P", "seed=5"),
    )

    run = runs(trained_copy)["tiny_lm-5"]  # in the data set's experiment, though none was named
    assert run.data.params["recipe.epochs"] == "1"
    assert run.data.tags["seed"] == "5"
    assert len(client(trained_copy).get_metric_history(run.info.run_id, "val_accuracy")) == 1
    opened = said.rpartition("Run (ID '")[2].partition("'")[0]
    note = client(trained_copy).get_run(opened).data.tags["mlflow.note.content"]
    assert f"/runs/{run.info.run_id})" in note
    assert trained_copy.dvc_status() == {}


@pytest.mark.slow
def test_mlflow_run_runs_the_whole_pipeline_with_any_setting(split_project: Project) -> None:
    before = split_project.must("git", "status", "--porcelain")
    split_project.must(
        *("mlflow", "run", ".", "--env-manager", "local"),
        *("-P", "models=[tiny_lm]", "-P", "recipe=notebook", "-P", "recipe.epochs=1"),
    )

    run = runs(split_project)["tiny_lm-0"]
    assert run.data.tags["recipe"] == "notebook"
    assert run.data.params["recipe.epochs"] == "1"
    assert runs(split_project)["comparison"].info.status == "FINISHED"
    # For once: the project's own settings and results stay as they are.
    assert split_project.must("git", "status", "--porcelain") == before
    assert not (split_project.root / "reports").exists()


@pytest.mark.slow
def test_more_seeds_train_only_what_is_new(split_project: Project) -> None:
    project = split_project
    project.must("dvc", "exp", "run", "-S", "models=[tiny_lm]")
    first = runs(project)["tiny_lm-0"].info.run_id
    project.must("dvc", "exp", "run", "-S", "models=[tiny_lm]", "-S", "seeds=[0,1,2]")

    found = runs(project)
    assert sorted(found) == ["comparison", "tiny_lm-0", "tiny_lm-1", "tiny_lm-2"]
    del found["comparison"]
    assert found["tiny_lm-0"].info.run_id == first
    verdict = json.loads((project.root / "reports/verdict.json").read_text())
    (score,) = verdict["scores"]
    accuracies = [run.data.metrics["test_accuracy"] for run in found.values()]
    assert score["runs"] == 3
    assert score["mean"] == pytest.approx(np.mean(accuracies))
    assert score["deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    page = (project.root / "reports/index.html").read_text()
    assert "-S 'seeds=[0, 1, 2]'" in page  # the command that repeats it
