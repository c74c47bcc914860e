"""Measure the server against `mlflow models serve`; write benchmarks/results/serve.md.

The load comes from a process of its own, from 16 clients with a persistent connection each, which
send their next request after each response. `make bench-serve` calls this.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from machine import machine
from measure import HERE, run

from image_classification.core.compose import compose
from image_classification.promotion import records
from image_classification.promotion.records import JudgedRun, Record

CLIENTS = 16
STARTS = 5
PROMOTIONS, BROKEN = 50, 5
MODELS = {"cnn": "1", "dcnn": "2"}  # and their versions
RAW, JSON, PNG = "application/octet-stream", "application/json", "image/png"


@dataclass(frozen=True)
class Load:
    """What a load found: answers a second, their times, and the server's cost."""

    answers: dict[str, Any]
    cpu_ms: float  # of the server, a request
    megabytes: float  # of the server, afterwards

    def row(self, title: str) -> str:
        """A line of the table."""
        found = self.answers
        good = sum(found["statuses"].values()) == found["statuses"].get("200", 0) == found["asked"]
        return (
            f"| {title} | {found['per_second']:,.0f} | {found['p50_ms']:.1f} | "
            f"{found['p99_ms']:.1f} | {self.cpu_ms:.2f} | {self.megabytes:.0f} | "
            f"{'all' if good else found['statuses']} |"
        )


@dataclass
class Running:
    """A server's process, with its children, and its port."""

    process: psutil.Process
    port: int

    def all(self) -> list[psutil.Process]:
        """Its processes."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds of the processor, so far."""
        return float(sum(sum(one.cpu_times()[:2]) for one in self.all()))

    def megabytes(self) -> float:
        """Memory that it holds."""
        return float(sum(one.memory_info().rss for one in self.all())) / 1e6


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def started(root: Path, ready: str, *command: str) -> Iterator[tuple[Running, float]]:
    """A server, and the seconds until it first answered; `{port}` stands for its port."""
    port = free_port()
    words = [word.format(port=port) for word in command]
    with (root / "server.log").open("ab") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(words, cwd=root, stdout=log, stderr=log, start_new_session=True)
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=30).close()
                break
            if process.poll() is not None:
                raise SystemExit(f"error: {words} ended\n{(root / 'server.log').read_text()}")
            time.sleep(0.01)
        yield Running(psutil.Process(process.pid), port), time.perf_counter() - begun
    finally:
        for one in Running(psutil.Process(process.pid), port).all():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def ours(root: Path) -> contextlib.AbstractContextManager[tuple[Running, float]]:
    """The server of this project."""
    command = (sys.executable, "-m", "image_classification", "serve", "--port", "{port}")
    return started(root, "/ready", *command)


def mlflows(root: Path, model: str) -> contextlib.AbstractContextManager[tuple[Running, float]]:
    """MLflow's server, with one worker as well."""
    command = (sys.executable, "-m", "mlflow", "models", "serve", "-m", f"mlflow/{model}")
    options = ("--env-manager", "local", "--workers", "1", "--port", "{port}")
    return started(root, "/ping", *command, *options)


def load_command(root: Path, port: int, path: str, kind: str, seconds: float) -> list[str]:
    """The load tool, as it is called."""
    pattern = {RAW: "*.raw", JSON: "*.json", PNG: "*.png"}[kind]
    bodies = [str(body) for body in sorted((root / "bodies").glob(pattern))]
    options = ("--port", str(port), "--path", path, "--kind", kind, "--seconds", str(seconds))
    return [sys.executable, str(HERE / "load.py"), *bodies, *options, "--clients", str(CLIENTS)]


def loaded(root: Path, server: Running, path: str, kind: str, seconds: float) -> Load:
    """Load a server, after a second of warming up."""
    run(*load_command(root, server.port, path, kind, 1))
    before = server.cpu()
    answers = json.loads(run(*load_command(root, server.port, path, kind, seconds)))
    cpu_ms = 1000 * (server.cpu() - before) / answers["asked"]
    return Load(answers, cpu_ms, server.megabytes())


def promote(root: Path, key: str) -> None:
    """Write a record of a promotion."""
    model = "cnn" if key[0] == MODELS["cnn"] else "dcnn"
    judged: dict[str, Any] = {
        **{"run": f"{model}-0", "model": model, "key": key, "version": int(key[0])},
        **{"sha256": "", "weights_sha256": key[0] * 64, "data": ""},
        "split": {"seed": 42, "split_per_seed": False, "folds": None},
    }
    numbers = {"to": dict.fromkeys(records.NUMBERS, 1)}
    words: dict[str, Any] = {"who": "", "command": "", "reason": "", "numbers": numbers}
    record = Record(
        records.now(), decision=records.PROMOTED, to=JudgedRun(**judged), from_=None, **words
    )
    with contextlib.chdir(root):
        records.append("mnist", record)


