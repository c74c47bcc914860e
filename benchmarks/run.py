"""Measure the project against what it replaces; write the tables to benchmarks/results.md.

The sides of a comparison run in turn, each in a process of its own, so that what slows the machine
slows them alike; a ratio is one of medians. `make bench` and `make bench-quick` call this.
"""

import argparse
import functools
import importlib.util
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from measure import Measured, machine, over, peak_memory, run, script, stage, timed
from parts import Part, headed, measure_in_turn

from image_classification.core import paths
from image_classification.core.compose import compose
from image_classification.data.arrays import load_split

HERE = Path(__file__).parent
PEERS = ("nn", "cnn", "dcnn")  # the models of peer_torch.py
WEIGHED = ("nn", "dcnn")  # whose stages' memory is measured
STUDY_EPOCHS = 20  # of the bare loop, to its published accuracy

# About what it takes on 2 cores of an Intel Xeon, for an estimate of how long the rest will take.
START_SECONDS = 8.0  # of a process that imports Keras
IMAGE_SECONDS = {  # of a training step
    **{"lm": 20e-6, "nn": 50e-6, "dnn": 55e-6, "dnnd": 70e-6},
    **{"cnn": 320e-6, "dcnn": 1000e-6},
}


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int
    epochs: int  # of a process; the first of them warms up and does not count
    examples: dict[str, int]  # of an epoch, by model
    seeds: int  # of the runs of each model by `fast`
    pipeline: bool  # whether the whole pipeline runs once, from nothing

    def script_seconds(self, model: str) -> float:
        """What a process that fits a model for some epochs takes, roughly."""
        return START_SECONDS + self.epochs * self.examples[model] * IMAGE_SECONDS[model]


def fast_seconds(model: str, examples: int) -> float:
    """What a whole run of `fast` takes, roughly: as long as two epochs of `notebook`."""
    return START_SECONDS + 2 * examples * IMAGE_SECONDS[model]


EFFORTS = {
    "full": Effort(
        rounds=3,
        epochs=4,
        examples={
            **dict.fromkeys(("lm", "nn", "dnn", "dnnd"), 50_000),
            **{"cnn": 20_000, "dcnn": 10_000},
        },
        seeds=3,
        pipeline=True,
    ),
    "quick": Effort(2, 4, {"nn": 20_000, "cnn": 4_000, "dcnn": 2_000}, seeds=1, pipeline=False),
    "smoke": Effort(1, 2, {"nn": 64}, seeds=1, pipeline=False),
}


@dataclass(frozen=True)
class Epochs:
    """Seconds an epoch of one model by each side, and the training losses of the project."""

    sides: dict[str, Measured]  # by script
    losses: list[float]

    def ratio(self, script: str) -> float:
        """How many times as fast as that script the project is."""
        return over(self.sides[script].values, self.sides["project_keras.py"].values)


def sides_of(model: str) -> list[str]:
    """The scripts that train a model: the bare loop, the project and, if installed, PyTorch."""
    peers = ["peer_torch.py"] if importlib.util.find_spec("torch") and model in PEERS else []
    return ["bare_keras.py", "project_keras.py", *peers]


@functools.cache
def an_epoch(model: str, examples: int, count: int, rounds: int) -> Epochs:
    """Run each side in turn, in several rounds; measured once."""
    sides: dict[str, list[float]] = {name: [] for name in sides_of(model)}
    losses = []
    for _ in range(rounds):
        for name, seconds in sides.items():
            options = ("--examples", str(examples), "--epochs", str(count))
            measured = script(name, model, *options)
            seconds += measured["seconds"][1:]
            if name == "project_keras.py":
                losses = measured["loss"]
    return Epochs({name: Measured(seconds) for name, seconds in sides.items()}, losses)


def epoch_of(model: str, effort: Effort) -> Epochs:
    """An epoch of a model as this effort measures it; measured once."""
    return an_epoch(model, effort.examples[model], effort.epochs, effort.rounds)


