"""The benchmarks run, on hardly any data; how fast, no test can say."""

import sys
from pathlib import Path

import pytest
from conftest import Project

pytestmark = pytest.mark.xdist_group("pipeline")  # they need a project in which everything has run


def test_every_measurement_ends_with_a_figure(trained: Project, tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    trained.must(
        *(sys.executable, "benchmarks/run.py", "--effort", "smoke"),
        *("--output", str(results)),
    )

    page = results.read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "--:" not in line]
    speed = [row for row in rows if row.startswith("| nn | 64 |")]
    assert speed
    assert "| `dvc repro` with nothing to do |" in page
    (losses,) = [row for row in rows if row.startswith("| nn |") and row not in speed]
    assert float(losses.split("|")[-2]) < 1e-3  # the largest difference from the bare loop's
