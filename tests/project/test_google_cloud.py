"""batch/google.sh, with a `gcloud` whose machine is a folder: what it does, and in which order."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

PASSWORD = "pass word'"
SETTINGS = {
    "GOOGLE_PROJECT": "study",
    "GOOGLE_ZONE": "us-central1-a",
    "MLFLOW_TRACKING_URI": "https://mlflow.example.com",
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
}
GCLOUD = """
case "$1 $2 $3" in
  "compute instances list") cat "$CLOUD/state" ;;
  "compute instances create") [ -z "${NO_GPU_LEFT-}" ] && echo RUNNING >"$CLOUD/state" ;;
  "compute instances start") echo RUNNING >"$CLOUD/state" ;;
  "compute instances stop") echo TERMINATED >"$CLOUD/state" ;;
  "compute instances delete") : >"$CLOUD/state" ;;
  "compute scp "*) cp "${3/#*:/$CLOUD/machine/}" "${4/#*:/$CLOUD/machine/}" ;;
  "compute ssh "*)
    [ "${!#}" = nvidia-smi ] || [ -z "${CONNECTION_LOST-}" ] || exit 255
    cd "$CLOUD/machine" && exec bash -c "${!#}" ;;
esac
"""
# What the machine's half calls. `make repro` leaves a result, fails or takes long.
PROGRAMS = {
    "gcloud": GCLOUD,
    "dvc": f"""
[ "$1" = config ] || exit 0
[ -z "${{REAL_DVC-}}" ] || exec {sys.executable} -m dvc "$@"
[ ! -s .dvc/config ] || printf "%s\\n" core.remote=shared remote.shared.url=gs://bucket/dvc
""",
    "make": """
