"""The benchmarks run, on hardly any data; how fast, no test can say."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Project


@pytest.mark.slow
def test_every_measurement_ends_with_a_figure(trained: Project, tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    done = trained.run(
        *(sys.executable, "benchmarks/run.py", "--effort", "smoke"),
        *("--output", str(results)),
    )

    assert done.returncode == 0, done.stderr
    shown = r"part (\d+) of 7: .+ \(\d+:\d\d so far, about \d+:\d\d left\)"
    found = [re.fullmatch(shown, line) for line in done.stderr.splitlines()]
    assert [match and int(match[1]) for match in found] == list(range(1, 8))
    page = results.read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    (speed,) = [row for row in rows if row[:2] == ["| nn", "64"]]
    (fast,) = [row for row in rows if row[0] == "| nn" and row[-1].startswith("0.9808 (1)")]
    (losses,) = [row for row in rows if row[0] == "| nn" and row not in (speed, fast)]
    assert float(speed[-1].rstrip(" |")) > 1  # nothing is faster than its floor
    assert 0.1 < float(fast[4]) <= 1
    assert all(float(apart) < 1e-3 for apart in losses[3].split(", "))  # from the bare loop's
    for measured in (
        "import TensorFlow",
        "import MLflow",
        "`dvc repro` with nothing to do",
        "train model=nn recipe",
    ):
        assert f"| {measured}" in page


def test_the_time_left_scales_with_the_time_taken() -> None:
    seconds_left = runpy.run_path(str(ROOT / "benchmarks/parts.py"))["seconds_left"]

    assert seconds_left([10, 20, 30], done=0, elapsed=0) == 60
    assert seconds_left([10, 20, 30], done=1, elapsed=20) == 100
    assert seconds_left([10, 20, 30], done=2, elapsed=15) == 15
