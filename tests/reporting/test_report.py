"""The report as its readers see it: in a browser, on a phone, in the dark, on paper."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import mlflow
import pytest
from conftest import Project
from playwright.sync_api import Browser, Locator, Page


@pytest.fixture
def page(trained: Project, browser: Browser) -> Iterator[Page]:
    """The report, opened from the file, with the network cut."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    page = context.new_page()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto((trained.root / "reports/index.html").as_uri())
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    yield page
    context.close()


def test_the_report_is_one_file_of_moderate_size(trained: Project) -> None:
    text = (trained.root / "reports/index.html").read_text()

    assert len(text) < 1_000_000
    assert re.findall(r'src="(?!data:)[^"]*"|<(?!a )[^>]*href=[^>]*', text) == []
    assert text.count("<script") == text.count("<script>")  # none from elsewhere


def test_the_report_leads_with_the_verdict(trained: Project, page: Page) -> None:
    verdict = json.loads((trained.root / "reports/verdict.json").read_text())
    lead = page.locator(".lead")

    assert verdict["unbeaten"][0] in lead.inner_text()
    box = lead.bounding_box()
    assert box is not None
    assert box["y"] < 200
    sections = page.locator("h2").all_inner_texts()
    assert sections == [
        "Verdict",
        "Models",
        "Leaderboard",
        "Accuracy and loss by epoch",
        "Confusion matrices",
        "Classes",
        "Error analysis",
        "Calibration",
        "Robustness",
        "Costs",
        "The data",
        "How to reproduce it",
    ]
    for link in page.locator("nav a").all():
        assert page.locator(str(link.get_attribute("href"))).count() == 1


def test_the_report_shows_what_was_measured(trained: Project, page: Page) -> None:
    text = page.locator("body").text_content() or ""
    board = json.loads((trained.root / "reports/leaderboard.json").read_text())

    for row in board:
        assert f"{row['test_accuracy']:.4f}" in text
        assert f"{row['test_brier']:.4f}" in text
    commit = trained.must("git", "rev-list", "--max-parents=0", "HEAD").strip()
    assert f"git checkout {commit}" in text


def test_the_report_shows_the_data(page: Page) -> None:
    text = page.locator("body").text_content() or ""
    counts = page.get_by_role("region", name="Number of images of each class")

    assert "800 images of 10 classes: 500 training, 100 validation, 200 test." in text
    assert column(counts.get_by_role("table"), "class") == list("0123456789")
    assert sum(map(int, column(counts.get_by_role("table"), "training"))) == 500
    assert page.locator('img[alt^="The mean image of each class"]').count() == 1


def test_the_report_links_to_the_runs_in_mlflow(trained: Project, page: Page) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{trained.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "params.model.name LIKE 'tiny%'")
    pages = f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs"

    for run in found:
        link = page.locator(f'a[href="{pages}/{run.info.run_id}"]')
        assert link.text_content() == run.info.run_id
    assert page.locator(f'a[href^="{pages}?"]', has_text="all runs").count() == 1
    compared = page.locator('a[href*="/#/compare-runs?"]').get_attribute("href") or ""
    assert {run.info.run_id for run in found} == set(re.findall(r"[0-9a-f]{32}", unquote(compared)))
    leaderboard = (trained.root / "reports/leaderboard.md").read_text()
    for run in found:
        assert f"| [{run.info.run_id}] |" in leaderboard
        assert f"\n[{run.info.run_id}]: {pages}/{run.info.run_id}\n" in leaderboard


def test_every_picture_is_visible_and_has_an_alt_text(page: Page) -> None:
    pictures = page.locator("img")

    assert pictures.count() > 10
    for picture in pictures.all():
        assert picture.evaluate("image => image.complete && image.naturalWidth") > 100
        assert len(picture.get_attribute("alt") or "") > 20