[ "$1" = repro ] || exit 0
[ -z "${TAKES_LONG-}" ] || { echo $PPID >"$CLOUD/training"; sleep 60; }
[ -z "${FAILS-}" ] || exit "$FAILS"
echo "$MLFLOW_TRACKING_PASSWORD" >"$CLOUD/password"
echo trained >dvc.lock
""",
    **dict.fromkeys(["apt-get", "hydra", "image-classification", "nvidia-smi", "sudo", "uv"], ""),
}


@dataclass
class Cloud:
    """A repository with the script, and programs that write down how they were called.

    On the machine, whose folder is `cloud/machine`, they are the same ones.
    """

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, **SETTINGS, "PATH": path, "CLOUD": str(self.root / "cloud")}

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
        command = ["git", *identity, *words]
        done = subprocess.run(
            command, cwd=self.repository, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (self.root / "calls").write_text("")
        return subprocess.run(
            ["batch/google.sh", *words],
            cwd=self.repository,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """Of all programs, in order."""
        lines = (self.root / "calls").read_text().splitlines()
        return [line.strip() for line in lines if line]

    def steps(self) -> list[str]:
        """The calls, without what asks for settings, those of gcloud by their first words."""
        found = []
        for call in self.calls():
            words = call.split()
            if words[:2] == ["dvc", "config"] or "apt-get" in words or call == "sudo shutdown -c":
                continue
            if words[0] == "gcloud":
                call = words[3] if words[2] == "instances" else words[2]
            found.append(call)
        return found

    def state(self) -> str:
        return (self.root / "cloud/state").read_text().strip()


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    made = Cloud(tmp_path)
    for folder in ("bin", "cloud/machine", "repository/batch", "repository/.dvc"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "cloud/state").touch()
    for name, body in PROGRAMS.items():
        log = f'tr "\\n" " " <<<"{name} $*" >>{tmp_path}/calls; echo >>{tmp_path}/calls'
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/bash\n{log}\n{body}\n")
        program.chmod(0o755)
    shutil.copy2(ROOT / "batch/google.sh", made.repository / "batch")
    remote = "[core]\n    remote = shared\n['remote \"shared\"']\n    url = gs://bucket/dvc\n"
    (made.repository / ".dvc/config").write_text(remote)
    (made.repository / ".dvc/.gitignore").write_text("/tmp\n")
    made.git("init", "--quiet")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "start")
    return made


TRAINING = [
    "make setup",
    "uv pip install --quiet --constraint requirements.lock tensorflow[and-cuda] dvc-gs",
    "dvc pull --allow-missing",
    "dvc repro split",
    "make repro",
    "dvc push",
    "image-classification sync",
    "sudo shutdown --poweroff +10",
]
CONNECTED = ["ssh", "nvidia-smi", "scp", "ssh"]


def test_it_trains_pushes_fetches_the_results_and_stops_the_machine(cloud: Cloud) -> None:
    done = cloud.run(REAL_DVC="yes")

    assert done.returncode == 0, done.stdout + done.stderr
    assert cloud.steps() == ["list", "create", *CONNECTED, *TRAINING, "scp", "list", "stop"]
    assert cloud.state() == "TERMINATED"
    created = next(call for call in cloud.calls() if "instances create" in call)
    assert "--max-run-duration 12h --instance-termination-action STOP" in created
    # The results are a commit on top of the one that was sent; the working tree is as it was.
    assert cloud.git("rev-parse", "results/image-classification^") == cloud.git("rev-parse", "HEAD")
    assert cloud.git("show", "results/image-classification:dvc.lock") == "trained"
    assert cloud.git("status", "--porcelain") == ""


def test_a_password_reaches_the_machine_and_no_command_line(cloud: Cloud) -> None:
    cloud.run()
    assert (cloud.root / "cloud/password").read_text() == f"{PASSWORD}\n"
    assert "pass word" not in (cloud.root / "calls").read_text()
    assert "pass word" not in cloud.run("--dry-run").stdout


def test_the_same_command_again_reuses_the_machine(cloud: Cloud) -> None:
    assert cloud.run().returncode == 0
    assert cloud.run("hydra", "-m", "model=nn,cnn").returncode == 0
    steps = cloud.steps()
    assert steps[:2] == ["list", "start"]
    assert "hydra -m model=nn,cnn" in steps
    assert cloud.state() == "TERMINATED"

    (cloud.root / "cloud/state").write_text("RUNNING\n")
    assert cloud.run("--delete").returncode == 0
    assert cloud.steps() == ["list", *CONNECTED, *TRAINING, "scp", "list", "delete"]


@pytest.mark.parametrize(("status", "told"), [(3, 3), (255, 1)])  # 255 is ssh's own
def test_a_training_that_fails_is_pushed_and_the_machine_is_stopped(
    cloud: Cloud, status: int, told: int
) -> None:
    done = cloud.run("--delete", FAILS=str(status))

    assert done.returncode == told
    assert cloud.steps() == ["list", "create", *CONNECTED, *TRAINING, "list", "stop"]


def test_ctrl_c_stops_the_machine(cloud: Cloud) -> None:
    command = subprocess.Popen(
        ["batch/google.sh"],
        cwd=cloud.repository,
        env={**cloud.environment, "TAKES_LONG": "yes"},
        start_new_session=True,
    )
    training = cloud.root / "cloud/training"
    latest = time.monotonic() + 60
    while not training.exists() or not training.read_text():
        assert time.monotonic() < latest
        time.sleep(0.1)
    os.killpg(command.pid, signal.SIGINT)

    assert command.wait(timeout=30) == 130
    assert cloud.state() == "TERMINATED"
    os.killpg(int(training.read_text()), signal.SIGKILL)  # as the machine's end would


def test_a_connection_that_is_lost_leaves_the_training_alone(cloud: Cloud) -> None:
    done = cloud.run(CONNECTION_LOST="yes")

    assert done.returncode == 255
    assert cloud.state() == "RUNNING"
    assert "after 12h at the latest" in done.stderr


def test_a_machine_that_cannot_be_had_is_not_stopped(cloud: Cloud) -> None:
    assert cloud.run(NO_GPU_LEFT="yes").returncode == 1
    assert cloud.steps() == ["list", "create", "list"]


@pytest.mark.parametrize(
    ("state", "expected"), [("", ["create"]), ("TERMINATED", ["start"]), ("RUNNING", [])]
)
def test_a_dry_run_prints_the_commands_and_only_asks(
    cloud: Cloud, state: str, expected: list[str]
) -> None:
    (cloud.root / "cloud/state").write_text(state)
    done = cloud.run("--dry-run", "--delete", "hydra", "-m", "model=nn,cnn")

    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout, comments=False)
    named = [words[at + 1 : at + 4] for at, word in enumerate(words) if word == "gcloud"]
    told = [three[2] if three[1] == "instances" else three[1] for three in named]
    assert told == [*expected, "ssh", "scp", "ssh", "scp", "delete"]
    assert "--on-machine 'hydra' '-m' 'model=nn,cnn'" in done.stdout.replace("'\\''", "'")
    assert cloud.steps() == ["list"]
    assert cloud.state() == state


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"GOOGLE_ZONE": ""}, "GOOGLE_ZONE is not set"),
        ({"MLFLOW_TRACKING_URI": ""}, "MLFLOW_TRACKING_URI is not set"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}, "sqlite:///mlflow.db"),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}, "http://127.0.0.1:5000"),
    ],
)
def test_a_setting_that_does_not_do_is_one_line(
    cloud: Cloud, variables: dict[str, str], named: str
) -> None:
    refused(cloud, named, **variables)


def test_what_the_machine_could_not_get_or_push_is_one_line(cloud: Cloud) -> None:
    (cloud.repository / "new").touch()
    refused(cloud, "git status is not clean")
    (cloud.repository / "new").unlink()
    (cloud.repository / ".dvc/config").write_text("")
    cloud.git("commit", "--quiet", "--all", "--message", "no remote")
    refused(cloud, "dvc remote add --default shared gs://BUCKET/PATH", REAL_DVC="yes")


def refused(cloud: Cloud, named: str, **variables: str) -> None:
    done = cloud.run("--dry-run", **variables)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert done.stdout == ""
    assert not any(call.startswith("gcloud") for call in cloud.calls())
