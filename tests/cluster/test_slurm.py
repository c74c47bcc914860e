"""A sweep on SLURM: a real cluster of two nodes on loopback (`make test-cluster`).

Needs Debian's slurm-wlm and munge; where they are missing, the tests are skipped.
"""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import mlflow
import pytest
from conftest import Project

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not shutil.which("slurmctld"), reason="needs slurm-wlm"),
]

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=10
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1
PartitionName=all Nodes=one,two Default=YES MaxTime=60 State=UP
"""
ON_SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=30")
EPOCHS = 200


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables under which commands find the cluster."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    port, first, second = free_ports(3)
    configuration = CONFIGURATION.format(
        folder=folder,
        host=socket.gethostname().partition(".")[0],
        user=getpass.getuser(),
        port=port,
        first=first,
        second=second,
    )
    (folder / "slurm.conf").write_text(configuration)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    variables = {"SLURM_CONF": str(folder / "slurm.conf")}
    environment = {**os.environ, **variables}
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
    files["seed-file"] = "seed"
    munge = [f"--{name}={folder}/munge.{end}" for name, end in files.items()]
    daemons = [
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D"],
        *(["slurmd", "-D", "-N", node] for node in ("one", "two")),
    ]
    started = []
    try:
        for number, daemon in enumerate(daemons):
            with (folder / f"{number}.out").open("w") as out:
                started.append(subprocess.Popen(daemon, env=environment, stdout=out, stderr=out))
            time.sleep(1)
        wait_for(lambda: slurm(variables, "sinfo", "-h", "-t", "idle", "-o", "%D") == "2", 60)
        yield variables
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def slurm(variables: dict[str, str], *command: str) -> str:
    """What a command of SLURM's printed."""
    environment = {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.5)


def test_a_job_put_back_in_the_queue_goes_on_under_the_same_run(
    split_project: Project, cluster: dict[str, str]
) -> None:
    root = split_project.root
    settings = ("model=tiny_cnn", "seed=0,1", "recipe=notebook", f"recipe.epochs={EPOCHS}")
    with (root / "sweep.out").open("w") as out:
        command = subprocess.Popen(
            ["hydra", "-m", *ON_SLURM, *settings],
            cwd=root,
            env=split_project.environment(**cluster),
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def said() -> str:
        return "".join(path.read_text() for path in root.glob("multirun/*/.submitit/*/*.out"))

    names = ("0-tiny_cnn-0", "1-tiny_cnn-1")
    wait_for(lambda: all(f"{name}: epoch 2 of" in said() for name in names), 120)
    jobs = slurm(cluster, "squeue", "-h", "-o", "%i %N").splitlines()
    assert {line.split()[1] for line in jobs} == {"one", "two"}
    put_back = jobs[0].split()[0]
    slurm(cluster, "scontrol", "requeue", put_back)
    wait_for(lambda: "PENDING" in slurm(cluster, "squeue", "-h", "-o", "%T"), 60)
    # SLURM lets a job that was put back wait for two minutes.
    assert command.wait(timeout=400) == 0, (root / "sweep.out").read_text()

    assert "resuming after epoch" in said()
    store = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is not None
    (parent,) = store.search_runs([experiment.experiment_id], "tags.sweep = 'true'")
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    runs = store.search_runs([experiment.experiment_id], query)
    assert sorted(str(run.info.run_name) for run in runs) == ["tiny_cnn-0", "tiny_cnn-1"]
    for run in (parent, *runs):
        assert run.info.status == "FINISHED"
    for run in runs:
        steps = [one.step for one in store.get_metric_history(run.info.run_id, "val_accuracy")]
        assert steps == list(range(EPOCHS))