def test_the_report_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})

    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_report_can_be_read_in_the_dark(page: Page) -> None:
    def brightness(name: str) -> float:
        colour = page.evaluate(f"getComputedStyle(document.body).{name}")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    assert brightness("backgroundColor") > 200 > 60 > brightness("color")
    page.emulate_media(color_scheme="dark")
    assert brightness("backgroundColor") < 60 < 200 < brightness("color")
    chart, photo = (page.locator(f"img{kind}").first for kind in (":not(.photo)", ".photo"))
    assert "invert" in chart.evaluate("image => getComputedStyle(image).filter")
    assert photo.evaluate("image => getComputedStyle(image).filter") == "none"


def column(table: Locator, title: str) -> list[str]:
    heads = table.locator("th[scope=col]").all_text_contents()
    rows = table.locator("tr").all()[1:]
    return [row.locator("th, td").all_text_contents()[heads.index(title)] for row in rows]


def test_a_table_is_sorted_by_its_heads(page: Page) -> None:
    table = page.get_by_role("region", name="The layers of each model").get_by_role("table")
    head = table.get_by_role("columnheader", name="number of parameters")
    button = head.get_by_role("button")
    before = column(table, "number of parameters")
    ascending = sorted(before, key=lambda text: int(text.replace(",", "")))
    assert len(set(before)) > 1

    button.click()
    assert column(table, "number of parameters") == ascending
    assert head.get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert column(table, "number of parameters") == ascending[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    table.get_by_role("columnheader", name="model").get_by_role("button").click()
    assert column(table, "model") == sorted(column(table, "model"))
    assert head.get_attribute("aria-sort") is None


def test_numbers_are_sorted_as_numbers_and_gaps_come_last(page: Page) -> None:
    cells = ["10", "none", "9.5 %", "1,200", "-0.3", "2e-9", "0.99 to 1.2"]
    rows = "".join(f"<tr><td>{cell}</td></tr>" for cell in cells)
    page.evaluate(
        """rows => {
            const table = document.querySelector("table");
            [...table.rows].slice(1).forEach(row => row.remove());
            table.tBodies[0].insertAdjacentHTML("beforeend", rows);
            sort(table.rows[0].cells[0]);
        }""",
        rows,
    )
    table = page.locator("table").first

    shown = [text for row in table.locator("tr").all()[1:] for text in row.all_text_contents()]
    assert shown == ["-0.3", "2e-9", "0.99 to 1.2", "9.5 %", "10", "1,200", "none"]


def test_the_report_can_be_read_without_scripts(trained: Project, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((trained.root / "reports/index.html").as_uri())

    assert page.locator("th button").count() == 0
    assert page.get_by_role("columnheader", name="number of parameters").is_visible()
    context.close()


def test_every_box_that_scrolls_is_named_and_reached_by_the_keyboard(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 740})
    scrolling = page.evaluate(
        """[...document.querySelectorAll("body *")]
            .filter(box => ["auto", "scroll"].includes(getComputedStyle(box).overflowX))
            .map(box => [box.tabIndex, box.getAttribute("role"), Boolean(box.ariaLabel)])"""
    )

    assert len(scrolling) > 5
    assert all(box == [0, "region", True] for box in scrolling)
    for table in page.locator("table").all():
        assert len(table.locator("caption").text_content() or "") > 10


def test_pictures_share_a_row_on_paper(page: Page) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 within its margins

    for name in ("against the epoch", "Confusion matrix", "most confident mistakes of"):
        pictures = page.locator(f'img[alt*="{name}"]').all()
        places = [picture.bounding_box() for picture in pictures]
        assert len({place["y"] for place in places if place}) < len(places)


def test_the_report_prints_everything_but_the_navigation(page: Page, tmp_path: Path) -> None:
    page.pdf(path=tmp_path / "report.pdf")

    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes()))
    assert 3 <= pages <= 10
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    runs = page.locator("details table").nth(1)
    assert runs.evaluate("table => table.checkVisibility({contentVisibilityAuto: true})")
    assert runs.evaluate("table => table.getBoundingClientRect().height") > 20
