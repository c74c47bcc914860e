"""`mlflow run`: what it is given becomes overrides for Hydra, or parameters for DVC."""

import shlex

import pytest
import yaml
from conftest import ROOT, Project
from mlflow.projects._project_spec import load_project
from mlflow.utils.environment import _PythonEnv

from image_classification import mlproject


def test_what_mlflow_appends_becomes_overrides_for_hydra() -> None:
    arguments = ["--model", "cnn", "--recipe.epochs", "3"]

    assert mlproject.train(arguments) == [
        "image_classification",
        "train",
        "model=cnn",
        "recipe.epochs=3",
    ]


def test_the_pipeline_sets_parameters_under_dvcs_names() -> None:
    arguments = ["--recipe", "notebook", "--seeds", "[0,1]"]

    assert mlproject.pipeline(arguments) == [
        *("dvc", "exp", "run", "--temp"),
        *("--set-param", "recipe.name=notebook", "--set-param", "seeds=[0,1]"),
    ]


def test_without_a_setting_the_pipeline_is_reproduced() -> None:
    assert mlproject.pipeline([]) == ["dvc", "repro"]


@pytest.mark.parametrize(
    ("entry_point", "given", "module", "arguments"),
    [
        ("main", [], "dvc", ["repro"]),
        ("main", ["--seeds", "[1]"], "dvc", ["exp", "run", "--temp", "--set-param", "seeds=[1]"]),
        ("train", ["--seed", "1"], "image_classification", ["train", "model=cnn", "seed=1"]),
    ],
)
def test_an_entry_point_becomes_its_command(
    project: Project, entry_point: str, given: list[str], module: str, arguments: list[str]
) -> None:
    """With modules that only say how they were called in place of DVC and of the door."""
    stand_ins = project.root / "stand_ins"
    prints = "import os, sys; print(sys.argv[1:], os.environ.get('MLFLOW_RUN_ID'))"
    (stand_ins / "dvc").mkdir(parents=True)
    (stand_ins / "dvc/__init__.py").touch()
    (stand_ins / "dvc/__main__.py").write_text(prints)
    (project.root / "src/image_classification/__main__.py").write_text(prints)
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    command = entry_points[entry_point]["command"].format(model="cnn")

    said = project.must(
        *("bash", "-c", f"{command} {shlex.join(given)}"),
        MLFLOW_RUN_ID="opened",
        PYTHONPATH="stand_ins",
    )

    # The pipeline's runs must not all become the one run that `mlflow run` has opened.
    assert said == f"{arguments} {'opened' if module != 'dvc' else None}\n"


def test_mlflow_makes_an_environment_from_the_lock() -> None:
    """It would be empty else."""
    environment = _PythonEnv.from_yaml(load_project(ROOT).env_config_path)

    assert environment.dependencies == ["-r requirements.lock"]
    assert (ROOT / "requirements.lock").exists()
