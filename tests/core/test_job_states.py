"""How far a sweep is, by what its jobs note on disk."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from image_classification.core import job_states, workers


def test_a_sweep_counts_the_jobs_that_ended_and_names_those_that_run(tmp_path: Path) -> None:
    assert job_states.progress(tmp_path, 3) == ""
    with job_states.noted(tmp_path, "0-nn-0", 0), job_states.noted(tmp_path, "10-nn-1", 10):
        assert job_states.running(tmp_path) == ["0-nn-0", "10-nn-1"]
        assert job_states.progress(tmp_path, 3) == "sweep: 0 of 3 ended, running: 0-nn-0, 10-nn-1"
    assert job_states.progress(tmp_path, 3) == "sweep: 2 of 3 ended"


def test_a_job_that_exits_has_ended(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), job_states.noted(tmp_path, "0-nn-0", 0):
        raise SystemExit(143)

    assert job_states.running(tmp_path) == []


def test_each_change_is_a_line_until_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with job_states.noted(tmp_path, "0-cnn-0", 0):
        pass  # what an earlier sweep left there
    stop = job_states.show_progress(tmp_path, 1)
    with job_states.noted(tmp_path, "0-nn-0", 0):
        pass
    stop()

    assert capsys.readouterr().out.splitlines()[-1] == "sweep: 1 of 1 ended"
    assert not (tmp_path / job_states.STATES).exists()


def test_a_job_is_noted_in_the_folder_of_the_sweep_however_deep_its_own_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["worker"])
    for of_the_process in ("on_signals", "end_with_parent"):
        monkeypatch.setattr(workers, of_the_process, lambda: None)
    hydra = {
        "job": {"num": 3},
        "sweep": {"dir": "swept", "subdir": "cnn/0"},
        "runtime": {"choices": {"hydra/launcher": "submitit_slurm"}},
    }
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": hydra}))

    with workers.job(workers.CommandProcess(tmp_path, "train", ("elsewhere", 1))):
        print("epoch 1")
        running = job_states.running(Path("swept"))

    assert running == ["cnn/0"]
    assert capsys.readouterr().out == "cnn/0: epoch 1\n"


def test_the_processes_of_jobs_are_those_below_this_one_that_run_them(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from image_classification.core import job_states\n"
        "with job_states.noted(pathlib.Path(sys.argv[1]), '0-nn-0', 0):\n"
        "    input()"
    )
    with (
        job_states.noted(tmp_path, "1-nn-1", 1),  # as on another machine
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other,
        subprocess.Popen([sys.executable, "-c", script, tmp_path], stdin=subprocess.PIPE) as job,
    ):
        while len(job_states.running(tmp_path)) < 2:
            assert job.poll() is None
            time.sleep(0.05)
        assert [process.pid for process in job_states.processes(tmp_path)] == [job.pid]
        for process in (job, other):
            process.communicate(b"\n")
    assert job_states.processes(tmp_path) == []