@functools.cache
def floor(models: tuple[str, ...]) -> dict[str, Any]:
    """The machine's rate of multiply-adds, and how many each model takes; measured once."""
    return script("floor.py", *models)


def same_recipe(effort: Effort) -> list[Part]:
    """Seconds an epoch, beside the least that the machine's arithmetic allows."""
    return [
        Part("the rate of multiply-adds", 2 * START_SECONDS, partial(_recipe_head, effort)),
        *(
            Part(
                f"an epoch of {model}",
                effort.rounds * len(sides_of(model)) * effort.script_seconds(model),
                partial(_recipe_row, effort, model),
            )
            for model in effort.examples
        ),
    ]


def _recipe_head(effort: Effort) -> list[str]:
    rate = floor(tuple(effort.examples))["rate"]
    return [
        "### The `notebook` recipe, epoch for epoch",
        "",
        f"Seconds an epoch at batch 32. Floor: the multiply-adds of training at {rate / 1e9:.0f} "
        "billion a second, this machine's rate for the product of two float32 matrices.",
        "",
        "| model | examples | bare Keras loop | PyTorch | project | floor "
        "| bare over project | PyTorch over project | project over floor |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]


def _recipe_row(effort: Effort, model: str) -> list[str]:
    examples, epoch = effort.examples[model], epoch_of(model, effort)
    project = epoch.sides["project_keras.py"]
    measured = floor(tuple(effort.examples))
    least = examples * measured["multiply_adds"][model] / measured["rate"]
    torch, over_torch = "-", "-"
    if "peer_torch.py" in epoch.sides:
        torch = str(epoch.sides["peer_torch.py"])
        over_torch = f"**{epoch.ratio('peer_torch.py'):.2f}**"
    return [
        f"| {model} | {examples:,} | {epoch.sides['bare_keras.py']} | {torch} | {project} "
        f"| {least:.2g} | **{epoch.ratio('bare_keras.py'):.2f}** | {over_torch} "
        f"| {project.median / least:.1f} |"
    ]


def same_mathematics(effort: Effort) -> list[Part]:
    """The losses of the bare loop and of the project on the same examples in the same order."""
    head = [
        "",
        "### The same mathematics",
        "",
        "Training loss by epoch, from the same seed over the same order of the examples. Rounding "
        "grows from step to step; the last column shows how much: the bare loop against itself "
        "with initial weights off at random by about 1e-7 of their size.",
        "",
        "| model | bare Keras loop | project | relative difference by epoch | bare loop, nudged |",
        "|---|---|---|---|---|",
    ]
    rows = [
        Part(
            f"the losses of {model}",
            2 * effort.script_seconds(model),
            partial(_mathematics_row, effort, model),
        )
        for model in effort.examples
    ]
    return headed(head, rows)


def _mathematics_row(effort: Effort, model: str) -> list[str]:
    options = ("--examples", str(effort.examples[model]), "--epochs", str(effort.epochs))
    bare, nudged = (
        script("bare_keras.py", model, *options, "--given-order", *extra)["loss"]
        for extra in ((), ("--nudge",))
    )
    ours = epoch_of(model, effort).losses
    shown = [", ".join(f"{loss:.5f}" for loss in losses) for losses in (bare, ours)]
    apart = [
        ", ".join(f"{abs(a - b) / a:.0e}" for a, b in zip(bare, losses, strict=True))
        for losses in (ours, nudged)
    ]
    return [f"| {model} | {shown[0]} | {shown[1]} | {apart[0]} | {apart[1]} |"]


def published_accuracy(effort: Effort) -> list[Part]:
    """Whole runs of `fast`, against the bare loop's epochs to the published scores."""
    everything = len(load_split(paths.SPLIT).train.labels)
    head = [
        "",
        "### To the published accuracy",
        "",
        f"Seconds of a whole `fit` by `fast`, validation included, against {STUDY_EPOCHS} of the "
        f"bare loop's epochs (medians above, scaled to all {everything:,} examples).",
        "",
        "| model | bare Keras loop | `fast` | times as fast | test accuracy, mean | its standard "
        "deviation | n | computed in | published, mean (n) |",
        "|---|--:|--:|--:|--:|--:|--:|---|--:|",
    ]
    rows = [
        Part(
            f"{effort.seeds} x `fast` of {model}",
            effort.seeds * fast_seconds(model, everything),
            partial(_accuracy_row, effort, model, everything),
        )
        for model in effort.examples
    ]
    return headed(head, rows)


def _accuracy_row(effort: Effort, model: str, everything: int) -> list[str]:
    bare = epoch_of(model, effort).sides["bare_keras.py"].median
    bare *= STUDY_EPOCHS * everything / effort.examples[model]
    runs = [
        script("project_keras.py", model, "--recipe", "fast", "--seed", str(seed))
        for seed in range(effort.seeds)
    ]
    fast = Measured([run["fit"] for run in runs])
    scores = [run["test_accuracy"] for run in runs]
    spread = f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else "-"
    published = compose().data.published.get(model, [])
    theirs = f"{statistics.mean(published):.4f} ({len(published)})" if published else "-"
    return [
        f"| {model} | {bare:.0f} | {fast} | **{bare / fast.median:.1f}** "
        f"| {statistics.mean(scores):.4f} | {spread} | {len(scores)} | {runs[-1]['precision']} "
        f"| {theirs} |"
    ]


def tracking(effort: Effort) -> list[Part]:
    """What a train stage takes outside `fit`, and what MLflow takes within."""
    everything = len(load_split(paths.SPLIT).train.labels)
    a_round = 3 * START_SECONDS + 2 * fast_seconds("nn", everything)
    seconds = 2 * START_SECONDS + effort.rounds * a_round
    return [Part("what tracking costs", seconds, partial(_tracking, effort))]


def _tracking(effort: Effort) -> list[str]:
    parts: dict[str, list[float]] = {}
    alone, outside, plain, tracked, calls = (list[float]() for _ in range(5))
    fast = ("project_keras.py", "nn", "--recipe", "fast")
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name) / "run", f"sqlite:///{name}/mlflow.db"
        script("train_stage.py", "nn", folder, store=store)  # makes the store
        by_hand = stage("train", "model=nn", "recipe.epochs=1", f"hydra.run.dir={folder}")
        for _ in range(effort.rounds):
            alone.append(timed(sys.executable, "-c", "import tensorflow"))
            whole = timed(*by_hand, store=store)
            written = json.loads((folder / paths.TRAINING_FILE).read_text())
            outside.append(whole - written["fit_seconds"])
            for part, seconds in script("train_stage.py", "nn", folder, store=store).items():
                parts.setdefault(part, []).append(seconds)
            plain.append(script(*fast)["fit"])
            measured = script(*fast, "--tracked", store=store)
            tracked.append(measured["fit"])
            calls.append(measured["report"] / measured["fit"])
    del parts["fit"]
    return [
        "",
        "### What tracking costs",
        "",
        "A train stage of nn, one epoch, logging to SQLite; `fit` of nn by `fast`.",
        "",
        "| | seconds |",
        "|---|--:|",
        f"| `import tensorflow` | {Measured(alone)} |",
        f"| a train stage without its `fit` | {Measured(outside)} |",
        f"| `fit` without MLflow | {Measured(plain)} |",
        f"| `fit` with MLflow | {Measured(tracked)} |",
        "",
        "A train stage without its `fit` over `import tensorflow`: "
        f"**{over(outside, alone):.2f}**. `fit` with MLflow over `fit` without: "
        f"**{over(tracked, plain):.3f}**; {100 * Measured(calls).median:.2f} % of it goes into "
        "saving and logging the epochs.",
        "",
        "| part of a train stage outside `fit` | seconds |",
        "|---|--:|",
        *(f"| {part} | {Measured(values)} |" for part, values in parts.items()),
    ]


