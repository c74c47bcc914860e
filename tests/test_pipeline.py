"""The whole pipeline by its commands, in a project of its own, on the tiny data set."""

import html
import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Project
from mlflow.entities import Run

pytestmark = pytest.mark.xdist_group("pipeline")  # one project for all of it

TRAININGS = ["cnn-0", "lm-0"]


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


def changed(project: Project) -> set[str]:
    """The stages that `dvc repro` would run because something of theirs changed."""
    return set(json.loads(project.must("dvc", "status", "--json")))


def test_each_training_is_a_finished_run_with_its_history(trained: Project) -> None:
    assert sorted(runs(trained)) == ["cnn-0", "comparison", "lm-0"]
    for run in (runs(trained)[name] for name in TRAININGS):
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
    run = runs(trained)["cnn-0"]
    lock = yaml.safe_load((trained.root / "dvc.lock").read_text())
    first = trained.must("git", "rev-list", "--max-parents=0", "HEAD").strip()

    tags = run.data.tags
    assert tags["dvc.data"] == lock["stages"]["split"]["outs"][0]["md5"]
    assert (tags["git.commit"], tags["git.dirty"]) == (first, "false")
    assert tags["mlflow.source.name"].endswith("train.py")
    assert tags["mlflow.user"]
    assert [tags[key] for key in ("dataset", "model", "recipe", "seed")] == [
        "tiny",
        "cnn",
        "fast",
        "0",
    ]
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.name == "tiny"


def test_a_run_holds_parameters_test_metrics_and_artifacts(trained: Project) -> None:
    run = runs(trained)["cnn-0"]

    assert run.data.params["recipe.epochs"] == "2"
    assert run.data.params["model.layers.hidden.units"] == "400"
    assert run.data.params["seed"] == "0"
    measured = json.loads((trained.root / "evaluations/cnn-0/metrics.json").read_text())
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
        "predictions.csv",
        "robustness.csv",
        "costs.json",
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

    for name in ("lm", "cnn"):
        version = store.get_model_version_by_alias("tiny", name)
        assert version.run_id == runs(trained)[f"{name}-0"].info.run_id
    champion = str(store.get_model_version_by_alias("tiny", "champion").run_id)
    assert client(trained).get_run(champion).data.tags["run.key"] == best["run"]
    assert len(store.search_model_versions("name = 'tiny'")) == 2

    mlflow.set_tracking_uri(f"sqlite:///{trained.root / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/tiny@cnn")
    images = np.load(trained.root / "data/split/test_images.npy")
    labels = np.load(trained.root / "data/split/test_labels.npy")
    accuracy = (np.asarray(model.predict(images)).argmax(axis=1) == labels).mean()
    row = next(row for row in board if row["model"] == "cnn")
    assert accuracy == pytest.approx(row["test_accuracy"])


def test_the_leaderboard_tells_what_the_stages_measured(trained: Project) -> None:
    board = json.loads((trained.root / "reports/leaderboard.json").read_text())

    assert sorted(f"{row['model']}-{row['seed']}" for row in board) == TRAININGS
    assert {row["model"]: row["parameters"] for row in board} == {"lm": 7_850, "cnn": 650_714}
    for row in board:
        run = runs(trained)[f"{row['model']}-0"]
        assert row["run"] == run.data.tags["run.key"]
        assert row["test_accuracy"] == pytest.approx(run.data.metrics["test_accuracy"])
        assert row["epochs"] == 2
    page = (trained.root / "reports/leaderboard.md").read_text()
    assert all(f"| {name} |" in page for name in TRAININGS)
    figures = {path.name for path in (trained.root / "reports/figures").iterdir()}
    assert figures >= {"leaderboard.png", "accuracy_linear.png", "accuracy_convolutional.png"}


def test_robustness_and_costs_are_measured_on_the_model(trained: Project) -> None:
    folder = trained.root / "evaluations/cnn-0"
    robustness = pd.read_csv(folder / "robustness.csv")
    metrics = json.loads((folder / "metrics.json").read_text())
    costs = json.loads((folder / "costs.json").read_text())

    unharmed = robustness[robustness["strength"] == 0]
    assert unharmed["accuracy"].tolist() == pytest.approx([metrics["test_accuracy"]] * 5)
    noisy = robustness[(robustness["corruption"] == "noise") & (robustness["strength"] > 0)]
    assert metrics["robustness_noise"] == pytest.approx(noisy["accuracy"].mean())
    assert costs["parameters"] == 650_714
    assert costs["model_bytes"] == (trained.root / "models/cnn-0/model.keras").stat().st_size
    assert costs["microseconds_batch_1"] > costs["microseconds_batch_256"] > 0


