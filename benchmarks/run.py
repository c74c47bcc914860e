"""Measure the project against what it replaces; write a page of tables to benchmarks/results/.

The sides of a comparison run in turn, each in a process of its own, so that what slows the machine
slows them alike; a ratio is one of medians. `make bench` and `make bench-quick` call this; killed,
they resume where they were when they are called again.
"""

import argparse
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from kept import Kept
from machine import memory, processor, versions
from measure import HERE, Measured, over, peak_memory, run, script, stage, timed
from parts import Part, headed, measure_in_turn

from image_classification.core import paths
from image_classification.core.command import one_line_errors
from image_classification.core.compose import compose
from image_classification.data.arrays import load_split

PEERS = ("nn", "cnn", "dcnn")  # the models of peer_torch.py
WEIGHED = ("nn", "dcnn")  # whose stages' memory is measured
STUDY_EPOCHS = 20  # of the plain loop, to its published accuracy
ASKED_NATIVE, ASKED_ELSEWHERE = (
    10,
    8,
)  # times as fast to that accuracy, with native bfloat16 or without
SOURCES = ("src", "conf", "params.yaml", "dvc.yaml", "dvc.lock", "benchmarks/*.py")

# About what it takes on 2 cores of an Intel Xeon, for an estimate of how long the rest will take.
START_SECONDS = 8.0  # of a process that imports Keras
IMAGE_SECONDS = {  # of a training step
    **{"lm": 20e-6, "nn": 50e-6, "dnn": 55e-6, "dnnd": 70e-6},
    **{"cnn": 320e-6, "dcnn": 1000e-6},
}


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    name: str
    rounds: int
    epochs: int  # of a process; the first of them warms up and does not count
    examples: dict[str, int]  # of an epoch, by model
    seeds: int  # of the runs of each model with `fast`
    tracked_rounds: int  # of `fit` with MLflow and without
    tracked_epochs: int
    pipeline: bool  # whether the whole pipeline runs once, from nothing

    def script_seconds(self, model: str) -> float:
        """What a process that fits a model for some epochs takes, roughly."""
        return START_SECONDS + self.epochs * self.examples[model] * IMAGE_SECONDS[model]


def fast_seconds(model: str, examples: int) -> float:
    """What a whole run of `fast` takes, roughly: as long as two epochs of `notebook`."""
    return START_SECONDS + 2 * examples * IMAGE_SECONDS[model]


_EFFORTS = (
    Effort(
        "full",
        rounds=3,
        epochs=4,
        examples={
            **dict.fromkeys(("lm", "nn", "dnn", "dnnd"), 50_000),
            **{"cnn": 20_000, "dcnn": 10_000},
        },
        seeds=5,
        tracked_rounds=10,
        tracked_epochs=20,
        pipeline=True,
    ),
    Effort(
        "quick",
        rounds=2,
        epochs=4,
        examples={"nn": 20_000, "cnn": 4_000, "dcnn": 2_000},
        seeds=1,
        tracked_rounds=2,
        tracked_epochs=6,
        pipeline=False,
    ),
    Effort(
        "smoke",
        rounds=1,
        epochs=2,
        examples={"nn": 64},
        seeds=1,
        tracked_rounds=1,
        tracked_epochs=1,
        pipeline=False,
    ),
)
EFFORTS = {effort.name: effort for effort in _EFFORTS}


@dataclass(frozen=True)
class Bench:
    """An effort, and what is measured of it so far."""

    effort: Effort
    kept: Kept

    def script(self, name: str, *options: str, round_: int = 0) -> dict[str, Any]:
        """What a script measures, called with these options in this round; measured once."""
        key = " ".join([name, *options, f"(round {round_})"])
        return self.kept.once(key, partial(script, name, *options))


@dataclass(frozen=True)
class Epochs:
    """Seconds an epoch of one model by each side, and the training losses of the project."""

    sides: dict[str, Measured]  # by script
    losses: list[float]

    def ratio(self, script: str) -> float:
        """How many times as fast as that script the project is."""
        return over(self.sides[script].values, self.sides["project_keras.py"].values)


def sides_of(model: str) -> list[str]:
    """The scripts that train a model: the plain loop, the project and, if installed, PyTorch."""
    peers = ["peer_torch.py"] if importlib.util.find_spec("torch") and model in PEERS else []
    return ["plain_keras.py", "project_keras.py", *peers]


