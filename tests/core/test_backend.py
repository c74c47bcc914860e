"""Which backend Keras has, and what is refused before any work."""

import json
from pathlib import Path

import pytest
from conftest import Project

from image_classification.core import backend
from image_classification.core.errors import UserError

TWO_WORKERS = json.dumps(
    {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
)


def test_what_keras_has_no_backend_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorflow", "torch", ""):
        monkeypatch.setenv("KERAS_BACKEND", name)
        if name == "tensorflow":
            backend.require_backend()
        else:
            with pytest.raises(UserError, match=f"KERAS_BACKEND: must be .*, got {name}$"):
                backend.require_backend()


def test_without_jax_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise ModuleNotFoundError(name)

    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(backend, "version", missing)

    with pytest.raises(UserError, match="JAX is not installed: `uv pip install"):
        backend.require_backend()


@pytest.mark.parametrize(
    "cluster",
    [
        None,
        "",
        "{}",
        '{"cluster": {"worker": ["a:1"]}}',  # as Google's training service sets it for one machine
    ],
)
def test_one_worker_may_train(cluster: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if cluster is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", cluster)

    backend.require_one_worker()


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        (TWO_WORKERS, "TF_CONFIG: names 2 workers, but on TensorFlow Keras cannot train one"),
        ('{"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}}', "names 3 workers"),
        ("{", "TF_CONFIG: not valid for TensorFlow"),
        ("[]", "TF_CONFIG: not valid for TensorFlow"),
        ('{"cluster": {"worker": 2}}', "TF_CONFIG: not valid for TensorFlow"),
    ],
)
def test_several_workers_are_refused_on_tensorflow(
    cluster: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", cluster)

    with pytest.raises(UserError, match=said):
        backend.require_one_worker()


def test_a_training_that_is_refused_is_one_line_and_leaves_nothing(
    project: Project, tmp_path: Path
) -> None:
    before = {path for path in tmp_path.iterdir() if path.name not in ("outputs", ".git")}
    for variables, said in (
        ({"TF_CONFIG": TWO_WORKERS}, "error: TF_CONFIG: names 2 workers"),
        ({"KERAS_BACKEND": "torch"}, "error: KERAS_BACKEND: must be tensorflow or jax, got torch"),
    ):
        refused = project.run("hydra", "model=tiny_lm", **variables)

        assert refused.returncode == 1
        assert refused.stderr.startswith(said)
        assert refused.stderr.count("\n") == 1
        assert not list(tmp_path.glob("checkpoints/*"))
        assert not list(tmp_path.glob("outputs/**/*.*"))
        assert {p for p in tmp_path.iterdir() if p.name not in ("outputs", ".git")} == before
