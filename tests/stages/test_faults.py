"""Faults from outside: kills, disks full or read-only, a bad cache, two commands at once.

Each test makes the fault, sees that it occurred, and that the next call recovers.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import yaml
from conftest import ROOT, Compose, Project, small_disk
from test_mlflow_ui import free_port

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.train import train

WAIT_SECONDS = 60
DVC = (sys.executable, "-m", "dvc")


def start(root: Path, *command: str, **variables: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own, so that a signal to its group stays in it."""
    return subprocess.Popen(
        command,
        cwd=root,
        env=Project(root).environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def said(project: Project, *command: str) -> str:
    """What a command that must fail said."""
    done = project.run(*command)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def has_split(project: Project) -> bool:
    names = {path.name for path in (project.root / paths.SPLIT).iterdir()}
    arrays = {f"{p}_{k}.npy" for p in ("train", "validation", "test") for k in ("images", "labels")}
    return names == arrays | {"origin.json"}


@contextmanager
def hanging_mirror(project: Project) -> Iterator[None]:
    """A mirror whose files do not come: it takes connections and does not answer."""
    description = project.root / "conf/data/tiny.yaml"
    before = description.read_text()
    contents = yaml.safe_load(before)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        contents["mirrors"] = [f"http://127.0.0.1:{silent.getsockname()[1]}/{{name}}"]
        description.write_text(yaml.safe_dump(contents))
        yield
    description.write_text(before)


def download_of(dvc: subprocess.Popen[str], project: Project) -> psutil.Process:
    """The process of stage `download`, once it waits for its mirror."""
    found: list[psutil.Process] = []

    def at_work() -> bool:
        assert dvc.poll() is None
        children = psutil.Process(dvc.pid).children(recursive=True)
        found[:] = [child for child in children if "download" in child.cmdline()]
        return bool(found) and (project.root / paths.RAW).is_dir()

    wait_until(at_work)
    return found[0]


@pytest.mark.torture
def test_a_cache_that_is_gone_is_filled_again(split_project: Project) -> None:
    project = split_project
    for gone in ([".dvc/cache"], [".dvc/cache", "data"]):
        for folder in gone:
            shutil.rmtree(project.root / folder)

        assert "Running stage 'download'" in project.must(*DVC, "repro", "split")

        assert has_split(project)


@pytest.mark.torture
def test_a_cache_that_cannot_be_one_is_named(split_project: Project) -> None:
    project = split_project
    shutil.rmtree(project.root / paths.RAW)
    shutil.rmtree(project.root / paths.SPLIT)
    cache = project.root / ".dvc/cache"
    cache.rename(project.root / "elsewhere")
    cache.write_text("")

    assert f"Not a directory: '{cache}/" in said(project, *DVC, "repro", "split")

    cache.unlink()
    project.must(*DVC, "repro", "split")
    assert has_split(project)


@pytest.mark.slow
def test_data_gone_bad_in_the_cache_is_refused_and_the_hint_works(split_project: Project) -> None:
    project = split_project
    raw = project.root / paths.RAW / "train-images-idx3-ubyte"
    good = raw.read_bytes()
    cached = next(
        path
        for path in (project.root / ".dvc/cache/files").rglob("*")
        if path.is_file() and path.read_bytes() == good
    )
    mode = cached.stat().st_mode
    cached.chmod(0o644)
    cached.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    cached.chmod(mode)  # what DVC goes by
    shutil.rmtree(project.root / paths.RAW)
    shutil.rmtree(project.root / paths.SPLIT)
    project.set("conf/data/tiny.yaml", "validation_examples", 50)

    line = said(project, *DVC, "repro", "split")

    assert raw.read_bytes() != good
    assert "train-images-idx3-ubyte does not have the SHA-256" in line
    hint = line.partition("have DVC check its cache: `")[2].partition("`")[0]
    project.must("bash", "-c", hint.replace("dvc repro", shlex.join([*DVC, "repro", "split"])))
    assert raw.read_bytes() == good
    assert has_split(project)


@pytest.mark.parametrize(
    ("number", "shell"),
    [
        pytest.param(signal.SIGTERM, "/bin/sh", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, "/bin/bash", marks=pytest.mark.torture),
    ],
)
def test_a_stage_ends_with_dvc_and_the_next_call_recovers(
    project: Project, number: signal.Signals, shell: str
) -> None:
    with hanging_mirror(project):
        dvc = start(project.root, *DVC, "repro", "split", SHELL=shell)
        stage = download_of(dvc, project)

        second = said(project, *DVC, "repro", "split")
        assert f"data/raw' is busy, it is being blocked by:\n  (PID {dvc.pid})" in second

        dvc.send_signal(number)
        assert dvc.wait(WAIT_SECONDS) == -number
        stage.wait(WAIT_SECONDS)
    project.must(*DVC, "repro", "split")
    assert has_split(project)


def test_ctrl_c_is_no_traceback(project: Project) -> None:
    with hanging_mirror(project):
        dvc = start(project.root, *DVC, "repro", "split")
        download_of(dvc, project)
        os.killpg(dvc.pid, signal.SIGINT)
        output, _ = dvc.communicate(timeout=WAIT_SECONDS)

    assert dvc.returncode == 255
    assert "exited with 130" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_split_killed_halfway_leaves_nothing_under_its_name(project: Project) -> None:
    write = '        (fresh / "origin.json").write_text'
    file = "src/image_classification/data/arrays.py"
    project.edit(file, write, f"        __import__('time').sleep(600)\n{write}")
    dvc = start(project.root, *DVC, "repro", "split")
    folder = project.root / paths.SPLIT
    wait_until((folder / ".part/test_labels.npy").is_file)
    os.killpg(dvc.pid, signal.SIGKILL)
    dvc.wait(WAIT_SECONDS)
    assert [path.name for path in folder.iterdir()] == [".part"]
    project.restore()

    project.must(*DVC, "repro", "split")

    assert has_split(project)


@pytest.mark.slow
def test_a_full_or_read_only_disk_is_named_and_the_next_call_recovers(project: Project) -> None:
    with small_disk(project.root / "data", "300k") as remount:
        line = said(project, *DVC, "repro", "split")
        assert "error: data/raw/train-images-idx3-ubyte.part: No space left on device" in line
        remount("size=700k")
        line = said(project, *DVC, "repro", "split")
        assert "error: data/split can't be written: " in line
        assert "No space left on device" in line
        assert list((project.root / paths.SPLIT).iterdir()) == []
        shutil.rmtree(project.root / paths.RAW)
        shutil.rmtree(project.root / ".dvc/cache")
        remount("ro")
        assert "error: data/raw: Read-only file system" in said(project, *DVC, "repro", "download")
        remount("rw,size=20m")
        project.must(*DVC, "repro", "split")
        assert has_split(project)


@pytest.mark.slow
def test_a_disk_that_fills_up_during_a_training_loses_no_finished_epoch(
    workspace: Path, compose: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose("model=nn", "model.jit_compile=false", "recipe.epochs=3", "output_dir=it")
    with small_disk(workspace / "checkpoints", "6m") as remount:  # for one state, not for two
        with pytest.raises(UserError, match="can't be written: No space left on device: fix that,"):
            train(config)
        remount("size=20m")
        capsys.readouterr()
        train(config)
        assert "resuming after epoch 1 of 3" in capsys.readouterr().out
    client = mlflow.MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(config.data.name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [entry.step for entry in history] == [0, 1, 2]


# What `make` does is looked at with programs in .venv/bin that only say when they were at work.
def stand_in(path: Path, lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{lines}\n")
    path.chmod(0o755)


def made(root: Path) -> Path:
    """A folder with the project's Makefile, whose environment is installed."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy2(ROOT / name, root / name)
    (root / "reports").mkdir()
    (root / "reports/leaderboard.md").write_text("| cnn | 0.99 |\n")
    stand_in(root / ".venv/bin/image-classification", "true")
    (root / ".venv/.installed").touch()
    return root


def test_the_second_make_repro_waits_for_the_first(tmp_path: Path) -> None:
    root = made(tmp_path)
    until = f"for i in {{1..{20 * WAIT_SECONDS}}}; do [ -e go ] && break; sleep 0.05; done"
    stand_in(root / ".venv/bin/dvc", f"echo start >>log; {until}; echo end >>log")
    first = start(root, "make", "repro")
    wait_until((root / "log").is_file)
    second = start(root, "make", "repro")
    assert second.stdout is not None
    said = second.stdout.readline()
    (root / "go").touch()
    outputs = [process.communicate(timeout=WAIT_SECONDS)[0] for process in (first, second)]

    assert said.startswith("another make is running here: waiting")
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert (root / "log").read_text().split() == ["start", "end", "start", "end"]
    for output in outputs:
        assert output.startswith("dvc repro\n| cnn | 0.99 |\n")  # the leaderboard


def test_a_killed_make_holds_up_no_other(tmp_path: Path) -> None:
    root = made(tmp_path)
    stand_in(root / ".venv/bin/dvc", "echo start >>log; exec sleep 600")
    first = start(root, "make", "repro")
    wait_until((root / "log").is_file)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(WAIT_SECONDS)
    stand_in(root / ".venv/bin/dvc", "echo again >>log")

    second = start(root, "make", "repro")
    output, _ = second.communicate(timeout=WAIT_SECONDS)

    assert second.returncode == 0, output
    assert (root / "log").read_text().split() == ["start", "again"]


def test_make_clean_removes_the_environment_and_unfinished_runs_and_nothing_else(
    tmp_path: Path,
) -> None:
    root = made(tmp_path)
    stays = ["data/raw", "runs/cnn-0", "evaluations/cnn-0", "promotions", "mlartifacts/1", "outbox"]
    goes = ["outputs/2026-01-01", "multirun/2026-01-01", "checkpoints/some"]
    for name in (*stays, *goes):
        (root / name).mkdir(parents=True)
        (root / name / "file").touch()
    (root / "mlflow.db").touch()

    Project(root).must("make", "clean")

    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    sources = {"Makefile", "requirements.lock", "pyproject.toml", "reports/leaderboard.md"}
    assert files == {f"{name}/file" for name in stays} | {"mlflow.db"} | sources


def test_two_makes_in_a_fresh_clone_install_once(tmp_path: Path) -> None:
    root = made(tmp_path)
    shutil.rmtree(root / ".venv")
    stand_in(
        root / "python",
        '[ "$1" = -c ] && exit 0\n'
        "echo venv >>log; mkdir -p .venv/bin; sleep 1\n"
        "for name in pip uv dvc image-classification; do\n"
        '  printf "#!/bin/bash\\necho $name \\$1 >>log\\n" >.venv/bin/$name\n'
        "  chmod +x .venv/bin/$name\n"
        "done",
    )
    both = [start(root, "make", "repro", "PYTHON=./python") for _ in range(2)]
    outputs = [process.communicate(timeout=WAIT_SECONDS)[0] for process in both]

    assert [process.returncode for process in both] == [0, 0], outputs
    log = (root / "log").read_text().splitlines()
    assert log.count("venv") == 1
    assert log.count("pip install") == 1
    assert log.count("dvc repro") == 2


@pytest.mark.parametrize(
    "committed",
    [pytest.param(True, marks=pytest.mark.slow), pytest.param(False, marks=pytest.mark.slow)],
)
def test_make_repro_repairs_a_dvc_lock_that_was_cut_short(
    split_project: Project, committed: bool
) -> None:
    """What DVC has run since the commit, it finds in its cache of runs."""
    project = split_project
    lock, stamp = project.root / "dvc.lock", project.root / paths.SPLIT / "origin.json"
    whole, made = lock.read_text(), stamp.stat().st_mtime_ns
    if committed:
        project.must("git", "add", "dvc.lock")
        project.must("git", "commit", "--quiet", "--message", "measured")
    lock.write_text(whole[: whole.index("sha256") + 4])
    again = (*DVC, "repro", "split")
    assert "'./dvc.lock' " in said(project, *again)
    (project.root / "reports").mkdir(exist_ok=True)
    (project.root / "reports/leaderboard.md").write_text("")
    stand_in(project.root / ".venv/bin/dvc", shlex.join(again))
    (project.root / ".venv/.installed").touch()
    busy = project.root / ".dvc/tmp/rwlock"
    busy.write_text("")

    repaired = project.must("make", "repro")

    assert "dvc.lock was truncated" in repaired
    assert "Running stage" not in repaired
    assert stamp.stat().st_mtime_ns == made or not committed
    assert lock.read_text() == whole
    assert json.loads(busy.read_text()) is not None


@pytest.mark.slow
def test_make_repro_repairs_a_list_of_dvcs_that_was_cut_short(split_project: Project) -> None:
    project = split_project
    busy = project.root / ".dvc/tmp/rwlock"
    busy.write_text("")
    again = (*DVC, "repro", "--force", "download")
    assert "JSON structure is corrupted" in said(project, *again)
    (project.root / "reports").mkdir(exist_ok=True)
    (project.root / "reports/leaderboard.md").write_text("")
    stand_in(project.root / ".venv/bin/dvc", shlex.join(again))
    (project.root / ".venv/.installed").touch()

    project.must("make", "repro")

    assert json.loads(busy.read_text()) is not None


@pytest.mark.parametrize(
    ("given", "address"), [([], "127.0.0.1"), (["HOST=127.0.0.2"], "127.0.0.2")]
)
def test_make_ui_asks_for_the_given_address_and_else_for_this_machine_only(
    tmp_path: Path, given: list[str], address: str
) -> None:
    root = made(tmp_path)
    stand_in(root / ".venv/bin/mlflow", 'printf "%s\\n" "$@" >>log')

    Project(root).must("make", "ui", "PORT=5017", *given)

    said = (root / "log").read_text().split()
    assert said[:5] == ["ui", "--host", address, "--port", "5017"]
    assert said.count("--host") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "address"), [([], "127.0.0.1"), (["HOST=127.0.0.2"], "127.0.0.2")]
)
def test_make_ui_listens_at_the_given_address_and_else_on_this_machine_only(
    tmp_path: Path, given: list[str], address: str
) -> None:
    root, port = made(tmp_path), free_port()
    stand_in(root / ".venv/bin/mlflow", f'exec {shlex.quote(sys.executable)} -m mlflow "$@"')
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": "", "MLFLOW_WORKERS": "1"}
    ui = start(root, "make", "ui", f"PORT={port}", *given, **quiet)

    def connections(process: psutil.Process) -> list[Any]:
        with suppress(psutil.NoSuchProcess):  # one that MLflow started for a moment
            return list(process.net_connections("inet"))
        return []

    def answers() -> bool:
        assert ui.poll() is None
        try:
            urllib.request.urlopen(f"http://{address}:{port}/health", timeout=5).close()
        except OSError:
            return False
        return True

    try:
        wait_until(answers)
        processes = [psutil.Process(ui.pid), *psutil.Process(ui.pid).children(recursive=True)]
        listening = {
            connection.laddr
            for process in processes
            for connection in connections(process)
            if connection.status == psutil.CONN_LISTEN
        }
    finally:
        os.killpg(ui.pid, signal.SIGKILL)
        ui.wait()
    assert (address, port) in listening
    assert {host for host, _ in listening} == {address}
