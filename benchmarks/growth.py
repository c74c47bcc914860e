"""How costs grow: with images, trainings, runs in MLflow, and jobs of a sweep in one process.

    python benchmarks/growth.py

measures point by point in a project of its own, and writes results/growth.md and a figure,
docs/images/growth.png. Killed, it resumes where it was. The measure is processor seconds, which
other work on the machine affects little, and memory. The slope of a curve is that between its last
two points, on logarithmic axes: 1 is linear.
"""

import argparse
import json
import math
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from copies import MODELS, Copies, key_of, make_project
from kept import Kept
from machine import machine, processor, versions
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from measure import ENVIRONMENT, HERE, STORE, cost, stage
from parts import Part, measure_in_turn

from image_classification.core import paths
from image_classification.core.command import one_line_errors

REAL_IMAGES = 400  # of the project whose training is copied
SYNCED = 20  # folders that `sync` looks at, at least, whatever the number of runs in MLflow
REQUESTS = 10  # of a page
Points = dict[int, dict[str, float]]  # by size, values by the name of their curve


@dataclass(frozen=True)
class Effort:
    """The sizes that are measured."""

    name: str
    images: Sequence[int]
    seeds: Sequence[int]  # of each of the models
    runs: Sequence[int]
    jobs: int


_EFFORTS = (
    Effort("full", (10_000, 100_000, 1_000_000), (1, 10, 100), (100, 1_000, 10_000), 100),
    Effort("smoke", (100, 200), (1, 2), (10, 20), 2),
)
EFFORTS = {effort.name: effort for effort in _EFFORTS}


@dataclass(frozen=True)
class Panel:
    """A figure and a table of what grows with one number."""

    title: str
    size: str  # what is counted
    unit: str  # of the values
    points: Points

    def curves(self) -> dict[str, dict[int, float]]:
        """Values by size, by the name of the curve."""
        names = list(dict.fromkeys(name for values in self.points.values() for name in values))
        return {
            name: {size: values[name] for size, values in self.points.items() if name in values}
            for name in names
        }


def slope(curve: Mapping[int, float]) -> float:
    """Between the last two points, on logarithmic axes; not a number where there are no two."""
    if len(curve) < 2:
        return math.nan
    (size, value), (larger, more) = list(curve.items())[-2:]
    return math.log(more / value) / math.log(larger / size) if value and more else math.nan


def of_images(root: Path, count: int) -> dict[str, float]:
    """Each stage on so many images, one epoch of lm: processor seconds, and the most memory."""
    make_project(root, count, MODELS[:1])
    run = f"{MODELS[0]}-0"
    taken = {
        name: cost(*stage(name, *overrides), cwd=root)
        for name, *overrides in (
            ("download",),
            ("split",),
            ("train", f"model={MODELS[0]}", f"hydra.run.dir={paths.RUNS}/{run}"),
            ("evaluate", f"model={MODELS[0]}", f"hydra.run.dir={paths.EVALUATIONS}/{run}"),
            ("compare", "hydra.run.dir=."),
        )
    }
    shutil.rmtree(root)
    seconds = {name: one.processor for name, one in taken.items()}
    return seconds | {f"{name}, GiB": one.memory / 1024 for name, one in taken.items()}


def of_trainings(root: Path, seeds: int) -> dict[str, float]:
    """The pipeline's tools around trainings that are done, and the report's size."""
    copies = Copies(root)
    copies.make(REAL_IMAGES)
    copies.grow(seeds)
    taken = {"compare": cost(*stage("compare", "hydra.run.dir=."), cwd=root)}
    copies.lock()
    for command in ("dvc status", "dvc repro", "dvc commit --force train@m0-0"):
        taken[command] = cost(*command.split(), cwd=root)
    sizes = {
        "report, MB": (root / paths.REPORTS / "index.html").stat().st_size / 1e6,
        "compare, GiB": taken["compare"].memory / 1024,
    }
    return {name: one.processor for name, one in taken.items()} | sizes


