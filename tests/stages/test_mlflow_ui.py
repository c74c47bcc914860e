"""What MLflow's own pages show of the project's runs and registered models, in a browser."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from conftest import TOOLS, Project
from playwright.sync_api import Browser, Locator, Page, expect

from image_classification.tracking import mlflow_view

pytestmark = pytest.mark.slow
EXPERIMENT = "tiny"
TIMEOUT_MS = 30_000
STARTUP_SECONDS = 120
expect.set_options(timeout=TIMEOUT_MS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while True:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
        except (urllib.error.URLError, TimeoutError):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        else:
            return


@pytest.fixture(scope="module")
def address(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `mlflow ui` serves the project's store."""
    folder, port = tmp_path_factory.mktemp("ui"), free_port()
    environment = {key: value for key, value in os.environ.items() if key not in TOOLS}
    environment |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    log = folder / "log.txt"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "ui", "--workers", "1"),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", f"sqlite:///{trained.root / 'mlflow.db'}"),
            ],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its workers are processes of their own: they end with it
        )
    try:
        wait_until_it_answers(server, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


ASSISTANT_OFF = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
MODEL_TRAINING = "localStorage.setItem('mlflow.workflowType_v1', '\"machine_learning\"');"


def visit(browser: Browser, address: str, settings: str) -> Iterator[Page]:
    context = browser.new_context(base_url=address, viewport={"width": 2300, "height": 1200})
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(settings)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page of a visitor who has been here before: no assistant and no news lie over it."""
    yield from visit(browser, address, MODEL_TRAINING + ASSISTANT_OFF)


@pytest.fixture
def first_page(browser: Browser, address: str) -> Iterator[Page]:
    """A page of a visitor who has chosen nothing yet, not even *Model training*."""
    yield from visit(browser, address, ASSISTANT_OFF)


@pytest.fixture(scope="module")
def links(trained: Project, address: str) -> dict[str, str]:
    """The addresses that `make ui` and `make repro` print, by their titles."""
    said = trained.must(sys.executable, "-m", "image_classification", "links", address)
    found = re.findall(rf"^(\w[\w ]*\w) +({re.escape(address)}\S+)$", said, re.MULTILINE)
    return dict(found)


def client(project: Project) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")


@pytest.fixture(scope="module")
def board(trained: Project) -> dict[str, dict[str, Any]]:
    """The rows of the leaderboard, best first, by the name of the run, with MLflow's ids."""
    rows = json.loads((trained.root / "reports/leaderboard.json").read_text())
    for row in rows:
        version = client(trained).get_model_version_by_alias(EXPERIMENT, row["model"])
        row |= {"run_id": version.run_id, "version": version.version}
    return {f"{row['model']}-{row['seed']}": row for row in rows}


@pytest.fixture(scope="module")
def experiment_id(trained: Project) -> str:
    experiment = client(trained).get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return str(experiment.experiment_id)


def run_row(page: Page, run_id: str) -> Locator:
    """A run's line of the runs table, which the grid draws in a pinned and a scrolling part."""
    return page.locator(f'[row-id="{run_id}"]')


def test_the_link_to_all_runs_opens_them_best_first_with_what_matters(
    first_page: Page, links: dict[str, str], board: dict[str, dict[str, Any]]
) -> None:
    page = first_page
    page.goto(links["All runs"])

    for column in (*mlflow_view.PARAMS, *mlflow_view.METRICS):
        expect(page.locator(f'[role="columnheader"][col-id*="`{column}`"]')).to_be_attached()
    expect(page.get_by_text("Sort: test_accuracy")).to_be_visible()
    for name, row in board.items():
        shown = run_row(page, row["run_id"])
        expect(shown.get_by_text(name, exact=True)).to_be_visible()
        for value in (row["test_accuracy"], row["validation_accuracy"], row["model"]):
            expect(shown.get_by_text(str(value), exact=True).first).to_be_visible()
    places = {
        row["test_accuracy"]: int(
            run_row(page, row["run_id"]).first.get_attribute("row-index") or -1
        )
        for row in board.values()
    }
    assert sorted(places, reverse=True) == sorted(places, key=places.__getitem__)


def test_the_link_to_the_models_compared_shows_them_side_by_side(
    first_page: Page, links: dict[str, str], board: dict[str, dict[str, Any]]
) -> None:
    page = first_page
    page.goto(links["Compared"])

    expect(page.get_by_role("heading", name="Comparing 2 Runs from 1 Experiment")).to_be_visible()
    # The plot above opens on settings and a metric of the model, not on the load of the machine.
    chosen = page.locator(".ant-select-selection-item, [class*=select-selection-item]")
    expect(chosen.get_by_text("val_accuracy", exact=True)).to_be_visible()
    expect(chosen.get_by_text("model.dropout", exact=True)).to_be_visible()
    chosen = page.get_by_role("row").filter(has_text="model.name")
    for name, row in board.items():
        expect(page.get_by_role("cell", name=name, exact=True)).to_be_visible()
        expect(page.get_by_role("link", name=row["run_id"])).to_be_visible()
        expect(chosen.get_by_role("cell", name=row["model"], exact=True)).to_be_visible()


def test_the_tables_of_the_runs_are_compared_row_by_row(
    first_page: Page, links: dict[str, str], board: dict[str, dict[str, Any]]
) -> None:
    page = first_page
    page.goto(f"{links['All runs']}&compareRunsMode=ARTIFACT")

    chosen = page.get_by_text("evaluation/tables/mistakes.json", exact=True)
    expect(chosen).to_be_visible()
    expect(page.get_by_text("Compare:").locator("..")).to_contain_text("predicted")
    for row in board.values():  # as heads of the columns, besides the list of runs
        expect(page.locator(f'[role="columnheader"] a[href*="{row["run_id"]}"]')).to_be_visible()
    chosen.click()
    other = page.get_by_role("option").get_by_text("evaluation/tables/per_class.json", exact=True)
    expect(other).to_be_visible()


def test_two_ticked_runs_can_be_compared(
    page: Page, experiment_id: str, board: dict[str, dict[str, Any]]
) -> None:
    page.goto(f"/#/experiments/{experiment_id}/runs")
    for row in board.values():
        run_row(page, row["run_id"]).get_by_role("checkbox", name="toggle row selection").check()
    page.get_by_role("button", name="Compare", exact=True).click()

    expect(page.get_by_role("heading", name="Comparing 2 Runs from 1 Experiment")).to_be_visible()


def test_the_link_to_the_models_opens_the_registry(first_page: Page, links: dict[str, str]) -> None:
    first_page.goto(links["Models"])
    expect(first_page.get_by_role("heading", name=EXPERIMENT, exact=True)).to_be_visible()


def test_a_run_charts_its_metrics_by_epoch(
    page: Page, experiment_id: str, board: dict[str, dict[str, Any]]
) -> None:
    row = board["tiny_cnn-0"]
    page.goto(f"/#/experiments/{experiment_id}/runs/{row['run_id']}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("val_accuracy")

    expect(page.locator(".js-plotly-plot .point")).to_have_count(row["epochs"])
    expect(page.get_by_text("tiny_cnn-0 (val_accuracy)", exact=True)).to_be_visible()
    steps = page.locator(".js-plotly-plot .xtick")
    for epoch in range(row["epochs"]):
        expect(steps.get_by_text(str(epoch), exact=True)).to_be_visible()


def test_a_runs_confusion_matrix_is_shown(
    page: Page, experiment_id: str, board: dict[str, dict[str, Any]]
) -> None:
    page.goto(f"/#/experiments/{experiment_id}/runs/{board['tiny_cnn-0']['run_id']}/artifacts")
    for entry in ("evaluation", "figures", "confusion_matrix.png"):
        page.get_by_text(entry, exact=True).click()

    heading = "evaluation/figures/confusion_matrix.png"
    expect(page.get_by_text(heading, exact=True)).to_be_visible()
    expect(page.get_by_role("img", name=heading)).not_to_have_js_property("naturalWidth", 0)


def test_the_registry_shows_the_champion_and_the_card_of_each_model(
    page: Page, board: dict[str, dict[str, Any]]
) -> None:
    page.goto(f"/#/models/{EXPERIMENT}")
    for place, row in enumerate(board.values()):
        link = page.get_by_role("link", name=f"Version {row['version']}", exact=True)
        version = page.get_by_role("row").filter(has=link)
        expect(version.get_by_role("status", name=row["model"], exact=True)).to_be_visible()
        champion = version.get_by_role("status", name="champion", exact=True)
        expect(champion).to_have_count(1 if place == 0 else 0)
    page.get_by_role("link", name=f"Version {board['tiny_cnn-0']['version']}", exact=True).click()

    accuracy = board["tiny_cnn-0"]["test_accuracy"]
    said = f"tiny_cnn-0 classifies {100 * accuracy:.2f} % of the 200 test"
    expect(page.get_by_text(said)).to_be_visible()
    expect(page.get_by_text("intended use")).to_contain_text("Unknown")


def test_the_comparison_links_to_the_runs_it_compared(
    page: Page, experiment_id: str, board: dict[str, dict[str, Any]]
) -> None:
    run_id = board["tiny_cnn-0"]["run_id"]
    page.goto(f"/#/experiments/{experiment_id}/runs")
    page.get_by_role("link", name="comparison").first.click()
    page.get_by_text("Show more").click()
    with page.context.expect_page() as opened:
        page.locator(f'a[href$="{run_id}"]').click()
    expect(opened.value.get_by_role("heading", name="tiny_cnn-0", exact=True)).to_be_visible()
    expect(opened.value.get_by_text(run_id, exact=True).first).to_be_visible()
