"""Which pictures the report has, and that its pages show what the tables list."""

import html
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from conftest import Compose, tiny_examples

from image_classification.comparison import leaderboard, summary
from image_classification.comparison.leaderboard import COLUMNS
from image_classification.comparison.results import Result
from image_classification.comparison.summary import Comparison
from image_classification.evaluation import corruptions, metrics
from image_classification.reporting import gallery, report
from image_classification.reporting.gallery import Picture, Section

TEST = tiny_examples(60, 0)
CLASSES = [str(digit) for digit in range(10)]
NUMBERS = {column.key: 0.5 for column in COLUMNS}


def a_result(model: str, seed: int, wrong: int) -> Result:
    """A result whose first `wrong` examples are wrong, the very first with the same class."""
    predicted = TEST.labels.astype(int)
    predicted[:wrong] = (predicted[:wrong] + 1) % 10
    probabilities = np.full((len(predicted), 10), 0.01, np.float32)
    probabilities[np.arange(len(predicted)), predicted] = 0.91
    rows = [
        (kind, strength, 0.8)
        for kind, corruption in corruptions.CORRUPTIONS.items()
        for strength in (0.0, *corruption.strengths)
    ]
    return Result(
        model=model,
        seed=seed,
        family="convolutional" if model == "cnn" else "linear",
        recipe={"name": "fast"},
        training={"run": f"key-of-{model}-{seed}", "provenance": {"machine": "A machine"}},
        metrics=NUMBERS,
        costs={},
        history=pd.DataFrame({"epoch": [0, 1], "accuracy": 0.8, "val_accuracy": 0.9}),
        per_class=metrics.per_class(TEST.labels, predicted, CLASSES),
        robustness=pd.DataFrame(rows, columns=["corruption", "strength", "accuracy"]),
        probabilities=probabilities,
    )


def a_comparison(mistakes: dict[str, list[int]]) -> Comparison:
    """The comparison of models whose runs make so many mistakes."""
    results = [
        a_result(model, seed, wrong)
        for model, runs in mistakes.items()
        for seed, wrong in enumerate(runs)
    ]
    entries = leaderboard.ranked(leaderboard.entry(result, {}) for result in results)
    return summary.judge("mnist", CLASSES, results, entries, TEST.labels)


TWO_MODELS = a_comparison({"lm": [30, 29, 31, 30, 29], "cnn": [2, 1, 1, 1, 2]})


def draw(comparison: Comparison, folder: Path) -> list[Picture]:
    curves = pd.concat([result.history.assign(model=result.model) for result in comparison.results])
    pictures = []
    for picture, figure in gallery.draw(comparison, curves, TEST.images, {}):
        figure.savefig(folder / f"{picture.name}.png", dpi=20)
        pictures.append(picture)
    return pictures


def page(comparison: Comparison, pictures: list[Picture], folder: Path, compose: Compose) -> str:
    commit = {"git.commit": "abc", "git.dirty": "false"}
    settings = {"recipe.name": "fast"}
    return report.html(comparison, compose().data, commit, settings, pictures, folder, None)


@pytest.fixture(scope="module")
def gallery_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture(scope="module")
def pictures(gallery_folder: Path) -> list[Picture]:
    """The pictures of two models with five runs each, which need every section."""
    return draw(TWO_MODELS, gallery_folder)


def require_on_page(pictures: list[Picture], text: str) -> None:
    """Every picture is on the page once, with its texts."""
    text = html.unescape(text)
    assert len({picture.name for picture in pictures}) == len(pictures)
    assert sorted(re.findall(r'<img [^>]*alt="([^"]*)"', text)) == sorted(
        picture.alt for picture in pictures
    )
    for picture in pictures:
        assert len(picture.alt) > 20
        assert f"<figcaption>{picture.caption}</figcaption>" in text or not picture.caption
    assert text.count(' class="photo"') == sum(picture.photo for picture in pictures)


def test_every_picture_is_on_the_page(
    pictures: list[Picture], gallery_folder: Path, compose: Compose
) -> None:
    require_on_page(pictures, page(TWO_MODELS, pictures, gallery_folder, compose))


def test_every_section_has_pictures(pictures: list[Picture]) -> None:
    assert {picture.section for picture in pictures} == set(get_args(Section))


def test_a_single_model_without_mistakes_has_a_page_too(tmp_path: Path, compose: Compose) -> None:
    comparison = a_comparison({"cnn": [0]})
    pictures = draw(comparison, tmp_path)
    text = page(comparison, pictures, tmp_path, compose)

    require_on_page(pictures, text)
    assert {"verdict", "misses", "label_errors"}.isdisjoint(picture.section for picture in pictures)
    assert "This takes at least 5 runs of the unbeaten model (cnn); there is 1." in text
    assert "No model makes a mistake." in text


def test_a_picture_goes_to_its_section_after_those_before_it(
    pictures: list[Picture], gallery_folder: Path, compose: Compose
) -> None:
    added = [Picture("costs", "costs", f"alternative text {number}") for number in (1, 2)]
    text = page(TWO_MODELS, [*pictures, *added], gallery_folder, compose)

    costs = text[text.index('<h2 id="costs">') : text.index('<h2 id="reproduce">')]
    assert re.findall(r"alternative text \d", text) == ["alternative text 1", "alternative text 2"]
    assert re.findall(r"alternative text \d", costs) == ["alternative text 1", "alternative text 2"]


def test_the_pages_show_the_columns_of_their_place(
    pictures: list[Picture], gallery_folder: Path, compose: Compose
) -> None:
    text = html.unescape(page(TWO_MODELS, pictures, gallery_folder, compose))
    cards = report.model_cards(TWO_MODELS, compose().data, "fast")

    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', text)
    for column in COLUMNS:
        shown = sum(place in column.places for place in ("runs", "calibration", "costs"))
        assert heads.count(column.title) == shown
        for card in cards.values():
            assert (f"- {column.title}: {column.format(0.5)}\n" in card) == (
                "card" in column.places
            )
    assert set(cards) == {result.training["run"] for result in TWO_MODELS.results}


def test_a_long_comparison_is_described_without_links() -> None:
    short = report.comparison_note(a_comparison({"lm": [30], "cnn": [1]}), "the-key")
    long = report.comparison_note(a_comparison({"lm": [30] * 200, "cnn": [1] * 200}), "the-key")

    assert "- cnn: [cnn-0](run:key-of-cnn-0)\n" in short
    assert "cnn beats lm (+" in short
    assert "(run:the-key/artifacts/index.html)" in short
    assert "side by side](compare:key-of-cnn-0,key-of-lm-0)" in short
    assert "*" not in short  # which some of MLflow's pages show raw
    assert "The 400 runs compared" in long
    assert "(run:key-of-" not in long
    assert len(long) <= report.LONGEST_NOTE