def of_runs(root: Path, count: int) -> dict[str, float]:
    """`sync` of a few folders, and what MLflow's pages ask for, with so many runs in MLflow."""
    copies = Copies(root)
    copies.make(REAL_IMAGES)
    shutil.rmtree(root / paths.REPORTS, ignore_errors=True)  # is of other runs
    copies.grow(math.ceil(SYNCED / len(MODELS)))
    known = {path.name for path in (root / paths.RUNS).iterdir()}
    copies.add_to_store({f"m0-{number}": key_of(f"other {number}") for number in range(count)})
    unchanged = cost(sys.executable, "-m", "image_classification", "sync", cwd=root)
    copies.forget(known)
    again = cost(sys.executable, "-m", "image_classification", "sync", cwd=root)
    pages = page_seconds(root, count)
    return {
        "sync, nothing to do": unchanged.processor,
        "sync, logged again": again.processor,
        **pages,
    }


def page_seconds(root: Path, runs: int) -> dict[str, float]:
    """Processor seconds of MLflow's server for a page of runs, and for the versions of models."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", str(port))
    server = subprocess.Popen(
        [*command, "--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}"],
        cwd=root,
        env={**ENVIRONMENT, STORE: "", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while server.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            time.sleep(0.5)
        api = f"{address}/api/2.0/mlflow"
        table = {"experiment_ids": ["1"], "max_results": 100}
        asked = {
            "page of runs, newest": table,
            "page of runs, best": {**table, "order_by": ["metrics.test_accuracy DESC"]},
        }
        found: dict[str, float] = {}
        for name, body in asked.items():
            post(f"{api}/runs/search", body)  # the first one warms up
            before = processor_seconds(server.pid)
            for _ in range(REQUESTS):
                answer = post(f"{api}/runs/search", body)
            assert len(answer["runs"]) >= min(100, runs)
            found[name] = (processor_seconds(server.pid) - before) / REQUESTS
        return found
    finally:
        for process in [*psutil.Process(server.pid).children(recursive=True), server]:
            process.terminate()
        server.wait()


def post(address: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The response of an address to JSON."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return dict(json.load(answer))


def processor_seconds(pid: int) -> float:
    """Of a process and its children."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
    return float(sum(one.user + one.system for one in times))


