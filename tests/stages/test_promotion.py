"""The champion by whole commands: promoted, refused, rolled back, and told to MLflow."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from conftest import Project

from image_classification.commands import history, promote, rollback, sync
from image_classification.core import compose, paths
from image_classification.core.config import Config
from image_classification.data import arrays
from image_classification.models import saved
from image_classification.models.prediction import predict
from image_classification.promotion import records
from image_classification.tracking.mlflow_tags import RUN_KEY


def client(root: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def champion(root: Path) -> str:
    """The key of the run that MLflow's alias leads to."""
    store = client(root)
    version = store.get_model_version_by_alias("tiny", "champion")
    return str(store.get_run(str(version.run_id)).data.tags[RUN_KEY])


def recorded_champion() -> records.JudgedRun:
    record = records.champion(records.read("tiny"))
    assert record is not None
    return record.to


@pytest.fixture
def config(trained_copy: Project, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(trained_copy.root)
    return compose.compose(
        "promotion.requirements.accuracy=0", "promotion.requirements.calibration_error=1"
    )


def test_the_first_comparison_made_its_best_run_champion(trained: Project) -> None:
    (line,) = (trained.root / "promotions/tiny.jsonl").read_text().splitlines()
    record = json.loads(line)
    best, *_ = json.loads((trained.root / "reports/leaderboard.json").read_text())

    assert record["decision"] == "promoted"
    assert record["to"]["key"] == best["run"] == champion(trained.root)
    assert record["numbers"]["to"]["accuracy"] == pytest.approx(best["validation_accuracy"])
    model = (trained.root / "runs" / record["to"]["run"] / "model.keras").read_bytes()
    assert record["to"]["sha256"] == hashlib.sha256(model).hexdigest()


def test_a_worse_model_is_refused_and_the_way_there_and_back_is_told_to_mlflow(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    best, *_, worst = json.loads(Path("reports/leaderboard.json").read_text())
    before = Path("promotions/tiny.jsonl").read_bytes()

    assert promote.promote(config, worst["model"], None, dry_run=True) == 3
    assert Path("promotions/tiny.jsonl").read_bytes() == before
    assert promote.promote(config, worst["model"], None, dry_run=False) == 3
    assert champion(Path.cwd()) == best["run"]
    assert "does not replace the champion" in capsys.readouterr().out

    config.promotion.gate = "none"
    number = client(Path.cwd()).get_model_version_by_alias("tiny", worst["model"]).version
    assert promote.promote(config, str(number), None, dry_run=False) == 0
    assert champion(Path.cwd()) == worst["run"] == recorded_champion().key
    assert recorded_champion().version == int(number)
    told = client(Path.cwd()).get_model_version("tiny", str(number))
    assert told.tags["promotion.decision"] == "promoted"
    assert told.description is not None
    card, _, decided = told.description.partition("\n\n## Promotion\n\n")
    assert card.startswith(worst["model"])
    assert [line[:4] for line in decided.splitlines()] == ["- 20", "- 20"]  # both about it

    assert rollback.rollback("tiny", None, "too many mistakes") == 0
    assert champion(Path.cwd()) == best["run"] == recorded_champion().key
    capsys.readouterr()
    lines = history.history("tiny").splitlines()
    assert [line[:4] for line in lines[:4]] == ["  1 ", "  2 ", "  3 ", "  4*"]
    assert Path("promotions/tiny.jsonl").read_bytes().startswith(before)


def test_while_mlflow_is_down_a_decision_is_kept_and_told_later(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    best, *_, worst = json.loads(Path("reports/leaderboard.json").read_text())
    config.promotion.gate = "none"
    monkeypatch.delenv("DVC_STAGE", raising=False)
    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert promote.promote(config, worst["model"], None, dry_run=False) == 75
    assert recorded_champion().key == worst["run"]
    assert champion(Path.cwd()) == best["run"]
    assert "the decisions in promotions/ wait" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")

    assert sync.sync() == 0

    assert champion(Path.cwd()) == worst["run"]


@pytest.mark.slow
def test_comparing_the_same_runs_again_decides_nothing_new(trained_copy: Project) -> None:
    before = (trained_copy.root / "promotions/tiny.jsonl").read_bytes()

    said = trained_copy.must("dvc", "repro", "--force", "--single-item", "compare")

    assert "is already champion" in said
    assert (trained_copy.root / "promotions/tiny.jsonl").read_bytes() == before


def accuracy(trained: Project, project: Project) -> float:
    """That of the first champion's own file on the validation images of another project."""
    folder = trained.root / "runs" / records_of(trained)[0]["to"]["run"]
    model = saved.load(folder / "model.keras", records_of(trained)[0]["to"]["sha256"])
    images, labels = arrays.load_split(project.root / paths.SPLIT).validation
    return float((predict(model, images).argmax(axis=1) == labels).mean())


def records_of(project: Project) -> list[dict[str, Any]]:
    lines = (project.root / "promotions/tiny.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_another_validation_set_has_the_champion_measured_on_it(
    trained: Project, trained_copy: Project
) -> None:
    """Its folder holds another run by then: the model comes from MLflow."""
    project = trained_copy
    (first,) = (project.root / "promotions/tiny.jsonl").read_text().splitlines()
    project.set("conf/data/tiny.yaml", "split_seed", 43)
    said = project.must("dvc", "repro")

    assert "the champion was judged on other validation examples" in said
    assert f"measuring {json.loads(first)['to']['run']}" in said
    lines = (project.root / "promotions/tiny.jsonl").read_text().splitlines()
    assert lines[0] == first
    record = json.loads(lines[1])
    assert record["from"]["key"] == json.loads(first)["to"]["key"]
    assert record["numbers"]["paired"]["examples"] == 100
    assert "another data set" in record["reason"]
    assert record["numbers"]["from"]["accuracy"] == pytest.approx(accuracy(trained, project))
    again = project.run("image-classification", "promote")
    assert again.returncode in (0, 3)
    assert "measuring" not in again.stdout
    assert len((project.root / "promotions/tiny.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_the_commands_say_in_a_line_what_is_wrong(trained_copy: Project) -> None:
    for arguments, said in (
        (("promote", "99"), "99: "),
        (("promote", "x"), "x: not among the runs compared last: "),
        (("promote", "a", "b"), "a b: one model or version at a time"),
        (("promote", "promotion.margin=1000"), "promotion.margin: must be from -100 to 100"),
        (("rollback",), "is the only champion so far"),
    ):
        done = trained_copy.run("image-classification", *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert said in done.stderr
    (trained_copy.root / "promotions/tiny.jsonl").write_text("x\n")
    done = trained_copy.run(sys.executable, "-m", "image_classification", "history")
    assert done.returncode == 1
    assert done.stderr.startswith("error: promotions/tiny.jsonl, line 1: not a record of a dec")
    shutil.rmtree(trained_copy.root / paths.PROMOTIONS)
    assert "no decision yet" in trained_copy.must("image-classification", "history")
