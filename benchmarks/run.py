"""Measure the project against what it replaces; write the tables to benchmarks/results.md.

The sides of a comparison run in turn, each in a process of its own, so that what slows the machine
slows them alike; a ratio is one of medians. `make bench` and `make bench-quick` call this.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
TRAIN = (sys.executable, "-m", "image_classification.train")


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds of each comparison, and examples an epoch by model."""

    rounds: int
    examples: dict[str, int]
    epochs: int = 3  # the first of them warms up and does not count


EFFORTS = {
    "full": Effort(5, {"nn": 50_000, "cnn": 20_000, "dcnn": 10_000}),
    "quick": Effort(3, {"nn": 20_000, "cnn": 4_000, "dcnn": 2_000}),
    "smoke": Effort(1, {"nn": 64}, epochs=2),
}


@dataclass(frozen=True)
class Seconds:
    """How long one thing took, each time."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The middle of them."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """The median and the spread, for a table."""
        return f"{self.median:.2f} ({min(self.values):.2f}-{max(self.values):.2f})"


def run(*command: str | Path, cwd: Path | None = None, code: int = 0, **variables: str) -> str:
    """Run a command that must end with this exit code; what it printed."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )
    if done.returncode != code:
        raise SystemExit(f"error: {command} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def timed(*command: str, cwd: Path | None = None, code: int = 0) -> float:
    """Seconds of a whole command."""
    start = time.perf_counter()
    run(*command, cwd=cwd, code=code)
    return time.perf_counter() - start


def epochs(script: str, model: str, effort: Effort, *options: str) -> dict[str, list[float]]:
    """What one of the training scripts beside this file prints."""
    count = ("--examples", str(effort.examples[model]), "--epochs", str(effort.epochs))
    printed = run(sys.executable, HERE / script, model, *count, *options)
    values: dict[str, list[float]] = json.loads(printed.splitlines()[-1])
    return values


def against(peer: str, title: str, effort: Effort) -> list[str]:
    """Seconds an epoch of a peer's script, against the project's `notebook` recipe."""
    lines = [
        f"### {title}: seconds an epoch",
        "",
        "| model | examples | peer | project | times as fast |",
        "|---|--:|--:|--:|--:|",
    ]
    for model, examples in effort.examples.items():
        theirs: list[float] = []
        ours: list[float] = []
        for _ in range(effort.rounds):
            theirs += epochs(peer, model, effort)["seconds"][1:]
            ours += epochs("project_keras.py", model, effort)["seconds"][1:]
        ratio = Seconds(theirs).median / Seconds(ours).median
        lines.append(
            f"| {model} | {examples:,} | {Seconds(theirs)} | {Seconds(ours)} | **{ratio:.2f}** |"
        )
    return [*lines, ""]


def same_mathematics(effort: Effort) -> list[str]:
    """The losses of the bare loop and of the project on the same examples in the same order."""
    lines = [
        "### The same mathematics: training loss by epoch, same seed and order of the examples",
        "",
        "| model | bare loop | project | largest relative difference |",
        "|---|---|---|--:|",
    ]
    for model in effort.examples:
        bare = epochs("bare_keras.py", model, effort, "--given-order")["loss"]
        ours = epochs("project_keras.py", model, effort)["loss"]
        difference = max(abs(a - b) / a for a, b in zip(bare, ours, strict=True))
        shown = [", ".join(f"{loss:.5f}" for loss in losses) for losses in (bare, ours)]
        lines.append(f"| {model} | {shown[0]} | {shown[1]} | {difference:.1e} |")
    return [*lines, ""]


def outside_fit(folder: Path) -> float:
    """Seconds of a whole train stage of nn that are not `fit`, logging to a store of its own."""
    start = time.perf_counter()
    run(
        *(*TRAIN, "model=nn", "recipe.epochs=1", f"hydra.run.dir={folder / 'training'}"),
        MLFLOW_TRACKING_URI=f"sqlite:///{folder / 'mlflow.db'}",
    )
    seconds = time.perf_counter() - start
    training = json.loads((folder / "training/training.json").read_text())
    return seconds - float(training["fit_seconds"])


def whole_commands(effort: Effort) -> list[str]:
    """What the tools around a training cost."""
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name)
        run("git", "init", "--quiet", cwd=empty)
        run("dvc", "init", "--quiet", cwd=empty)
        outside_fit(empty)  # makes the store, which later trainings find
        sides = {
            "`dvc status` in an empty project": partial(timed, "dvc", "status", cwd=empty),
            "`dvc repro` with nothing to do": partial(timed, "dvc", "repro"),
            "`--help`": partial(timed, *TRAIN, "--help"),
            "a config error": partial(timed, *TRAIN, "recipe.epochs=-1", code=1),
            "`import tensorflow`": partial(timed, sys.executable, "-c", "import tensorflow"),
            "a train stage of nn outside `fit`": partial(outside_fit, empty),
        }
        collected: dict[str, list[float]] = {title: [] for title in sides}
        for _ in range(effort.rounds):
            for title, side in sides.items():
                collected[title].append(side())
    lines = ["### Whole commands", "", "| | seconds |", "|---|--:|"]
    lines += [f"| {title} | {Seconds(values)} |" for title, values in collected.items()]
    return [*lines, ""]


def machine() -> str:
    """A line on what this was measured on."""
    described = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in described if "model name" in line]
    processor = names[0] if names else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = platform.python_version()
    return f"{os.cpu_count()} cores of {processor}, {memory:.0f} GiB, Python {python}"


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effort", choices=EFFORTS, default="full")
    parser.add_argument("--output", type=Path, default=HERE / "results.md")
    options = parser.parse_args()
    effort = EFFORTS[options.effort]
    sections: list[Callable[[Effort], list[str]]] = [
        partial(against, "bare_keras.py", "The `notebook` recipe against the bare Keras loop"),
        same_mathematics,
        whole_commands,
    ]
    if importlib.util.find_spec("torch"):
        sections.append(partial(against, "peer_torch.py", "The same against plain PyTorch"))
    lines = [
        "# Measured",
        "",
        f"{date.today()}, {machine()}, {effort.rounds} round(s). Median (least-most).",
        "",
    ]
    for section in sections:
        lines += section(effort)
        options.output.write_text("\n".join(lines))  # what is measured stays, whatever follows
    print("\n".join(lines))


if __name__ == "__main__":
    main()