def of_jobs(root: Path, count: int) -> dict[str, float]:
    """MiB that one process holds before each of `count` jobs of a sweep, by the job's number."""
    make_project(root, REAL_IMAGES, MODELS[:1])
    cost("dvc", "repro", "split", cwd=root)
    sweep = stage("train", "-m", f"model={MODELS[0]}", f"seed=range(0,{count})")
    held: dict[str, float] = {}
    with subprocess.Popen(
        sweep,
        cwd=root,
        env={**ENVIRONMENT, "PYTHONPATH": "src", STORE: ""},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("run "):
                held[line.split()[1]] = psutil.Process(process.pid).memory_info().rss / 2**20
    if process.returncode:
        raise SystemExit(f"error: the sweep ended with {process.returncode}")
    shutil.rmtree(root)
    return held


def parts(effort: Effort, kept: Kept, found: dict[str, Points]) -> list[Part]:
    """Every point in turn; `found` collects them by the name of their panel."""
    copied = kept.folder.resolve() / "copies"  # made once for all points that need it
    scratch = kept.folder.resolve() / "scratch"

    def part(panel: str, size: int, seconds: float, measure: Callable[[], Any]) -> Part:
        def measured() -> list[str]:
            found.setdefault(panel, {})[size] = kept.once(f"{panel} {size}", measure)
            return []

        return Part(f"{size:,} {panel}", seconds, measured)

    return [
        *(
            part(
                "trainings", seeds * len(MODELS), 120 + seeds, partial(of_trainings, copied, seeds)
            )
            for seeds in effort.seeds
        ),
        *(part("runs", runs, 60, partial(of_runs, copied, runs)) for runs in effort.runs),
        *(
            part("images", count, 40 + count / 2000, partial(of_images, scratch, count))
            for count in effort.images
        ),
        part("jobs", effort.jobs, 20 + 4 * effort.jobs, partial(of_jobs, scratch, effort.jobs)),
    ]


def panels(found: Mapping[str, Points]) -> list[Panel]:
    """What was found, as it is shown: seconds and sizes apart."""
    held = {
        int(job): {"one process": memory}
        for points in found.get("jobs", {}).values()
        for job, memory in points.items()
        if int(job) in [2**n for n in range(1, 20)]  # which tell the slope
    }

    def chosen(name: str, is_size: bool) -> Points:
        return {
            size: {key: value for key, value in values.items() if ("B" in key) is is_size}
            for size, values in sorted(found.get(name, {}).items())
        }

    seconds = "processor seconds"
    shown = [
        Panel("Stages and images", "images", seconds, chosen("images", is_size=False)),
        Panel("Memory and images", "images", "GiB", chosen("images", is_size=True)),
        Panel("The pipeline's trainings", "trainings", seconds, chosen("trainings", is_size=False)),
        Panel("Report and memory", "trainings", "MB, GiB", chosen("trainings", is_size=True)),
        Panel("Runs in MLflow", "runs", seconds, chosen("runs", is_size=False)),
        Panel("Jobs of a sweep in one process", "jobs", "MiB", held),
    ]
    return [panel for panel in shown if any(panel.points.values())]


def page(shown: Sequence[Panel]) -> str:
    """The tables, with the slopes."""
    lines = [
        "# How costs grow",
        "",
        f"By `python benchmarks/growth.py` on {machine()}, beside other work: processor",
        "seconds and memory count. The slope is that between the last two points, on logarithmic",
        "axes: 1 is linear. What each row is, and what follows: [scale](../../docs/scale.md).",
    ]
    for panel in shown:
        sizes = list(panel.points)
        heads = " | ".join(f"{size:,}" for size in sizes)
        lines += [
            "",
            f"## {panel.title}",
            "",
            f"| {panel.unit}, by {panel.size} | {heads} | slope |",
        ]
        lines.append("|---" + "|--:" * (len(sizes) + 1) + "|")
        for name, curve in panel.curves().items():
            values = " | ".join(short(curve[size]) if size in curve else "-" for size in sizes)
            lines.append(f"| {name} | {values} | {slope(curve):.2f} |")
    return "\n".join(lines) + "\n"


def short(value: float) -> str:
    """A value in three digits, and all of them where it has more before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def figure(shown: Sequence[Panel]) -> Figure:
    """All curves, with their slopes."""
    drawn = Figure((10, 4 * math.ceil(len(shown) / 2)), layout="constrained")
    for place, panel in enumerate(shown, start=1):
        axes = drawn.add_subplot(math.ceil(len(shown) / 2), 2, place)
        for name, curve in panel.curves().items():
            label = f"{name} (slope {slope(curve):.2f})"
            axes.loglog(list(curve), list(curve.values()), "o-", markersize=3, label=label)
        axes.set(title=panel.title, xlabel=panel.size, ylabel=panel.unit)
        axes.set_xticks(list(panel.points), [f"{size:,}" for size in panel.points])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        low, high = axes.get_ylim()
        axes.set_ylim(low / 1.3, high * 1.3)  # a flat curve is seen to be one
        axes.grid(which="major", alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize="small")
    return drawn


def measure(effort: Effort, results: Path, picture: Path) -> None:
    """Measure every point that is not kept, write page and figure, and remove what is kept."""
    stamp = {"processor": processor().slug, **versions(), "effort": json.dumps(asdict(effort))}
    kept = Kept(HERE / ".unfinished" / f"growth-{effort.name}", stamp)
    print(f"{effort.name} growth {kept.origin}", file=sys.stderr)
    found: dict[str, Points] = {}
    for _ in measure_in_turn(parts(effort, kept, found), kept):
        shown = panels(found)
        results.write_text(page(shown))
        figure(shown).savefig(picture, dpi=90)
    kept.remove()
    print(f"written to {results} and {picture}", file=sys.stderr)


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effort", choices=EFFORTS, default="full")
    parser.add_argument("--output", type=Path, default=HERE / "results/growth.md")
    parser.add_argument("--figure", type=Path, default=HERE.parent / "docs/images/growth.png")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the command that runs, too
    with one_line_errors():
        try:
            measure(EFFORTS[options.effort], options.output, options.figure)
        except KeyboardInterrupt:
            sys.exit("stopped: the same command resumes from here")


if __name__ == "__main__":
    main()