def epoch_of(model: str, bench: Bench) -> Epochs:
    """An epoch of a model by each side in turn, in several rounds; measured once."""
    effort = bench.effort
    options = ("--examples", str(effort.examples[model]), "--epochs", str(effort.epochs))
    sides: dict[str, list[float]] = {name: [] for name in sides_of(model)}
    losses = []
    for round_ in range(effort.rounds):
        for name, seconds in sides.items():
            measured = bench.script(name, model, *options, round_=round_)
            seconds += measured["seconds"][1:]
            if name == "project_keras.py":
                losses = measured["loss"]
    return Epochs({name: Measured(seconds) for name, seconds in sides.items()}, losses)


def same_recipe(bench: Bench) -> list[Part]:
    """Seconds an epoch, beside the least that the machine's arithmetic allows."""
    effort = bench.effort
    return [
        Part("the rate of multiply-adds", 2 * START_SECONDS, partial(_recipe_head, bench)),
        *(
            Part(
                f"an epoch of {model}",
                effort.rounds * len(sides_of(model)) * effort.script_seconds(model),
                partial(_recipe_row, bench, model),
            )
            for model in effort.examples
        ),
    ]


def _recipe_head(bench: Bench) -> list[str]:
    rate = bench.script("floor.py", *bench.effort.examples)["rate"]
    return [
        "### The `notebook` recipe, epoch for epoch",
        "",
        f"Seconds an epoch at batch 32. Floor: the multiply-adds of training at {rate / 1e9:.0f} "
        "billion a second, this machine's rate for the product of two float32 matrices.",
        "",
        "| model | examples | plain Keras loop | PyTorch | project | floor "
        "| plain over project | PyTorch over project | project over floor |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]


def _recipe_row(bench: Bench, model: str) -> list[str]:
    examples, epoch = bench.effort.examples[model], epoch_of(model, bench)
    project = epoch.sides["project_keras.py"]
    measured = bench.script("floor.py", *bench.effort.examples)
    least = examples * measured["multiply_adds"][model] / measured["rate"]
    torch, over_torch = "-", "-"
    if "peer_torch.py" in epoch.sides:
        torch = str(epoch.sides["peer_torch.py"])
        over_torch = f"**{epoch.ratio('peer_torch.py'):.2f}**"
    return [
        f"| {model} | {examples:,} | {epoch.sides['plain_keras.py']} | {torch} | {project} "
        f"| {least:.2g} | **{epoch.ratio('plain_keras.py'):.2f}** | {over_torch} "
        f"| {project.median / least:.1f} |"
    ]


def same_mathematics(bench: Bench) -> list[Part]:
    """The losses of the plain loop and of the project on the same examples in the same order."""
    head = [
        "",
        "### The same mathematics",
        "",
        "Training loss by epoch, from the same seed over the same order of the examples. Rounding "
        "grows from step to step; the last column shows how much: the plain loop against itself "
        "with initial weights off at random by about 1e-7 of their size.",
        "",
        "| model | plain Keras loop | project | relative difference by epoch "
        "| plain loop, nudged |",
        "|---|---|---|---|---|",
    ]
    rows = [
        Part(
            f"the losses of {model}",
            2 * bench.effort.script_seconds(model),
            partial(_mathematics_row, bench, model),
        )
        for model in bench.effort.examples
    ]
    return headed(head, rows)


def _mathematics_row(bench: Bench, model: str) -> list[str]:
    effort = bench.effort
    options = ("--examples", str(effort.examples[model]), "--epochs", str(effort.epochs))
    plain, nudged = (
        bench.script("plain_keras.py", model, *options, "--given-order", *extra)["loss"]
        for extra in ((), ("--nudge",))
    )
    ours = epoch_of(model, bench).losses
    shown = [", ".join(f"{loss:.5f}" for loss in losses) for losses in (plain, ours)]
    apart = [
        ", ".join(f"{abs(a - b) / a:.0e}" for a, b in zip(plain, losses, strict=True))
        for losses in (ours, nudged)
    ]
    return [f"| {model} | {shown[0]} | {shown[1]} | {apart[0]} | {apart[1]} |"]


def published_accuracy(bench: Bench) -> list[Part]:
    """Whole runs of `fast`, against the plain loop's epochs to the published scores."""
    effort, everything = bench.effort, len(load_split(paths.SPLIT).train.labels)
    head = [
        "",
        "### To the published accuracy",
        "",
        f"Seconds of a whole `fit` with `fast`, validation included, against {STUDY_EPOCHS} of the "
        f"plain loop's epochs (medians above, scaled to all {everything:,} examples). `fast` "
        "computes in the precision of its recipe where the processor has it built in, else in "
        "float32; where it has, float32 is measured as well.",
        "",
        "| model | computed in | plain Keras loop | `fast` | times as fast | asked "
        "| test accuracy, mean | its standard deviation | n | published, mean (n) |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    rows = [
        Part(
            f"{effort.seeds} x `fast` of {model}",
            effort.seeds * len(_precisions(model)) * fast_seconds(model, everything),
            partial(_accuracy_rows, bench, model, everything),
        )
        for model in effort.examples
    ]
    return headed(head, rows)


def _precisions(model: str) -> set[str]:
    """What `fast` will compute a model in, as far as the processor's flags tell."""
    own = compose(f"model={model}", "recipe=fast").recipe.precision
    return {"float32", own} if "bf16" in processor().capability else {"float32"}


def _accuracy_rows(bench: Bench, model: str, everything: int) -> list[str]:
    effort = bench.effort
    plain = epoch_of(model, bench).sides["plain_keras.py"].median
    plain *= STUDY_EPOCHS * everything / effort.examples[model]
    published = compose().data.published.get(model, [])
    theirs = f"{statistics.mean(published):.4f} ({len(published)})" if published else "-"

    def row(*precision: str) -> tuple[str, str]:
        runs = [
            bench.script(
                *("project_keras.py", model, "--recipe", "fast", "--seed", str(seed)), *precision
            )
            for seed in range(effort.seeds)
        ]
        fast = Measured([run["fit"] for run in runs])
        scores = [run["test_accuracy"] for run in runs]
        spread = f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else "-"
        used = runs[-1]["precision"]
        is_native = "bf16" in processor().capability and not precision
        asked = ASKED_NATIVE if is_native else ASKED_ELSEWHERE
        return used, (
            f"| {model} | {used} | {plain:.0f} | {fast} | **{plain / fast.median:.1f}** "
            f"| {asked} | {statistics.mean(scores):.4f} | {spread} | {len(scores)} "
            f"| {theirs} |"
        )

    used, own = row()
    return [own] if used == "float32" else [own, row("--precision", "float32")[1]]


def tracking(bench: Bench) -> list[Part]:
    """What a train stage takes outside `fit`, and what MLflow takes within."""
    effort, everything = bench.effort, len(load_split(paths.SPLIT).train.labels)
    epochs = effort.tracked_epochs * everything * IMAGE_SECONDS["nn"] / 2  # batches of 128
    return [
        Part(
            "a train stage besides its training",
            (1 + 3 * effort.rounds) * START_SECONDS,
            partial(_besides_training, bench),
        ),
        Part(
            "`fit` with MLflow and without",
            effort.tracked_rounds * 2 * (START_SECONDS + epochs),
            partial(_tracked_fit, bench),
        ),
    ]


@functools.cache
def warmed_store(folder: Path) -> str:
    """MLflow's store in a folder, after a run that makes it, or ends what a kill left there."""
    store = f"sqlite:///{folder}/mlflow.db"
    folder.mkdir(parents=True, exist_ok=True)
    script("train_stage.py", "nn", folder / "run", store=store)
    return store


def _a_train_stage(folder: Path) -> dict[str, Any]:
    store, run_folder = warmed_store(folder), folder / "run"
    command = stage("train", "model=nn", "recipe.epochs=1", f"hydra.run.dir={run_folder}")
    alone = timed(sys.executable, "-c", "import tensorflow")
    whole = timed(*command, store=store)
    written = json.loads((run_folder / paths.TRAINING_FILE).read_text())
    parts = script("train_stage.py", "nn", run_folder, store=store)
    del parts["fit"]
    return {"alone": alone, "outside": whole - written["fit_seconds"], "parts": parts}


def _besides_training(bench: Bench) -> list[str]:
    folder = bench.kept.folder
    rounds = [
        bench.kept.once(f"a train stage (round {number})", partial(_a_train_stage, folder))
        for number in range(bench.effort.rounds)
    ]
    alone, outside = ([one[name] for one in rounds] for name in ("alone", "outside"))
    parts = {part: Measured([one["parts"][part] for one in rounds]) for part in rounds[0]["parts"]}
    return [
        "",
        "### What tracking costs",
        "",
        "A train stage of nn, one epoch, logging to SQLite.",
        "",
        "| | seconds |",
        "|---|--:|",
        f"| `import tensorflow` | {Measured(alone)} |",
        f"| a train stage without its `fit` | {Measured(outside)} |",
        "",
        "A train stage without its `fit` over `import tensorflow`: "
        f"**{over(outside, alone):.2f}**.",
        "",
        "| part of a train stage outside `fit` | seconds |",
        "|---|--:|",
        *(f"| {part} | {seconds} |" for part, seconds in parts.items()),
    ]


def _tracked_fit(bench: Bench) -> list[str]:
    effort, folder = bench.effort, bench.kept.folder
    epochs = str(effort.tracked_epochs)

    def fit(*tracked: str) -> dict[str, Any]:
        options = ("nn", "--recipe", "fast", "--epochs", epochs, *tracked)
        return script("project_keras.py", *options, store=warmed_store(folder))

    sides: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    for number in range(effort.tracked_rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))  # being second may help
        for side in order:
            options = ("--tracked",) if side == "with" else ()
            key = f"`fit` {side} MLflow (round {number})"
            sides[side].append(bench.kept.once(key, partial(fit, *options)))
    lines, ratios = [], []
    for clock, title in (("fit", "seconds"), ("processor", "processor seconds")):
        plain, tracked = ([run[clock] for run in runs] for runs in sides.values())
        lines.append(f"| {title} | {Measured(plain)} | {Measured(tracked)} |")
        ratios.append(f"**{over(tracked, plain):.3f}** in {title}")
    logging = Measured([100 * run["report"] / run["fit"] for run in sides["with"]]).median
    return [
        "",
        f"`fit` of nn with `fast`, {epochs} epochs, {effort.tracked_rounds} rounds, each in the "
        "opposite order of the one before; processor seconds of all threads together.",
        "",
        "| | without MLflow | with MLflow |",
        "|---|--:|--:|",
        *lines,
        "",
        f"`fit` with MLflow over `fit` without: {', '.join(ratios)}; {logging:.2f} % of it goes "
        "into saving and logging the epochs.",
    ]