def break_artifacts(root: Path) -> list[str]:
    """Make artifacts that must never be served; their keys."""
    keys = [str(number) * 32 for number in range(3, 3 + BROKEN)]
    for key in keys:
        shutil.copytree(root / "exported" / ("1" * 32), root / "exported" / key)
    cut, nonsense, empty, classes, other = (root / "exported" / key for key in keys)
    for folder, contents in (
        (cut, (cut / "model.tflite").read_bytes()[:-9999]),
        (nonsense, os.urandom(100_000)),
        (empty, b""),
    ):
        (folder / "model.tflite").write_bytes(contents)
    for folder in (nonsense, empty, classes):  # whose hashes are right
        described = json.loads((folder / "served.json").read_text())
        described["sha256"] = hashlib.sha256((folder / "model.tflite").read_bytes()).hexdigest()
        described["weights_sha256"] = folder.name[0] * 64
        if folder == classes:
            described["classes"].append("one too many")
        (folder / "served.json").write_text(json.dumps(described))
    assert other.exists()  # made from another model than the one that is promoted
    return keys


def metric(server: Running, name: str) -> float:
    """One of the server's own metrics."""
    address = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(address, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    (value,) = [
        line.split()[1] for line in lines if line.startswith(f"image_classification_{name} ")
    ]
    return float(value)


def swapped(root: Path) -> tuple[dict[str, Any], float, float]:
    """Promote again and again under load; what came back, and megabytes before and after."""
    broken = break_artifacts(root)
    with ours(root) as (server, _):
        run(*load_command(root, server.port, "/predict", RAW, 1))
        before = server.megabytes()
        command = load_command(root, server.port, "/predict", RAW, 10_000)
        loading = subprocess.Popen(
            [*command, "--expected", str(root / "expected.json"), "--until", str(root / "end")],
            stdout=subprocess.PIPE,
            text=True,
        )
        failed = 0
        for number in range(PROMOTIONS):
            if number % (PROMOTIONS // BROKEN) == 0:
                promote(root, broken[failed])
                failed += 1
                wait_for(server, "champion_load_failures_total", failed)
            promote(root, str(1 + number % 2) * 32)  # dcnn was the last
            wait_for(server, "champion_loads_total", number + 1)
        (root / "end").touch()
        answers = json.loads(loading.communicate()[0])
        return answers, before, server.megabytes()


def wait_for(server: Running, name: str, value: float) -> None:
    """Wait until a metric has a value."""
    deadline = time.monotonic() + 60
    while metric(server, name) != value:
        if time.monotonic() > deadline:
            raise SystemExit(f"error: {name} is {metric(server, name)}, not {value}")
        time.sleep(0.05)


def measure(root: Path, seconds: float) -> list[str]:
    """All measurements, as lines of Markdown."""
    rows, rates = [], {}
    start_of_mlflow = 0.0
    for model, version in MODELS.items():
        promote(root, version * 32)
        with ours(root) as (server, _):
            for title, path, kind in (
                ("raw bytes", "/predict", RAW),
                ("JSON", "/invocations", JSON),
                ("PNG of 280 x 280, normalised", "/predict", PNG),
            ):
                found = loaded(root, server, path, kind, seconds)
                rates[model, title] = found.answers["per_second"]
                rows.append(found.row(f"{model}, {title}"))
                print(rows[-1], flush=True)
        with mlflows(root, model) as (server, first):
            found = loaded(root, server, "/invocations", JSON, seconds)
            rates[model, "MLflow"] = found.answers["per_second"]
            rows.append(found.row(f"{model}, JSON, `mlflow models serve`"))
            print(rows[-1], flush=True)
            start_of_mlflow = first
    starts = []
    for _ in range(STARTS):
        with ours(root) as (_, first):
            starts.append(first)
    print("starts:", starts, flush=True)
    answers, before, after = swapped(root)
    return [
        "| asked | answers a second | p50, ms | p99, ms | server's CPU, ms | MB | good |",
        "|---|--:|--:|--:|--:|--:|---|",
        *rows,
        "",
        *(
            f"- {model}: {rates[model, 'raw bytes'] / rates[model, 'MLflow']:,.0f} times MLflow's "
            f"rate with raw bytes, {rates[model, 'JSON'] / rates[model, 'MLflow']:,.0f} times with "
            "the same JSON."
            for model in MODELS
        ),
        f"- From its start to its first answer: {statistics.median(starts):.2f} s, the median of "
        f"{STARTS} ({min(starts):.2f} to {max(starts):.2f}); MLflow's: {start_of_mlflow:.1f} s.",
        f"- {PROMOTIONS} promotions and {BROKEN} broken artifacts under load: {answers['asked']:,} "
        f"requests, {answers['lost']} lost, {answers['statuses']} by status, {answers['wrong']} "
        f"with other probabilities than their model's, {answers['versions']} by version. Memory: "
        f"{before:.0f} MB before, {after:.0f} MB after.",
    ]


def main() -> None:
    """Make the models, measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--output", type=Path, default=HERE / "results/serve.md")
    options = parser.parse_args()
    compose()  # the working folder is a project
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "project"
        run(sys.executable, HERE / "serve_models.py", root)
        busy = os.getloadavg()[0]
        lines = measure(root, options.seconds)
    page = [
        "# The server, measured",
        "",
        f"By `make bench-serve`, {date.today()}, {machine()}, {CLIENTS} clients, "
        f"{options.seconds:g} s each; the load tool takes a part of the same cores. Load average "
        f"before: {busy:.1f}, after: {os.getloadavg()[0]:.1f}.",
        "",
        *lines,
    ]
    options.output.write_text("\n".join([*page, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