def test_the_comparison_is_a_run_that_leads_to_the_runs_compared(trained: Project) -> None:
    run = client(trained).get_run(runs(trained)["comparison"].info.run_id)
    compared = [runs(trained)[name] for name in TRAININGS]

    note = run.data.tags["mlflow.note.content"]
    for training in compared:
        experiment, run_id = training.info.experiment_id, training.info.run_id
        assert f"(#/experiments/{experiment}/runs/{run_id})" in note
    assert run.inputs is not None
    linked = {model.model_id for model in run.inputs.model_inputs}
    assert linked == {
        output.model_id
        for training in compared
        if training.outputs
        for output in training.outputs.model_outputs
    }
    logged = artifacts(trained, run, "")
    assert {"index.html", "verdict.json", "leaderboard.md", "figures"} <= logged


def test_the_reports_own_command_trains_nothing_anew(trained: Project) -> None:
    page = (trained.root / "reports/index.html").read_text()
    (command,) = re.findall(r"^(dvc exp run [^<]*)</pre>", page, re.MULTILINE)
    command = html.unescape(command).replace("dvc exp run", "dvc exp run --temp")

    said = trained.must("bash", "-c", command)

    assert "Stage 'train@cnn-0' didn't change, skipping" in said
    assert "Running stage 'train" not in said


def test_every_version_has_a_model_card(trained: Project) -> None:
    for name in ("lm", "cnn"):
        version = client(trained).get_model_version_by_alias("tiny", name)
        run = runs(trained)[f"{name}-0"]
        card = version.description or ""
        assert f"{run.data.metrics['test_accuracy']:.4f}" in card
        assert run.data.tags["git.commit"] in card
        assert run.data.tags["machine"] in card
        assert "Intended use, users, uses to avoid: unknown" in card


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


def test_dvc_shows_the_same_metrics_and_the_plots(trained: Project) -> None:
    shown = json.loads(trained.must("dvc", "metrics", "show", "--json"))
    board = json.loads((trained.root / "reports/leaderboard.json").read_text())

    files = shown[""]["data"]
    for row in board:
        name = f"evaluations/{row['model']}-0/metrics.json"
        assert files[name]["data"]["test_accuracy"] == row["test_accuracy"]
    trained.must("dvc", "plots", "show", "--out", "dvc_plots")
    page = (trained.root / "dvc_plots/index.html").read_text()
    assert "leaderboard.png" in page
    assert "val_accuracy" in page


def test_a_second_repro_runs_nothing(trained: Project) -> None:
    said = trained.must("dvc", "repro")

    assert "Running stage" not in said
    assert trained.must("git", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("conf/model/cnn.yaml", "dropout: 0.25", "dropout: 0.5", {"train@cnn-0"}),
        ("conf/model/cnn.yaml", "# Two convolutions", "# Still two convolutions", set()),
        ("conf/model/dcnn.yaml", "dropout: 0.25", "dropout: 0.5", set()),
        ("conf/recipe/notebook.yaml", "epochs: 20", "epochs: 21", set()),
        ("conf/recipe/fast.yaml", "one_cycle", "constant", {"train@cnn-0", "train@lm-0"}),
        ("params.yaml", "epochs: 2", "epochs: 3", {"train@cnn-0", "train@lm-0"}),
        ("params.yaml", "seeds: [0]", "seeds: [0, 1]", {"compare"}),
        ("conf/data/tiny.yaml", "split_seed: 42", "split_seed: 43", {"split"}),
        (
            "params.yaml",
            "split_per_seed: null",
            "split_per_seed: true",
            {f"{stage}@{name}" for stage in ("train", "evaluate") for name in TRAININGS},
        ),
        ("conf/data/tiny.yaml", ".gz", "", set()),
        ("src/image_classification/costs.py", '"""', '""" ', {"evaluate@cnn-0", "evaluate@lm-0"}),
        (
            "src/image_classification/figures.py",
            '"""',
            '""" ',
            {"evaluate@cnn-0", "evaluate@lm-0", "compare"},
        ),
        ("src/image_classification/templates/report.html.j2", "lang=", "lang =", {"compare"}),
        ("src/image_classification/tracking.py", '"""', '""" ', set()),
    ],
)
def test_a_changed_knob_reruns_just_what_it_affects(
    trained: Project, file: str, old: str, new: str, expected: set[str]
) -> None:
    try:
        trained.edit(file, old, new)
        found = changed(trained)
    finally:
        trained.restore()

    # A stage that has never run is listed with its missing outputs; they are not re-runs.
    assert {name for name in found if not name.endswith("-1")} == expected


def test_a_changed_model_reruns_its_own_stages_and_the_old_one_comes_from_the_cache(
    project: Project,
) -> None:
    project.edit("params.yaml", "models: [lm, cnn]", "models: [lm]")
    project.must("git", "commit", "--quiet", "--all", "--message", "one model")
    project.must("dvc", "repro")
    before = client(project).get_model_version_by_alias("tiny", "lm").run_id

    project.edit("conf/model/lm.yaml", "batch_size: 128", "batch_size: 64")
    said = project.must("dvc", "repro")

    started = [line for line in said.splitlines() if line.startswith("Running stage")]
    assert [line.split("'")[1] for line in started] == ["train@lm-0", "evaluate@lm-0", "compare"]
    assert client(project).get_model_version_by_alias("tiny", "lm").run_id != before

    project.restore()
    said = project.must("dvc", "repro")

    # Nothing is trained again, and the registry points at the first run again.
    assert "Running stage 'train" not in said
    assert client(project).get_model_version_by_alias("tiny", "lm").run_id == before