def require_finished_pipeline() -> None:
    """Find out before anything is measured that `dvc repro` has nothing to do."""
    if run("dvc", "status", "--json").strip() != "{}":
        raise SystemExit("error: the pipeline has something to do: run `make repro` first")


def copy_of_the_project(root: Path) -> None:
    """What git holds, in a repository of its own, with the raw data in place."""
    run("git", "clone", "--quiet", Path.cwd(), root)
    shutil.copytree(paths.RAW, root / paths.RAW)


def whole_commands(bench: Bench) -> list[Part]:
    """What the tools around a run cost."""
    return [Part("whole commands", bench.effort.rounds * 5, partial(_whole_commands, bench))]


def _whole_commands(bench: Bench) -> list[str]:
    collected = bench.kept.once("whole commands", partial(_time_commands, bench.effort.rounds))
    status, repro = list(collected.values())[:2]
    lines = ["", "### Whole commands", "", "| | seconds |", "|---|--:|"]
    lines += [f"| {title} | {Measured(values)} |" for title, values in collected.items()]
    return [*lines, "", f"`dvc repro` over `dvc status`: **{over(repro, status):.2f}**."]


def _time_commands(rounds: int) -> dict[str, list[float]]:
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
        for _ in range(rounds):
            for title, side in sides.items():
                collected[title].append(side())
    return collected