def require_finished_pipeline() -> None:
    """Find out before anything is measured that `dvc repro` has nothing to do."""
    if run("dvc", "status", "--json").strip() != "{}":
        raise SystemExit("error: the pipeline has something to do: run `make repro` first")


def copy_of_the_project(root: Path) -> None:
    """What git holds, in a repository of its own, with the raw data in place."""
    run("git", "clone", "--quiet", Path.cwd(), root)
    shutil.copytree(paths.RAW, root / paths.RAW)


def whole_commands(effort: Effort) -> list[Part]:
    """What the tools around a run cost."""
    return [Part("whole commands", effort.rounds * 5, partial(_whole_commands, effort))]


def _whole_commands(effort: Effort) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name)
        run("git", "init", "--quiet", cwd=empty)
        run("dvc", "init", "--quiet", cwd=empty)
        sides = {
            "`dvc status` in an empty project": partial(timed, "dvc", "status", cwd=empty),
            "`dvc repro` with nothing to do": partial(timed, "dvc", "repro"),
            "`--help`": partial(timed, *stage("train", "--help")),
            "a config error": partial(timed, *stage("train", "recipe.epochs=-1"), code=1),
        }
        collected: dict[str, list[float]] = {title: [] for title in sides}
        for _ in range(effort.rounds):
            for title, side in sides.items():
                collected[title].append(side())
    status, repro = list(collected.values())[:2]
    lines = ["", "### Whole commands", "", "| | seconds |", "|---|--:|"]
    lines += [f"| {title} | {Measured(values)} |" for title, values in collected.items()]
    return [*lines, "", f"`dvc repro` over `dvc status`: **{over(repro, status):.2f}**."]


