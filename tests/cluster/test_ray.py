"""A sweep on Ray: a real cluster of two nodes on loopback (`make test-cluster`).

Needs the extra `ray`; where it is missing, the tests are skipped.
"""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlflow
import psutil
import pytest
from conftest import Project

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("ray", "hydra_plugins.hydra_ray_launcher"))),
        reason="needs the extra `ray`",
    ),
]

EPOCHS = 60


@dataclass(frozen=True)
class Cluster:
    """Two nodes, each with one processor."""

    address: str
    variables: dict[str, str]  # under which commands may use it
    nodes: "list[subprocess.Popen[bytes]]"

    def jobs(self) -> list[list[psutil.Process]]:
        """The processes of each node that run a job now."""
        trees = [psutil.Process(node.pid).children(recursive=True) for node in self.nodes]
        return [[one for one in tree if has_job(one)] for tree in trees]


def has_job(process: psutil.Process) -> bool:
    try:
        return " ".join(process.cmdline()).startswith("ray::_run_job")
    except psutil.Error:  # it has just ended
        return False


def has_started(node: "subprocess.Popen[bytes]", out: Path) -> bool:
    assert node.poll() is None, out.read_text()
    return "Ray runtime started" in out.read_text()


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.2)


@pytest.fixture
def cluster(split_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("nodes")  # not the project's: jobs have to find that
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    address = f"127.0.0.1:{port}"
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.urandom(32).hex(),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # as the command itself has it
        "RAY_raylet_start_wait_time_s": "200",  # for a slow machine
    }
    source = str(split_project.root / "src")
    environment = split_project.environment(**variables, PYTHONPATH=source)
    start = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
    temporary = f"/tmp/ray-{os.getpid()}"  # sockets take no long path
    head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={temporary}")
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for name, words in (("head", head), ("other", (f"--address={address}",))):
            out = folder / f"{name}.out"
            with out.open("w") as file:
                command = [*start, *words]
                node = subprocess.Popen(
                    command, cwd=folder, env=environment, stdout=file, stderr=file
                )
            nodes.append(node)
            wait_for(partial(has_started, node, out), 240)
        yield Cluster(address, variables, nodes)
        assert {path.name for path in folder.iterdir()} == {"head.out", "other.out"}
    finally:
        for node in reversed(nodes):
            tree = [node, *psutil.Process(node.pid).children(recursive=True)]
            node.terminate()
            node.wait(timeout=60)
            _, left = psutil.wait_procs(tree[1:], timeout=30)
            for process in left:
                process.kill()
        shutil.rmtree(temporary, ignore_errors=True)