def each_stage(bench: Bench) -> list[Part]:
    """The memory of each stage; and, if it is to run as a whole, the time of the pipeline."""
    models = [model for model in WEIGHED if model in bench.effort.examples]
    everything = len(load_split(paths.SPLIT).train.labels)
    stages = 2 + 2 * len(models)
    trained = sum(fast_seconds(model, everything) / 2 for model in models)
    seconds = stages * START_SECONDS + trained
    parts = [Part("the memory of each stage", seconds, partial(_memory, bench, models))]
    if bench.effort.pipeline:
        parts.append(Part("the whole pipeline", 240, partial(_pipeline, bench)))
    return parts


def _memory(bench: Bench, models: Sequence[str]) -> list[str]:
    peaks = bench.kept.once("the memory of each stage", partial(_weigh_stages, models))
    lines = ["", "### Each stage", "", "| stage | peak memory, MiB |", "|---|--:|"]
    return [*lines, *(f"| {title} | {peak:,.0f} |" for title, peak in peaks.items())]


def _weigh_stages(models: Sequence[str]) -> dict[str, float]:
    peaks = {}
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
            peaks[title] = peak_memory(*command, cwd=root)
    return peaks


def _pipeline(bench: Bench) -> list[str]:
    seconds = bench.kept.once("the whole pipeline", _time_pipeline)
    return ["", f"`dvc repro` of all six models, the data at hand: **{seconds:.0f} s**."]


