"""What a user can get wrong on the command line: one line on stderr, no traceback, nothing lost."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from conftest import Project

from image_classification.__main__ import STAGES
from image_classification.core.command import command_line
from image_classification.core.config import RecipeConfig
from image_classification.core.tensorflow_log import has_gpu

COMMAND = (sys.executable, "-m", "image_classification")
SETTINGS = ", ".join(sorted(field.name for field in fields(RecipeConfig)))
HEAVY = {"tensorflow", "keras", "mlflow", "sklearn", "matplotlib"}  # seconds each to import


@pytest.fixture(scope="module")
def untouched(fresh: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which nothing has run; for the tests that leave it so."""
    return fresh.copy(tmp_path_factory.mktemp("commands"))


def run(project: Project, *command: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command; its result, and the modules that it imported."""
    done = project.run(*command, PYTHONPROFILEIMPORTTIME="1")
    lines = done.stderr.splitlines()
    imported = [line for line in lines if line.startswith("import time:")]
    done.stderr = "\n".join(line for line in lines if line not in imported)
    return done, {line.rpartition("|")[2].strip() for line in imported}


def refused(project: Project, *command: str) -> str:
    """Run a command that must fail with one line, before it imports TensorFlow; the line."""
    done, imported = run(project, *command)
    assert done.returncode in (1, 2), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "image_classification" in imported
    assert not {"tensorflow", "keras"} & imported
    return done.stderr


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=nosuch"], "Could not find 'model/nosuch' Available options in 'model': "),
        (["recipe=slow"], "Could not find 'recipe/slow' Available options in 'recipe': "),
        (["recipe.epochs=-1"], "recipe.epochs: must be at least 1, got -1"),
        (["recipe.epochs=many"], "recipe.epochs: Value 'many' of type 'str' could not be conver"),
        (["recipe.epoch=3"], f"unknown key recipe.epoch; known here: {SETTINGS}"),
        (["+recipe.epoch=3"], f"unknown key recipe.epoch; known here: {SETTINGS}"),
        (["epochs=3"], "unknown key epochs; known here: augmentation, compare, "),
        (["model=[nn"], "no viable alternative"),
        (
            ["-m", "model=tiny_lm,tiny_cnn", "search=optuna", "trial=range(0,2)"],
            "model: a search sweeps over trial alone: search once for each value",
        ),
        (["-m", "search=optuna,random", "trial=0,1"], "search: a search sweeps over trial alone"),
        (["-m", "recipe.learning_rate=interval(0,1)"], "Can only enumerate CHOICE and RANGE"),
        ([], "data/split/train_images.npy is missing: run `dvc repro split`"),
    ],
)
def test_a_bad_command_line_is_one_line(
    untouched: Project, overrides: list[str], said: str
) -> None:
    assert said in refused(untouched, *COMMAND, "train", *overrides)
    assert not (untouched.root / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cfg", "job", "--package", "recipe", "recipe.warm_up=0.5"], "\nwarm_up: 0.5\n"),
        (["--cfg", "job", "--resolve"], "\noutput_dir: outputs/train-"),
        (["--cfg", "job", "model=tiny_cnn", "-p", "model", "~model.layers.hidden"], "Conv2D"),
        (["--cfg", "hydra"], "\n    dir: outputs/"),
        (["--hydra-help"], "== Flags =="),
        (["--info"], "Installed Hydra Plugins"),
        (["--version"], "Hydra 1."),
        (["-sc", "install=bash"], "hydra_bash_completion"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_hydras_own_flags_work(untouched: Project, words: list[str], said: str) -> None:
    assert said in untouched.must("hydra", *words)


def test_params_yaml_stands_beside_the_overrides_wherever_the_flags_are() -> None:
    params = {"seeds": [0], "recipe": {"epochs": 2}}
    words = ["-p", "recipe", "model=nn", "--cfg", "job", "recipe.epochs=3"]

    line = command_line(words, params)

    assert line == ["seeds=[0]", "model=nn", "recipe.epochs=3", "-p", "recipe", "--cfg", "job"]


@pytest.mark.parametrize(
    "command",
    [
        ["hydra", "recipe.epochs=-1"],  # refused by the configuration
        ["hydra", "model=tiny_lm"],  # refused by the stage: there is no data
    ],
    ids=" ".join,
)
def test_a_failed_command_leaves_no_empty_folder(untouched: Project, command: list[str]) -> None:
    refused(untouched, *command)

    assert not (untouched.root / "outputs").exists()


def test_each_failed_job_of_a_sweep_leaves_its_error_and_nothing_else(project: Project) -> None:
    failed = project.run(*COMMAND, "evaluate", "-m", "model=tiny_lm,tiny_cnn")

    assert failed.returncode == 1
    error = "data/split/train_images.npy is missing: run `dvc repro split`"
    *lines, last = failed.stderr.splitlines()
    assert sorted(lines) == [
        *[f"error: {error}"] * 2,
        f"failed: 0-tiny_lm-0: {error}",
        f"failed: 1-tiny_cnn-0: {error}",
    ]
    assert last == "2 failed: fix that and repeat the command"
    left = project.root.glob("multirun/*/*-tiny_*/*")
    assert [path.read_text() for path in left] == [f"{error}\n"] * 2


def test_a_setting_cannot_be_removed(untouched: Project) -> None:
    said = refused(untouched, "hydra", "~recipe.warm_up", "--cfg", "job")

    assert said.startswith("error: recipe.warm_up: a setting can be changed, not removed")


@pytest.mark.parametrize("words", ["-sc install=bash", "--info all", "--help", "--cfg job"])
def test_output_that_nobody_reads_is_no_error(untouched: Project, words: str) -> None:
    piped = untouched.run("bash", "-c", f"hydra {words} | true")

    assert piped.stderr == ""


def test_a_bad_params_yaml_is_one_line(project: Project) -> None:
    params = project.root / "params.yaml"
    written = yaml.safe_load(params.read_text())
    written["recipe"]["batchsize"] = 3
    params.write_text(yaml.safe_dump(written))
    assert "unknown key recipe.batchsize" in refused(project, *COMMAND, "train")

    params.write_text("seeds: [0")
    assert "not valid YAML" in refused(project, *COMMAND, "train")


def test_outside_of_a_project_is_one_line(tmp_path: Path) -> None:
    # Found where it is installed: the folder has no src/.
    assert "is not in a project" in refused(Project(tmp_path), *COMMAND, "train")


@pytest.mark.parametrize("stage", STAGES)
def test_help_is_there_without_tensorflow_or_mlflow(untouched: Project, stage: str) -> None:
    done, imported = run(untouched, *COMMAND, stage, "--help")

    assert done.returncode == 0
    assert re.search(r"^  data.name +tiny +name: the file of", done.stdout, re.MULTILINE)
    assert "hydra" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([*COMMAND, "split"], "run `dvc repro download`"),
        ([*COMMAND, "evaluate"], "run `dvc repro split`"),
        ([*COMMAND, "compare"], "run `dvc repro split`"),
    ],
)
def test_a_stage_run_before_its_data_is_there_says_what_to_run(
    project: Project, command: list[str], said: str
) -> None:
    assert said in refused(project, *command)


@pytest.mark.slow  # a sweep makes MLflow's store first
def test_a_sweep_before_its_data_is_there_says_what_to_run(project: Project) -> None:
    done = project.run("hydra", "-m", "model=lm")

    assert done.returncode == 1
    error = "data/split/train_images.npy is missing: run `dvc repro split`"
    assert done.stderr.splitlines()[:2] == [f"error: {error}", f"failed: 0-lm-0: {error}"]
    assert "Traceback" not in done.stderr


def test_a_comparison_before_the_evaluations_says_what_to_run(split_project: Project) -> None:
    done = split_project.run(*COMMAND, "compare")

    assert done.returncode == 1
    assert done.stderr.startswith("error: runs/tiny_lm-0/")
    assert done.stderr.endswith("is missing: run `dvc repro evaluate@tiny_lm-0`\n")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(has_gpu(), reason="with a GPU, TensorFlow's first lines are shown")
def test_a_stage_that_starts_tensorflow_prints_only_its_own_lines(split_project: Project) -> None:
    done = split_project.run(*COMMAND, "evaluate", "model=tiny_lm")

    said = "error: runs/tiny_lm-0 holds no trained model: run `dvc repro train@tiny_lm-0`\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_model_with_too_many_layers_is_refused_at_once(split_project: Project) -> None:
    file = split_project.root / "conf/model/tiny_lm.yaml"
    for layers, said in ((1001, "at most 1000, got 1001"), (50_000, "larger than 262,144 bytes")):
        lines = [f"  layer_{number}: {{type: ReLU}}\n" for number in range(layers)]
        file.write_text("layers:\n" + "".join(lines))
        assert said in refused(split_project, *COMMAND, "train", "model=tiny_lm")


def test_a_file_that_cannot_be_written_is_one_line(split_project: Project) -> None:
    limited = f"ulimit -f 1; exec {sys.executable} -m image_classification split"  # 1 KiB a file

    assert "data/split can't be written" in refused(split_project, "bash", "-c", limited)


def test_a_project_can_be_used_from_any_of_its_folders(split_project: Project) -> None:
    folder = split_project.root / "src"
    images = split_project.root / "data/split/test_images.npy"
    images.unlink()

    said = Project(folder).must(*COMMAND, "split", PYTHONPATH=".")

    assert "test 200" in said
    assert images.exists()
    assert not (folder / "data").exists()
