"""`make repro JOBS=2`: several DVCs at work in one project at the same time."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from conftest import Project
from test_faults import WAIT_SECONDS, stand_in, wait_until
from test_torture import (
    NAMES,
    as_init,  # noqa: F401  # a fixture
    logged,
    members,
    outcome,
    wait_until_gone,
)

from image_classification.commands import repro
from image_classification.core import paths


def installed(project: Project) -> Project:
    """The project, for which `make` finds everything installed: in this test's environment."""
    (project.root / ".venv").mkdir()
    (project.root / ".venv/.installed").touch()
    return project


def trainings(group: int) -> list[psutil.Process]:
    """The processes of a group that train."""
    found = []
    for pid in members(group):
        with contextlib.suppress(psutil.Error):  # it has ended since
            process = psutil.Process(pid)
            if process.cmdline()[1:4] == ["-m", "image_classification", "train"]:
                found.append(process)
    return found


def test_the_last_run_is_begun_first_and_once() -> None:
    stages = ["train@lm-0", "train@cnn-0", "evaluate@lm-0", "evaluate@nn-0", "compare"]

    assert repro.names_of_runs(stages) == ["nn-0", "lm-0", "cnn-0"]


def test_no_more_than_asked_for_run_at_once_and_a_failure_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    both = "for i in {1..600}; do [ $(grep -c start log) -ge 2 ] && break; sleep 0.05; done"
    lines = f'echo start >>log; {both}; sleep 0.2; echo "$3"; echo; echo end >>log; '
    fails = '[ "$3" != train@b ] || { echo "error: no memory"; echo ERROR: failed >&2; exit 255; }'
    stand_in(tmp_path / "dvc", lines + fails + '; [ "$3" != train@c ] || kill -9 $$')
    monkeypatch.setattr(repro, "BESIDE_OTHERS", (str(tmp_path / "dvc"),))

    assert repro.run_all(["a", "b", "c", "d"], jobs=2) == 1

    log = (tmp_path / "log").read_text().split()
    running = [log[: i + 1].count("start") - log[: i + 1].count("end") for i in range(len(log))]
    assert (len(log), max(running)) == (8, 2)
    printed = capsys.readouterr()
    assert {f"{name}: train@{name}" for name in "abcd"} < set(printed.out.splitlines())
    assert printed.err.splitlines() == [
        "b: error: no memory",
        "b: ERROR: failed",
        "c: error: dvc ended with -9",
    ]
    assert repro.run_all(["a", "d"], jobs=2) == 0


@pytest.mark.parametrize("words", [[], ["--jobs", "0"], ["--jobs", "two"]])
def test_the_number_of_jobs_is_a_number_from_1(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        repro.main(words)

    assert ended.value.code == 2
    assert "--jobs" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_two_at_once_come_to_the_same_as_one_after_the_other(
    project: Project, trained: Project
) -> None:
    said = installed(project).must("make", "repro", "JOBS=2")

    assert outcome(project) == outcome(trained)
    assert logged(project) == logged(trained)
    assert project.dvc_status() == {}
    ran = re.findall(r"Running stage '(.*)'", said)
    assert sorted(ran[2:-1]) == sorted(f"{s}@{n}" for s in ("train", "evaluate") for n in NAMES)
    assert [*ran[:2], ran[-1]] == ["download", "split", "compare"]
    for name in NAMES:
        assert f"{name}: epoch 1 of 2: " in said
    assert "Running stage" not in project.must("make", "repro", "JOBS=2")


@pytest.mark.slow
def test_a_stage_that_fails_stops_only_what_depends_on_it(split_project: Project) -> None:
    project = installed(split_project)
    project.set("conf/model/tiny_cnn.yaml", "layers.hidden.type", "Thick")

    done = project.run("make", "repro", "JOBS=2")

    assert done.returncode != 0
    first, second = [line for line in done.stderr.splitlines() if line.startswith("tiny_cnn-0: ")]
    assert first.startswith("tiny_cnn-0: error: ")
    assert second.startswith("tiny_cnn-0: ERROR: failed to reproduce 'train@tiny_cnn-0'")
    left = {"train@tiny_cnn-0", "evaluate@tiny_cnn-0", "compare"}
    assert set(project.dvc_status()) == left
    assert not (project.root / paths.REPORTS / "index.html").exists()


@pytest.mark.slow
def test_killed_by_each_signal_it_leaves_no_training_and_comes_to_the_same(
    split_project: Project, trained: Project
) -> None:
    project = installed(split_project)

    def kill_make(group: int) -> None:
        os.kill(group, signal.SIGKILL)

    def end_make(group: int) -> None:
        os.kill(group, signal.SIGTERM)

    def interrupt_all(group: int) -> None:
        os.killpg(group, signal.SIGINT)

    def kill_a_stage(group: int) -> None:
        # The younger one: the other, which resumes, may be at its end.
        max(trainings(group), key=psutil.Process.create_time).kill()

    for kill in (kill_make, end_make, interrupt_all, kill_a_stage):
        with (project.root / "repro.log").open("wb") as log:
            making = subprocess.Popen(
                ["make", "repro", "JOBS=2"],
                cwd=project.root,
                env=project.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: len(trainings(making.pid)) == 2)  # noqa: B023  # called at once
        kill(making.pid)
        # The run beside a killed stage goes on to its end.
        assert making.wait(5 * WAIT_SECONDS if kill is kill_a_stage else WAIT_SECONDS) != 0
        wait_until_gone(making.pid)

    project.must("make", "repro", "JOBS=2")

    assert outcome(project) == outcome(trained)
    assert logged(project) == logged(trained)
    assert project.dvc_status() == {}
