"""The benchmarks run, on hardly any data; how fast, no test can say."""

import sys
from pathlib import Path

import pytest
from conftest import Project


@pytest.mark.slow
def test_every_measurement_ends_with_a_figure(trained: Project, tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    trained.must(
        *(sys.executable, "benchmarks/run.py", "--effort", "smoke"),
        *("--output", str(results)),
    )

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
        "`dvc repro` with nothing to do",
        "train model=nn recipe",
    ):
        assert f"| {measured}" in page