def _time_pipeline() -> float:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "project"
        copy_of_the_project(root)
        return timed("dvc", "repro", cwd=root, store="")


def sources() -> str:
    """A hash of the files that measurements depend on, committed or not."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SOURCES)
    digest = hashlib.sha256()
    for path in map(Path, filter(None, listed.split("\0"))):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{path} {len(content)} ".encode() + content)
    return digest.hexdigest()[:12]


def head_of_the_page(effort: Effort) -> list[str]:
    """When, of which code, on which machine this was measured."""
    ours, found = processor(), versions()
    changed = run("git", "status", "--porcelain", "--", *SOURCES).strip()
    commit = run("git", "rev-parse", "--short", "HEAD").strip()
    python = found.pop("python")
    return [
        "# Measured",
        "",
        f"- date: {date.today()}",
        f"- commit: {commit}{', with changes' if changed else ''}",
        f"- effort: {effort.name}, {effort.rounds} round(s) unless stated otherwise",
        f"- processor: {', '.join([ours.name, *ours.numbers])}; {ours.vectors}",
        f"- cores, memory: {os.cpu_count()}, {memory()}",
        f"- Python: {python}",
        f"- packages: {', '.join(f'{name} {number}' for name, number in found.items())}",
        "",
        "Median (least-most).",
        "",
    ]


def page_of(effort: Effort) -> Path:
    """The page of this machine; the shorter efforts have pages of their own."""
    suffix = "" if effort.name == "full" else f"-{effort.name}"
    return HERE / "results" / f"{processor().slug}{suffix}.md"


def measure(effort: Effort, page: Path) -> None:
    """Measure everything that is not kept, write the page, and remove what is kept."""
    require_finished_pipeline()
    found = versions()
    stamp = {"processor": processor().slug, "cores": str(os.cpu_count()), "sources": sources()}
    bench = Bench(effort, Kept(HERE / ".unfinished" / effort.name, {**stamp, **found}))
    print(f"{effort.name} benchmark {bench.kept.origin}", file=sys.stderr)
    with_torch = f"with PyTorch {found['torch']}"
    without = "without PyTorch, which `uv pip install --group benchmarks` installs"
    print(without if found["torch"] == "not installed" else with_torch, file=sys.stderr)
    sections: list[Callable[[Bench], list[Part]]] = [
        *(same_recipe, same_mathematics, published_accuracy),
        *(tracking, whole_commands, each_stage),
    ]
    parts = [part for section in sections for part in section(bench)]
    lines = head_of_the_page(effort)
    for measured in measure_in_turn(parts, bench.kept):
        lines += measured
    page.write_text("\n".join(lines) + "\n")
    bench.kept.remove()
    print("\n".join(lines))
    print(f"written to {page}", file=sys.stderr)


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effort", choices=EFFORTS, default="full")
    parser.add_argument("--output", type=Path, help="instead of this machine's page")
    options = parser.parse_args()
    effort = EFFORTS[options.effort]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the command that runs, too
    with one_line_errors():
        try:
            measure(effort, options.output or page_of(effort))
        except KeyboardInterrupt:
            sys.exit("stopped: the same command resumes from here")


if __name__ == "__main__":
    main()