def test_an_experiment_in_a_copy_reads_its_own_config_and_logs_to_the_project(
    trained: Project,
) -> None:
    store = client(trained)
    before = {
        alias: store.get_model_version_by_alias("tiny", alias).version
        for alias in ("lm", "cnn", "champion")
    }
    known = {run.info.run_id for run in runs(trained).values()}

    trained.must(
        *("dvc", "exp", "run", "--temp"),
        *("-S", "recipe.epochs=1", "-S", "models=[cnn]", "-S", "conf/model/cnn.yaml:dropout=0.7"),
    )

    new = {name: run for name, run in runs(trained).items() if run.info.run_id not in known}
    assert sorted(new) == ["cnn-0", "comparison"]
    params = new["cnn-0"].data.params
    assert (params["recipe.epochs"], params["model.dropout"]) == ("1", "0.7")
    after = {
        alias: store.get_model_version_by_alias("tiny", alias).version
        for alias in ("lm", "cnn", "champion")
    }
    assert after == before
    assert changed(trained) == set()


def test_a_sweep_stands_under_one_parent_repeats_nothing_and_leaves_dvc_alone(
    trained: Project,
) -> None:
    sweep = ("recipe=notebook", "recipe.epochs=1")
    trained.must("hydra", "-m", "model=lm,nn", *sweep)

    store = client(trained)
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is not None
    parents = store.search_runs([experiment.experiment_id], "tags.sweep = 'true'")
    assert [run.info.status for run in parents] == ["FINISHED"]
    children = store.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parents[0].info.run_id}'"
    )
    assert sorted(run.info.run_name for run in children) == ["lm-0", "nn-0"]
    assert {run.info.status for run in children} == {"FINISHED"}
    assert {run.data.params["recipe.batch_size"] for run in children} == {"32"}

    said = trained.must("hydra", "-m", "model=lm", "seed=range(0,2)", *sweep)

    (first,) = (run.info.run_id for run in children if run.info.run_name == "lm-0")
    assert f"lm-0 has been trained by run {first}, and is not again" in said
    assert len(store.search_runs([experiment.experiment_id], "tags.recipe = 'notebook'")) == 3
    assert changed(trained) == set()
    assert trained.must("git", "status", "--porcelain") == ""


def test_mlflow_run_trains_one_model_with_any_knob(trained: Project) -> None:
    said = trained.must(
        *("mlflow", "run", ".", "--env-manager", "local", "-e", "train"),
        *("-P", "model=lm", "-P", "recipe.epochs=1", "-P", "seed=5"),
    )

    run_id = said.rpartition("Run (ID '")[2].partition("'")[0]
    run = client(trained).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.epochs"] == "1"
    assert run.data.tags["seed"] == "5"
    assert len(client(trained).get_metric_history(run_id, "val_accuracy")) == 1
    assert changed(trained) == set()


def test_mlflow_run_runs_the_whole_pipeline_with_any_knob(project: Project) -> None:
    project.must(
        *("mlflow", "run", ".", "--env-manager", "local"),
        *("-P", "models=[lm]", "-P", "recipe=notebook", "-P", "recipe.epochs=1"),
    )

    board = json.loads((project.root / "reports/leaderboard.json").read_text())
    assert [(row["model"], row["epochs"]) for row in board] == [("lm", 1)]
    assert runs(project)["lm-0"].data.tags["recipe"] == "notebook"


def test_more_seeds_train_only_what_is_new(project: Project) -> None:
    project.must("dvc", "exp", "run", "-S", "models=[lm]")
    first = runs(project)["lm-0"].info.run_id
    project.must("dvc", "exp", "run", "-S", "models=[lm]", "-S", "seeds=[0,1,2]")

    found = runs(project)
    assert sorted(found) == ["comparison", "lm-0", "lm-1", "lm-2"]
    del found["comparison"]
    assert found["lm-0"].info.run_id == first
    verdict = json.loads((project.root / "reports/verdict.json").read_text())
    (score,) = verdict["scores"]
    accuracies = [run.data.metrics["test_accuracy"] for run in found.values()]
    assert score["trainings"] == 3
    assert score["mean"] == pytest.approx(np.mean(accuracies))
    assert score["deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    assert score["over_seeds"]["low"] <= score["mean"] <= score["over_seeds"]["high"]
    page = (project.root / "reports/index.html").read_text()
    assert "3 trainings of each of 1 model" in page
    assert "-S 'seeds=[0, 1, 2]'" in page  # the command that repeats it
    assert "#verdict" not in page  # there is no pair to judge
    assert "bands go from the lowest to the highest" in page
