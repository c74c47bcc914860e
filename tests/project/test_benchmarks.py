"""The benchmarks run, on hardly any data; how fast, no test can say."""

import ast
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import machine
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Project
from growth import slope
from kept import FILE, Kept
from measure import cost
from parts import seconds_left

BENCHMARKS = ROOT / "benchmarks"
STAMP = {"sources": "1a2b", "keras": "3.15.0"}

EPYC = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC Processor
flags\t\t: fpu fma avx f16c avx2 vaes

processor\t: 1
cpu family\t: 26
"""
XEON = """cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Processor @ 2.70GHz
flags\t\t: fpu avx avx2 avx512f avx512_bf16 amx_bf16 amx_tile
"""
CORE = """cpu family\t: 6
model\t\t: 142
model name\t: Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz
flags\t\t: fpu sse2
"""
NAMED = """cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9J14 96-Core Processor
flags\t\t: avx avx2 avx512f avx512_bf16
"""
ARM = """processor\t: 0
Features\t: fp asimd sve bf16 i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def test_the_memory_of_a_command_is_not_that_of_the_process_that_starts_it(tmp_path: Path) -> None:
    held = np.ones(50 * 2**20)  # 400 MiB

    small = cost(sys.executable, "-c", "", cwd=tmp_path)
    large = cost(sys.executable, "-c", "b'x' * 200 * 2**20", cwd=tmp_path)

    assert small.memory < 50 < 200 < large.memory < 250
    assert held[0] == 1


@pytest.mark.slow
def test_every_measurement_ends_with_a_figure_also_after_a_kill(
    trained: Project, tmp_path: Path
) -> None:
    results = tmp_path / "results.md"
    command = (sys.executable, "benchmarks/run.py", "--effort", "smoke", "--output", str(results))
    with subprocess.Popen(
        command, cwd=trained.root, env=trained.environment(), stderr=subprocess.PIPE, text=True
    ) as first:
        assert first.stderr
        assert any(line.startswith("part 3 of") for line in first.stderr)
        first.kill()
    assert not results.exists()

    done = trained.run(*command)

    assert done.returncode == 0, done.stderr
    assert re.search(r"resumes: [3-9] measurement\(s\) reused, \d+:\d\d of work", done.stderr)
    assert "PyTorch" in done.stderr
    shown = r"part (\d+) of 8: .+ \(\d+:\d\d so far, about \d+:\d\d left\)"
    found = [re.fullmatch(shown, line) for line in done.stderr.splitlines()]
    assert [int(match[1]) for match in found if match] == list(range(1, 9))
    assert not (trained.root / "benchmarks/.unfinished/smoke").exists()
    page = results.read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    (speed,) = [row for row in rows if row[:2] == ["| nn", "64"]]
    (fast,) = [row for row in rows if row[0] == "| nn" and row[-1].startswith("0.9808 (1)")]
    (losses,) = [row for row in rows if row[0] == "| nn" and row not in (speed, fast)]
    assert float(speed[-1].rstrip(" |")) > 1  # nothing is faster than its floor
    assert fast[1] == "float32"
    assert 0.1 < float(fast[6]) <= 1
    assert all(float(apart) < 1e-3 for apart in losses[3].split(", "))  # from the plain loop's
    for measured in (
        "import TensorFlow",
        "import MLflow",
        "processor seconds",
        "`dvc repro` with nothing to do",
        "train model=nn recipe",
    ):
        assert f"| {measured}" in page


@pytest.mark.slow
def test_growth_is_measured_to_the_end_and_drawn(trained: Project, tmp_path: Path) -> None:
    results, picture = tmp_path / "growth.md", tmp_path / "growth.png"
    command = (sys.executable, "benchmarks/growth.py", "--effort", "smoke")

    trained.must(*command, "--output", str(results), "--figure", str(picture))

    page = results.read_text()
    titles = ["Runs in MLflow", "The pipeline's trainings", "Jobs of a sweep in one process"]
    assert all(f"## {title}" in page for title in [*titles, "Stages and images"])
    rows = {row[0]: row[1:] for line in page.splitlines() if (row := line.strip("| ").split(" | "))}
    # `dvc repro` had nothing to do: what trains takes TensorFlow, and that takes longer.
    assert float(rows["dvc repro"][1]) < float(rows["train"][1])
    assert picture.stat().st_size > 10_000
    assert not (trained.root / "benchmarks/.unfinished/growth-smoke").exists()


@pytest.mark.slow
def test_searches_spend_one_budget_and_their_best_are_trained_again(
    split_project: Project, empty_store: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_store, split_project.root)
    plan = ("--model", "tiny_lm", "--epochs", "1", "--budget", "2", "--repetitions", "2")
    command = (sys.executable, "benchmarks/searches.py", *plan, "--fresh", "2")

    split_project.must(*command, "--output", str(tmp_path))

    trials = pd.read_csv(tmp_path / "trials.csv")
    assert trials.groupby(["search", "seed"])["epochs"].sum().tolist() == [2, 2, 2, 2]
    page = (tmp_path / "searches.md").read_text()
    for name in ("none: the recipe as it comes", "optuna-0", "random-0", "optuna-1", "random-1"):
        assert f"| {name} |" in page
    assert page.count("95 % interval") == 2
    assert (tmp_path / "searches.png").stat().st_size > 10_000