def each_stage(effort: Effort) -> list[Part]:
    """The memory of each stage; and, if it is to run as a whole, the time of the pipeline."""
    models = [model for model in WEIGHED if model in effort.examples]
    everything = len(load_split(paths.SPLIT).train.labels)
    stages = 2 + 2 * len(models)
    trained = sum(fast_seconds(model, everything) / 2 for model in models)
    parts = [
        Part("the memory of each stage", stages * START_SECONDS + trained, partial(_memory, models))
    ]
    if effort.pipeline:
        parts.append(Part("the whole pipeline", 240, _pipeline))
    return parts


def _memory(models: Sequence[str]) -> list[str]:
    lines = ["", "### Each stage", "", "| stage | peak memory, MiB |", "|---|--:|"]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "project"
        copy_of_the_project(root)
        commands = [stage("split", "hydra.run.dir=.")]
        for model in models:
            named = f"model={model}"
            commands.append(
                stage("train", named, "recipe.epochs=1", f"hydra.run.dir=runs/{model}-0")
            )
            commands.append(stage("evaluate", named, f"hydra.run.dir=evaluations/{model}-0"))
        commands.append(stage("compare", f"models=[{','.join(models)}]", "hydra.run.dir=."))
        for command in commands:
            title = " ".join(word for word in command[3:] if not word.startswith("hydra."))
            lines.append(f"| {title} | {peak_memory(*command, cwd=root):,.0f} |")
    return lines


def _pipeline() -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "project"
        copy_of_the_project(root)
        seconds = timed("dvc", "repro", cwd=root, store="")
    return ["", f"`dvc repro` of all six models, the data at hand: **{seconds:.0f} s**."]


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effort", choices=EFFORTS, default="full")
    parser.add_argument("--output", type=Path, default=HERE / "results.md")
    options = parser.parse_args()
    effort = EFFORTS[options.effort]
    require_finished_pipeline()
    sections: list[Callable[[Effort], list[Part]]] = [
        *(same_recipe, same_mathematics, published_accuracy),
        *(tracking, whole_commands, each_stage),
    ]
    parts = [part for section in sections for part in section(effort)]
    lines = [
        "# Measured",
        "",
        f"{date.today()}, {machine()}, {effort.rounds} round(s). Median (least-most).",
        "",
    ]
    for measured in measure_in_turn(parts):
        lines += measured
        options.output.write_text("\n".join(lines) + "\n")  # stays, whatever follows
    print("\n".join(lines))


if __name__ == "__main__":
    main()