def test_a_sweep_uses_both_nodes_and_the_same_command_runs_only_what_is_missing(
    split_project: Project, cluster: Cluster
) -> None:
    root = split_project.root
    broken = root / "conf/model/broken.yaml"
    layers = "layers: {flatten: {type: Flatten}, hidden: {type: Dense, units: %s}}\n"
    broken.write_text(layers % "-1")
    on_ray = ("hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster.address}")
    settings = ("model=tiny_lm,broken", "seed=0,1", "recipe=notebook", f"recipe.epochs={EPOCHS}")
    words = ["hydra", "-m", *on_ray, *settings]
    environment = {**cluster.variables, "MLFLOW_TRACKING_URI": "sqlite:///told.db"}
    with (root / "sweep.out").open("w") as out:
        command = subprocess.Popen(
            words,
            cwd=root,
            env=split_project.environment(**environment),
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def said() -> str:
        return (root / "sweep.out").read_text()

    first = ("0-tiny_lm-0", "1-tiny_lm-1")
    wait_for(lambda: all(f"{name}: epoch 2 of" in said() for name in first), 400)
    on_head, on_other = cluster.jobs()
    assert len(on_head) == len(on_other) == 1
    on_other[0].kill()
    assert command.wait(timeout=500) == 1, said()
    broken.write_text(layers % "4")
    again = split_project.must(*words, **environment)

    assert re.search(r"-tiny_lm-\d: resuming after epoch", said())  # Ray has begun it once more
    assert "sweep: 4 of 4 ended" in said()
    for name in ("2-broken-0", "3-broken-1"):
        assert f"{name}: error: conf/model/broken.yaml: layers.hidden: " in said()
        assert f"\nfailed: {name}: conf/model/broken.yaml: layers.hidden: " in said()
    assert "2 failed: fix that and repeat the command" in said()
    for name in first:
        assert f"has trained {name[2:]}; its model is" in again
    assert "2-broken-0: epoch 1 of" in again
    assert "tiny_lm-0: epoch" not in again

    assert not (root / "mlflow.db").exists()
    store = mlflow.MlflowClient(f"sqlite:///{root / 'told.db'}")
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is not None
    (parent,) = store.search_runs([experiment.experiment_id], "tags.sweep = 'true'")
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and status = 'FINISHED'"
    runs = store.search_runs([experiment.experiment_id], query)
    assert parent.info.status == "FINISHED"
    assert sorted(str(run.info.run_name) for run in runs) == [
        *("broken-0", "broken-1", "tiny_lm-0", "tiny_lm-1")
    ]
    for run in runs:
        steps = [one.step for one in store.get_metric_history(run.info.run_id, "val_accuracy")]
        assert steps == list(range(EPOCHS))


def test_ctrl_c_ends_the_jobs_and_ray_and_the_same_command_resumes(split_project: Project) -> None:
    root = split_project.root
    on_ray = ("hydra/launcher=ray", "hydra.launcher.ray.init.address=local")
    settings = ("model=tiny_lm", "seed=0,1", "recipe=notebook", f"recipe.epochs={EPOCHS}")
    words = ["hydra", "-m", *on_ray, "hydra.launcher.ray.init.num_cpus=2", *settings]
    home = str(root)  # where Ray keeps a token
    with (root / "sweep.out").open("w") as out:
        command = subprocess.Popen(
            words,
            cwd=root,
            env=split_project.environment(HOME=home),
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def said() -> str:
        return (root / "sweep.out").read_text()

    wait_for(lambda: all(f"-tiny_lm-{seed}: epoch 2 of" in said() for seed in (0, 1)), 400)
    tree = psutil.Process(command.pid).children(recursive=True)
    command.send_signal(signal.SIGINT)

    assert command.wait(timeout=60) == 130, said()
    _, left = psutil.wait_procs(tree, timeout=30)
    assert not left
    store = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = store.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["KILLED"] * 3  # two, and the sweep
    again = split_project.must(*words, HOME=home)
    assert len(re.findall(r"-tiny_lm-\d: resuming after epoch", again)) == 2


def test_on_this_machine_each_job_has_a_gpu_of_its_own(split_project: Project) -> None:
    """Of two, for which Ray takes the command's word."""
    position = '    print(f"{sweep.position(config, name)}{name}", flush=True)\n'
    shown = '    print("sees GPU", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)\n'
    split_project.edit("src/image_classification/train.py", position, position + shown)
    two = ("hydra.launcher.ray.init.num_cpus=2", "hydra.launcher.ray.init.num_gpus=2")
    one = "hydra.launcher.ray.remote.num_gpus=1"
    settings = ("model=tiny_lm", "seed=0,1", "recipe=notebook", "recipe.epochs=1")
    said = split_project.must(
        *(
            "hydra",
            "-m",
            "hydra/launcher=ray",
            "hydra.launcher.ray.init.address=local",
            *two,
            one,
            *settings,
        ),
        HOME=str(split_project.root),  # where Ray keeps a token
    )

    assert sorted(re.findall(r"\d-tiny_lm-\d: sees GPU (\S+)\n", said)) == ["0", "1"]
    assert "sweep: 2 of 2 ended\n" in said
    assert "is validated against" not in said  # Hydra's word on conf/hydra/launcher/ray.yaml
