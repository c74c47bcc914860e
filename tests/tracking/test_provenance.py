import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, Compose

from image_classification.core import hardware, paths
from image_classification.core.errors import UserError
from image_classification.tracking import provenance

HASH = re.compile("[0-9a-f]{64}")


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x")
    done = subprocess.run(
        ["git", *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git repository of its own, with all that defines a training."""
    monkeypatch.chdir(tmp_path)
    for name in ("src/file", "conf/file", "params.yaml", "dvc.yaml", "requirements.lock"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("committed")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "x")
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "ignored", "dirty"),
    [
        (None, None, "false"),
        ("reports", None, "false"),
        ("src/file", None, "true"),
        ("conf/new.yaml", None, "true"),
        ("params.yaml", None, "true"),
        ("dvc.yaml", None, "true"),
        ("requirements.lock", None, "true"),
        ("params.yaml", "params.yaml", "false"),
        ("dvc.yaml", "params.yaml", "true"),
    ],
)
def test_a_commit_is_dirty_when_what_defines_a_training_differs(
    repository: Path, changed: str | None, ignored: str | None, dirty: str
) -> None:
    if changed:
        Path(changed).write_text("changed")

    assert provenance.commit(ignored) == {
        "git.commit": git("rev-parse", "HEAD"),
        "git.dirty": dirty,
    }


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert provenance.commit() == {"git.commit": "unknown", "git.dirty": "unknown"}


@pytest.mark.parametrize(
    ("information", "processor", "shown"),
    [
        ("cpu: 0\nmodel name\t: Fast 9000 @ 3 GHz\nflags\t: x\n", "arm", "Fast 9000 @ 3 GHz"),
        ("cpu: 0\n", "arm", "arm"),
        (None, "arm", "arm"),
        (None, "", "aarch64"),
    ],
)
def test_a_machine_is_its_processor_memory_system_and_packages(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    information: str | None,
    processor: str,
    shown: str,
) -> None:
    file = tmp_path / "cpuinfo"
    if information:
        file.write_text(information)
    monkeypatch.setattr(hardware, "Path", {"/proc/cpuinfo": file}.__getitem__)
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda process: {0: {1, 4, 7}}[process], raising=False
    )
    memory = psutil.virtual_memory()._replace(total=62.6 * 1024**3)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    assert provenance.machine() == (
        f"{shown}, 3 cores, 63 GiB, {platform.system()}, Python {platform.python_version()}, "
        f"tensorflow {version('tensorflow')}, keras {version('keras')}, numpy {version('numpy')}"
    )


def test_where_the_cores_of_a_process_are_not_known_all_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)

    assert ", 12 cores, " in provenance.machine()


def test_a_run_is_tagged_with_where_it_comes_from(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    config = compose("model=cnn")

    assert provenance.of_training(config, "data") == {
        "dvc.data": "data",
        "git.commit": git("rev-parse", "HEAD"),
        "git.dirty": provenance.commit()["git.dirty"],
        "machine": provenance.machine(),
        "backend": "tensorflow",
        "training.key": provenance.training_key(config, "data"),
    }


def test_a_training_on_jax_has_a_key_of_its_own(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    config = compose("model=cnn")
    on_tensorflow = provenance.training_key(config, "data")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(provenance, "version", lambda name: f"1.2 of {name}")

    assert provenance.training_key(config, "data") != on_tensorflow
    origin = provenance.of_training(config, "data")
    assert origin["backend"] == "jax"
    assert origin["machine"].endswith(", jax 1.2 of jax")


def test_the_key_of_a_training_counts_the_code_that_dvc_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    code = {str(path.relative_to(paths.SOURCE)) for path in provenance.training_code()}

    assert {"train.py", "models/build.py", "training/fit.py", "data/splits.py"} <= code
    assert not any(path.startswith(("core/", "tracking/", "evaluation/")) for path in code)


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose: Compose) -> Callable[..., str]:
    """The key of a training with these overrides, in a project with a small stage `train`."""
    monkeypatch.chdir(tmp_path)
    (paths.SOURCE / "training").mkdir(parents=True)
    deps = [f"{paths.SOURCE}/{name}" for name in ("training", "train.py")]
    Path("dvc.yaml").write_text(f"stages: {{train: {{deps: [{', '.join(deps)}, data/split]}}}}")
    Path("data").mkdir()
    for name in ("training/fit.py", "train.py", "training/notes.txt", "compare.py"):
        (paths.SOURCE / name).write_text("x")
    Path("data/split").write_text("x")

    def training_key(*overrides: str, data: str = "data") -> str:
        return provenance.training_key(compose("model=cnn", *overrides), data)

    return training_key


def test_a_key_is_a_hash_of_configuration_and_data(key: Callable[..., str]) -> None:
    different = [
        key(),
        key(data="other data"),
        key("model=nn"),
        key("seed=1"),
        key("recipe.epochs=9"),
        key("augmentation=light"),
        key("data.split_per_seed=true"),
    ]

    assert all(HASH.fullmatch(one) for one in different)
    assert len(set(different)) == len(different)
    assert key("output_dir=elsewhere") == key()


def test_a_key_depends_on_the_order_of_layers(key: Callable[..., str], compose: Compose) -> None:
    config = compose("model=cnn")
    turned = replace(config.model, layers=dict(reversed(config.model.layers.items())))

    assert provenance.training_key(replace(config, model=turned), "data") != key()


@pytest.mark.parametrize("package", ["tensorflow", "keras", "numpy"])
def test_a_key_depends_on_the_versions_of_packages(
    key: Callable[..., str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    before = key()
    monkeypatch.setattr(
        provenance, "version", lambda name: "0.1" if name == package else version(name)
    )

    assert key() != before


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        (paths.SOURCE / "train.py", True),
        (paths.SOURCE / "training/fit.py", True),
        (paths.SOURCE / "training/new.py", True),
        (paths.SOURCE / "training/notes.txt", False),
        (paths.SOURCE / "compare.py", False),
        (Path("data/split"), False),  # its hash counts
    ],
)
def test_a_key_depends_on_the_code_that_trains(
    key: Callable[..., str], path: Path, counts: bool
) -> None:
    before = key()
    path.write_text("changed")

    assert (key() != before) is counts


@pytest.mark.parametrize(
    "text", ["{", "stages:", "stages: {train: {}}", "stages: {train: {deps: 3}}", "a: [{b: 1}]"]
)
def test_a_damaged_pipeline_says_how_to_restore_it(key: Callable[..., str], text: str) -> None:
    Path("dvc.yaml").write_text(text)

    with pytest.raises(UserError, match=r"restore it: `git checkout dvc\.yaml`"):
        key()
