"""What a user can get wrong on the command line: one line on stderr, no traceback, nothing lost."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Project

TRAIN = (sys.executable, "-X", "importtime", "-m", "image_classification.train")


def imported(stderr: str) -> set[str]:
    """The modules that a Python with `-X importtime` says it imported."""
    lines = [line for line in stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def refused(project: Project, *command: str, **variables: str) -> str:
    """Run a command that must fail with one line; the line."""
    done = project.run(*command, **variables)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode in (1, 2), done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "tensorflow" not in imported(done.stderr)  # refused before TensorFlow is loaded
    return lines[0]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=resnet"], "Could not find 'model/resnet' Available options in 'model': cnn dcnn"),
        (["recipe=slow"], "Could not find 'recipe/slow' Available options in 'recipe': fast note"),
        (["recipe.epochs=-1"], "recipe.epochs: must be at least 1, got -1"),
        (["recipe.epochs=many"], "recipe.epochs: Value 'many' of type 'str' could not be conver"),
        (["recipe.epoch=3"], "unknown key recipe.epoch; known here: batch_size, epochs"),
        (["+recipe.epoch=3"], "unknown key recipe.epoch; known here: batch_size, epochs"),
        (["epochs=3"], "unknown key epochs; known here: data, "),
        (["model=[nn"], "no viable alternative"),
        ([], "data/split/train_images.npy is missing: run `dvc repro split`"),
    ],
)
def test_a_bad_command_line_is_one_line(project: Project, overrides: list[str], said: str) -> None:
    assert said in refused(project, *TRAIN, *overrides)
    assert not (project.root / "mlflow.db").exists()


def test_a_bad_params_yaml_is_one_line(project: Project) -> None:
    project.edit("params.yaml", "batch_size: null", "batchsize: 3")

    assert "unknown key recipe.batchsize" in refused(project, *TRAIN)


def test_a_params_yaml_that_is_no_yaml_is_one_line(project: Project) -> None:
    project.edit("params.yaml", "seeds: [0]", "seeds: [0")

    assert "not valid YAML" in refused(project, *TRAIN)


def test_outside_of_a_project_is_one_line(tmp_path: Path) -> None:
    assert "lies in no project" in refused(Project(tmp_path), *TRAIN)


@pytest.mark.parametrize("stage", ["download", "split", "train", "evaluate", "compare"])
def test_help_is_there_without_tensorflow_or_mlflow(project: Project, stage: str) -> None:
    done = project.run(
        sys.executable, "-X", "importtime", "-m", f"image_classification.{stage}", "--help"
    )

    assert done.returncode == 0
    assert "recipe:" in done.stdout
    assert "hydra" in imported(done.stderr)
    assert not imported(done.stderr) & {"tensorflow", "keras", "mlflow", "sklearn", "matplotlib"}


def test_stages_run_before_their_data_is_there_say_what_to_run(project: Project) -> None:
    for stage, said in [
        ("split", "run `dvc repro download`"),
        ("evaluate", "run `dvc repro split`"),
        ("compare", "run `dvc repro split`"),
    ]:
        assert said in refused(project, sys.executable, "-m", f"image_classification.{stage}")
    assert "run `dvc repro split`" in refused(project, "hydra", "-m", "model=lm")
    project.must("dvc", "repro", "split")
    said = refused(project, sys.executable, "-m", "image_classification.compare")
    assert "run `dvc repro evaluate@lm-0`" in said


def test_a_full_disk_is_one_line(project: Project) -> None:
    full = project.root / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system takes more rights than are here")
    try:
        project.must("dvc", "repro", "split")
        said = refused(project, *TRAIN, "hydra.run.dir=full/run")
    finally:
        subprocess.run(["umount", full], check=True)

    assert "full/run: No space left on device: free some space" in said
    assert not (project.root / "mlflow.db").exists()


def test_a_file_that_cannot_be_written_is_one_line(project: Project) -> None:
    project.must("dvc", "repro", "split")
    limited = f"ulimit -f 1; exec {sys.executable} -m image_classification.split"  # 1 KiB a file

    said = refused(project, "bash", "-c", limited)

    assert "data/split can't be written" in said


def test_a_read_only_folder_is_one_line(project: Project) -> None:
    project.must("dvc", "repro", "split")

    assert "/proc/run" in refused(project, *TRAIN, "hydra.run.dir=/proc/run")


def test_a_project_can_be_used_from_any_of_its_folders(project: Project) -> None:
    project.must("dvc", "repro", "split")
    folder: Path = project.root / "src"
    done = subprocess.run(
        [sys.executable, "-m", "image_classification.train", "recipe.epochs=1", "model=lm"],
        cwd=folder,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert (project.root / "mlflow.db").exists()
    assert list((project.root / "outputs").iterdir())
    assert not (folder / "outputs").exists()
