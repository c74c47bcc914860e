"""The runs of a sweep: how many there are, and which one this is."""

import math
from pathlib import Path

import hydra
import pytest
from conftest import Compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from image_classification.tracking import sweep
from image_classification.tracking.sweep_parent import SweepParent


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a sweep nor DVC runs this process, until the test says so."""
    monkeypatch.delenv(sweep.SWEEP, raising=False)
    monkeypatch.delenv("DVC_STAGE", raising=False)


@pytest.mark.parametrize(
    ("overrides", "jobs"),
    [
        ([], 1),
        (["model=cnn", "seed=1"], 1),
        (["model=nn,cnn"], 2),
        (["model=nn,cnn,nn"], 3),
        (["model=nn,cnn", "seed=0,1,2", "recipe.epochs=3"], 6),
        (["seed=range(0,5)"], 5),
        (["seed=range(1,10,2)", "model=nn,cnn"], 10),
        (["data.classes=[a,b]"], 1),  # a list is one value
        (["model=choice(nn,cnn)"], 2),
    ],
)
def test_the_jobs_of_a_sweep_are_counted(overrides: list[str], jobs: int) -> None:
    assert math.prod(sweep.swept(overrides).values()) == jobs


def test_the_jobs_of_a_sweep_over_all_files_are_counted(configuration: Path) -> None:
    files = list((configuration / "conf/recipe").glob("*.yaml"))
    assert len(files) >= 2

    with hydra.initialize_config_dir(str(configuration / "conf"), version_base="1.3"):
        assert sweep.swept(["recipe=glob(*)", "seed=0,1"]) == {"recipe": len(files), "seed": 2}


def test_a_run_by_hand_has_no_position(compose: Compose) -> None:
    assert sweep.position(compose(), "cnn-0") == ""
    assert sweep.parent() is None


def test_a_job_of_a_sweep_has_its_position_and_parent(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sweep.SWEEP, "")  # taken back after the test, whatever `announce` sets
    sweep.announce(sweep.announcement({"key": "x"}, 4))
    config = compose("model=nn")
    number_of_job = OmegaConf.create({"hydra": {"job": {"num": 1}}})  # counted from 0
    monkeypatch.setattr(HydraConfig.instance(), "cfg", number_of_job)

    assert sweep.position(config, "nn-0") == "run 2 of 4: "
    assert sweep.parent() == {"key": "x"}


def test_a_run_of_the_pipeline_has_its_position(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@cnn-5")
    config = compose("models=[nn,cnn]", "seeds=[3,5]")

    names = ("nn-3", "nn-5", "cnn-3", "cnn-5")  # as DVC runs them
    assert [sweep.position(config, name) for name in names] == [
        f"run {number} of 4: " for number in (1, 2, 3, 4)
    ]


def test_a_run_that_was_taken_out_of_params_yaml_since_has_no_position(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@cnn-5")

    assert sweep.position(compose("models=[nn]", "seeds=[3]"), "cnn-5") == ""


def test_only_what_failed_in_this_sweep_fails_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder may hold the errors of jobs that are no longer swept over."""
    choices = {"hydra/launcher": "basic", "data": None}
    hydra = {
        "sweep": {"dir": str(tmp_path)},
        "runtime": {"choices": choices},
        "overrides": {"task": ["seed=0,1"]},
        "job": {"name": "train"},
    }
    config = OmegaConf.create({"hydra": hydra, "search": None})
    for folder in ("0-gone-0", "lm/0"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "error.txt").write_text("an earlier one\n")
    parent = SweepParent()
    parent.on_multirun_start(config)

    parent.on_multirun_end(config)

    (tmp_path / "lm/0/error.txt").unlink()  # as each job does that is run again
    (tmp_path / "lm/0/error.txt").write_text("still broken\n")
    with pytest.raises(SystemExit):
        parent.on_multirun_end(config)
    assert capsys.readouterr().err.splitlines() == [
        "failed: lm/0: still broken",
        "1 failed: fix that and repeat the command",
    ]