def test_a_slope_is_that_of_the_end_on_logarithmic_axes() -> None:
    assert slope({1: 5.0, 10: 3.0, 100: 300.0}) == pytest.approx(2)
    assert slope({1: 5.0, 10: 50.0}) == pytest.approx(1)
    assert math.isnan(slope({1: 5.0}))


def test_the_time_left_scales_with_the_time_taken() -> None:
    assert seconds_left([10, 20, 30], done=0, spent=0) == 60
    assert seconds_left([10, 20, 30], done=1, spent=20) == 100
    assert seconds_left([10, 20, 30], done=2, spent=15) == 15
    assert seconds_left([10, 20, 30], done=1, spent=20, ahead=35) == 65  # of the second part


def test_a_measurement_is_made_once_whatever_kills_the_benchmark(tmp_path: Path) -> None:
    script = tmp_path / "benchmark.py"
    script.write_text(
        f"""
import os, signal
from pathlib import Path
from kept import Kept

def measure(key):
    with Path("made").open("a") as made:
        made.write(key)
    if key == "b" and Path("made").read_text() == "ab":
        os.kill(os.getpid(), signal.SIGKILL)
    return {{"seconds": [0.1 + ord(key)]}}

kept = Kept(Path("unfinished/quick"), {STAMP})
for key in "abac":
    assert kept.once(key, lambda: measure(key)) == {{"seconds": [0.1 + ord(key)]}}
"""
    )
    environment = {**os.environ, "PYTHONPATH": f"{BENCHMARKS}:{ROOT / 'src'}"}
    codes = [
        subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, check=False)
        for _ in range(3)
    ]

    assert [done.returncode for done in codes] == [-signal.SIGKILL, 0, 0]
    assert (tmp_path / "made").read_text() == "abbc"


def test_what_was_kept_says_what_it_took(tmp_path: Path) -> None:
    folder = tmp_path / "unfinished/quick"
    first = Kept(folder, STAMP)
    for key in ("a", "b"):
        first.once(key, lambda: 1.5)
    written = json.loads((folder / FILE).read_text())
    written["measured"]["a"]["seconds"], written["measured"]["b"]["seconds"] = 100, 30
    (folder / FILE).write_text(json.dumps(written))

    kept = Kept(folder, STAMP)

    assert kept.origin == "resumes: 2 measurement(s) reused, 02:10 of work"
    assert (kept.spent, kept.waiting) == (0, 130)
    assert kept.once("a", lambda: 2.5) == 1.5
    assert (kept.spent, kept.waiting) == (100, 30)
    kept.remove()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, "starts afresh: since the last measurement changed keras (3.15.0 to 3.16.0)"),
        ("{", "starts afresh: since the last measurement changed {folder}/measured.json, which"),
        ("[]", "starts afresh: since the last measurement changed {folder}/measured.json, which"),
    ],
)
def test_what_was_measured_of_something_else_does_not_count(
    written: str | None, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "quick"
    Kept(folder, STAMP).once("a", lambda: 1.5)
    (folder / "mlflow.db").touch()
    if written:
        (folder / FILE).write_text(written)

    kept = Kept(folder, {**STAMP, "keras": "3.16.0"})

    assert kept.origin.startswith(said.format(folder=folder))
    assert not (folder / "mlflow.db").exists()
    assert kept.once("a", lambda: 2.5) == 2.5


@pytest.mark.parametrize(
    ("cpuinfo", "slug"),
    [
        (EPYC, "amd-epyc-family-25-model-1-avx2"),
        (XEON, "intel-xeon-family-6-model-143-amx_bf16"),
        (CORE, "intel-core-i7-8650u-family-6-model-142"),
        (NAMED, "amd-epyc-9j14-family-25-model-17-avx512_bf16"),
        (ARM, "arm-implementer-0x41-part-0xd40-bf16"),
    ],
)
def test_a_page_is_named_by_what_tells_processors_apart(cpuinfo: str, slug: str) -> None:
    assert machine.described(cpuinfo).slug == slug


def test_only_the_projects_side_has_its_settings_of_tensorflow() -> None:
    """Which importing the project puts into the environment of the process that measures."""
    code = (
        "import os, sys; from image_classification.core import paths; from measure import run; "
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'], run(sys.executable, '-c', "
        "'import os; print(os.environ.get(\"TF_ENABLE_ONEDNN_OPTS\"))'))"
    )
    given = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    given |= {"PYTHONPATH": f"{BENCHMARKS}:{ROOT / 'src'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["1", "None"]


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.name)
def test_the_project_is_imported_before_keras(script: Path) -> None:
    """It sets what TensorFlow reads only when it is imported."""
    roots = [
        name.partition(".")[0]
        for node in ast.parse(script.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    ]

    if "image_classification" in roots:
        before = roots[: roots.index("image_classification")]
        assert not {"keras", "tensorflow"} & set(before)
