"""Which pictures the report has, and that its pages show what the tables list."""

import html
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from conftest import Compose, tiny_examples
from matplotlib.figure import Figure
from numpy.typing import NDArray

from image_classification.comparison import leaderboard, summary
from image_classification.comparison.leaderboard import COLUMNS
from image_classification.comparison.results import Result
from image_classification.comparison.summary import Baseline, Comparison
from image_classification.core.config import METRICS
from image_classification.evaluation import corruptions, metrics
from image_classification.reporting import gallery, report, tables
from image_classification.reporting.data_sheet import DataSheet
from image_classification.reporting.gallery import Picture, Section

TEST = tiny_examples(60, 0)
CLASSES = [str(digit) for digit in range(10)]
LAYERS = pd.DataFrame(
    [
        ("image", "InputLayer", "28 x 28 x 1", 0),
        ("convolution", "Conv2D", "28 x 28 x 64", 640),
        ("pooling", "MaxPooling2D", "14 x 14 x 64", 0),
        ("flatten", "Flatten", "12544", 0),
        ("dropout", "Dropout", "12544", 0),
        ("probabilities", "Dense", "10", 125450),
    ],
    columns=["layer", "type", "output_shape", "parameters"],
)
BASELINE = Baseline("7", {"accuracy": 0.11, "balanced_accuracy": 0.1, "f1_macro": 0.02})
NONE = {"sets": 0, "images": 0, "named": []}
FOUND = {"duplicates": NONE, "conflicting": NONE, "across": NONE}
DATA = DataSheet(CLASSES, np.full((10, 3), 6), [28, 28, 1], 0, FOUND)
NUMBERS = {column.key: 0.5 for column in COLUMNS}
AUGMENTATION = {"name": "light", "flip": "none", "shift": 0.1, "rotate": 10, "zoom": 0}


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
        recipe={"name": "fast", "precision": "bfloat16", "augmentation": AUGMENTATION},
        training={"run": f"key-of-{model}-{seed}", "provenance": {"precision": "float32"}},
        metrics=NUMBERS,
        costs={"machine": "a processor, 2 cores"},
        history=pd.DataFrame(
            {"epoch": [0, 1], "accuracy": 0.8, "val_accuracy": 0.9, "loss": 0.5, "val_loss": 0.4}
        ),
        layers=LAYERS,
        per_class=metrics.per_class(TEST.labels, predicted, CLASSES),
        robustness=pd.DataFrame(rows, columns=["corruption", "strength", "accuracy"]),
        probabilities=probabilities,
    )


def a_comparison(
    mistakes: dict[str, list[int]], metric: str = "accuracy", names: Sequence[str] = ()
) -> Comparison:
    """The comparison of models whose runs make so many mistakes."""
    results = [
        a_result(model, seed, wrong)
        for model, runs in mistakes.items()
        for seed, wrong in enumerate(runs)
    ]
    entries = leaderboard.ranked(leaderboard.entry(result, {}) for result in results)
    return summary.judge("mnist", CLASSES, results, entries, TEST.labels, BASELINE, metric, names)


TWO_MODELS = a_comparison({"lm": [30, 29, 31, 30, 29], "cnn": [2, 1, 1, 1, 2]})


def draw(
    comparison: Comparison, folder: Path, images: NDArray[np.uint8] = TEST.images
) -> list[Picture]:
    curves = pd.concat([result.history.assign(model=result.model) for result in comparison.results])
    pictures = []
    for picture, figure in gallery.draw(comparison, curves, images, {}):
        figure.savefig(folder / f"{picture.name}.png", dpi=20)
        pictures.append(picture)
    return pictures


def page(comparison: Comparison, pictures: list[Picture], folder: Path, compose: Compose) -> str:
    commit = {"git.commit": "abc", "git.dirty": "false"}
    settings = {"recipe.name": "fast"}
    return report.html(comparison, compose().data, commit, settings, pictures, folder, None, DATA)


@pytest.fixture(scope="module")
def gallery_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture(scope="module")
def pictures(gallery_folder: Path) -> list[Picture]:
    """The pictures of two models with five runs each, which need every section."""
    return draw(TWO_MODELS, gallery_folder)


def table_rows(text: str, caption: str) -> list[list[str]]:
    """The cells of the table with a caption that begins so, head first."""
    _, found, rest = html.unescape(text).partition(f"<caption><span>{caption}")
    assert found, f"no table {caption}"
    rows = re.findall(r"<tr>(.*?)</tr>", rest[: rest.index("</table>")], re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


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


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (2, "convolution 8 x 8 x 4, relu, convolution, relu"),
        (20, "40 layers: 20 convolution, 20 relu"),
    ],
)
def test_the_layers_of_a_model_are_told_or_where_they_are_many_counted(
    count: int, said: str
) -> None:
    layers = pd.DataFrame({"type": ["Conv2D", "ReLU"] * count, "output_shape": "8 x 8 x 4"})

    assert tables._in_words(layers) == said


def test_every_picture_is_on_the_page(
    pictures: list[Picture], gallery_folder: Path, compose: Compose
) -> None:
    require_on_page(pictures, page(TWO_MODELS, pictures, gallery_folder, compose))


def test_every_section_has_pictures(pictures: list[Picture]) -> None:
    of_data = {"data", "near_duplicates"}  # see test_data_sheet
    assert {picture.section for picture in pictures} == set(get_args(Section)) - of_data


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


def test_the_costs_say_which_machine_they_were_timed_on(tmp_path: Path) -> None:
    elsewhere = replace(TWO_MODELS.results[0], costs={"machine": "another"})
    mixed = replace(TWO_MODELS, results=[elsewhere, *TWO_MODELS.results[1:]])

    (one,) = (found for found in draw(TWO_MODELS, tmp_path) if found.name == "costs")
    (several,) = (found for found in draw(mixed, tmp_path) if found.name == "costs")

    assert one.caption.endswith("Timed on a processor, 2 cores.")
    assert several.caption.endswith("so their times are not comparable.")


def test_the_pages_show_the_columns_of_their_place(
    pictures: list[Picture], gallery_folder: Path, compose: Compose
) -> None:
    text = html.unescape(page(TWO_MODELS, pictures, gallery_folder, compose))
    cards = report.model_cards(TWO_MODELS, "fast", [28, 28, 1], "100 examples")

    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', text)
    for column in COLUMNS:
        shown = sum(
            column in leaderboard.columns(place) for place in ("runs", "calibration", "costs")
        )
        assert heads.count(column.title) == shown
        for card in cards.values():
            assert (f"- {column.title}: {column.format(0.5)}\n" in card) == (
                column in leaderboard.columns("card")
            )
    assert set(cards) == {result.training["run"] for result in TWO_MODELS.results}


def test_the_page_says_what_each_model_is(
    pictures: list[Picture], gallery_folder: Path, compose: Compose
) -> None:
    text = page(TWO_MODELS, pictures, gallery_folder, compose)

    words = "convolution 28 x 28 x 64, max pooling 14 x 14 x 64, dropout, dense 10"
    rows = table_rows(text, "The layers of each model")
    assert [[row[0], row[2]] for row in rows[1:]] == [["cnn", words], ["lm", words]]


def test_the_augmentation_and_the_precision_that_was_used_stand_in_the_recipe(
    pictures: list[Picture], gallery_folder: Path, compose: Compose
) -> None:
    text = page(TWO_MODELS, pictures, gallery_folder, compose)

    head, row, _ = table_rows(text, "The recipe of each model")
    assert dict(zip(head[2:], row[2:], strict=True)) == {
        "augmentation": "light: shift 0.1, rotate 10",
        "precision asked for": "bfloat16",
        "precision used": "float32",
    }


def test_a_single_run_has_an_interval_over_examples_alone_and_whole_mistakes(
    tmp_path: Path, compose: Compose
) -> None:
    comparison = a_comparison({"lm": [30], "cnn": [2]})
    text = page(comparison, [], tmp_path, compose)
    several = page(TWO_MODELS, [], tmp_path, compose)

    heads = {"95 % over seeds", "standard deviation"}
    head, best, _ = table_rows(text, "Test accuracy")
    assert heads.isdisjoint(head)
    assert heads <= set(table_rows(several, "Test accuracy")[0])
    bounds = comparison.verdict.scores[0].over_examples
    assert best[head.index("95 % over examples")] == f"{bounds.low:.4f} to {bounds.high:.4f}"
    mistakes = {cell for row in table_rows(text, "Mistakes in each")[1:] for cell in row[1:]}
    assert all(cell.isdigit() for cell in mistakes)
    assert any("." in cell for row in table_rows(several, "Mistakes in each") for cell in row[1:])


def test_every_class_has_its_scores_for_each_model(tmp_path: Path, compose: Compose) -> None:
    text = page(TWO_MODELS, [], tmp_path, compose)

    for score, title in (("f1", "F1"), ("precision", "Precision"), ("recall", "Recall")):
        head, *rows = table_rows(text, f"{title} of each class")
        assert head == ["class", "images", "cnn", "lm"]
        assert [row[0] for row in rows] == CLASSES
        runs = [result.per_class for result in TWO_MODELS.results if result.model == "lm"]
        means = np.mean([run[score] for run in runs], axis=0)
        assert [row[3] for row in rows] == [f"{mean:.4f}" for mean in means]
        assert [row[1] for row in rows] == [str(count) for count in runs[0]["examples"]]


def test_of_many_classes_the_weakest_are_shown() -> None:
    shown = tables.per_class(TWO_MODELS.results, most=3)["f1"]

    everything = tables.per_class(TWO_MODELS.results, most=10)["f1"]
    worst = everything[["lm", "cnn"]].mean(axis=1).sort_values().index[:3]
    assert shown.index.tolist() == worst.tolist()


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("balanced_accuracy", "balanced accuracy"),
        pytest.param("f1_macro", "macro F1", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("runs", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_the_words_follow_the_metric(
    metric: str, name: str, runs: int, tmp_path: Path, compose: Compose
) -> None:
    comparison = a_comparison({"lm": [30] * runs, "cnn": [2] * runs}, metric)
    pictures = draw(comparison, tmp_path)
    text = page(comparison, pictures, tmp_path, compose)

    require_on_page(pictures, text)
    assert f"with a test {name} of 50.00 %" in text
    head, best, _ = table_rows(text, f"Test {name}, best first")
    score = comparison.verdict.scores[0]
    assert best[head.index("test" if runs == 1 else "mean")] == f"{score.mean:.4f}"
    heads = table_rows(text, "All runs")[0]
    assert heads[1:3] == [f"validation {name}", f"test {name}"]
    assert f"best model by mean validation {name} first" in report.comparison_note(
        comparison, "k", DATA
    )
    for word in ("Wilson", "McNemar"):
        assert word not in text
    assert re.findall(r"(?:mean test|Mean test) accuracy", text) == []


def test_the_majority_baseline_stands_beside_the_models(tmp_path: Path, compose: Compose) -> None:
    text = page(TWO_MODELS, [], tmp_path, compose)

    said = "accuracy 0.1100, balanced accuracy 0.1000, macro F1 0.0200."
    assert f"<p>{BASELINE.sentence()}</p>" in text
    assert BASELINE.sentence().endswith(said)
    assert BASELINE.sentence().startswith("Always predicting 7,")


def test_a_likely_label_error_is_found_by_its_file(tmp_path: Path, compose: Compose) -> None:
    names = [f"<{index}>.png" for index in range(len(TEST.labels))]
    comparison = a_comparison({"cnn": [3] * 5}, names=names)

    head, *rows = table_rows(page(comparison, [], tmp_path, compose), "The doubted labels")
    assert [row[head.index("file")] for row in rows] == ["<0>.png", "<1>.png", "<2>.png"]
    assert "file" not in table_rows(page(TWO_MODELS, [], tmp_path, compose), "The doubted")[0]


@pytest.mark.slow
def test_a_class_without_test_images_is_no_weak_class(tmp_path: Path, compose: Compose) -> None:
    """Classes 8 and 9 do not occur: most would think the models never find them."""
    few = TEST.labels < 8
    results = [
        replace(
            a_result("cnn", seed, 2),
            per_class=metrics.per_class(TEST.labels[few], TEST.labels[few], CLASSES),
            probabilities=a_result("cnn", seed, 2).probabilities[few],
        )
        for seed in range(2)
    ]
    entries = leaderboard.ranked(leaderboard.entry(result, {}) for result in results)
    for metric in METRICS:
        comparison = summary.judge(
            "mnist", CLASSES, results, entries, TEST.labels[few], BASELINE, metric
        )
        text = page(comparison, draw(comparison, tmp_path), tmp_path, compose)

        assert [row[0] for row in table_rows(text, "F1 of each class")[1:]] == CLASSES[:8]
        assert "No test image is of 2 of the 10 classes" in text
        assert "with the lowest F1" not in text
        (card, _) = report.model_cards(comparison, "fast", [28, 28, 1], "100 examples").values()
        assert "Weakest classes by recall: 0 (100.0 %), 1 (100.0 %), 2 (100.0 %)" in card


@pytest.mark.slow
def test_pages_on_many_classes_name_a_few(tmp_path: Path, compose: Compose) -> None:
    classes = [f"a breed of dogs with a long name, number {index}" for index in range(100)]
    labels = np.arange(100, dtype=np.uint8)
    probabilities = np.eye(100, dtype=np.float32)[np.roll(labels, 1)]
    result = replace(
        a_result("cnn", 0, 0),
        per_class=metrics.per_class(labels, np.roll(labels, 1), classes),
        probabilities=probabilities,
    )
    entries = [leaderboard.entry(result, {})]
    comparison = summary.judge("dogs", classes, [result], entries, labels, BASELINE)
    images = np.zeros((100, 8, 8, 3), np.uint8)
    pictures = draw(comparison, tmp_path, images)
    text = page(comparison, pictures, tmp_path, compose)

    require_on_page(pictures, text)
    assert len(table_rows(text, "F1 of each class")) == 1 + report.MOST_CLASSES
    assert "The 20 of 100 classes with the lowest F1" in text
    assert "colours are per cent of the row" in text
    (card,) = report.model_cards(comparison, "fast", [8, 8, 3], "100 examples").values()
    assert "into 100 classes: " in card
    assert f"number {report.MOST_CLASSES - 1}, ...\n" in card
    assert len(card) < 5000  # characters that MLflow's databases keep


def test_mistakes_are_captioned_with_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    captions: dict[str, list[str]] = {}

    def sheet(images: object, shown: list[str], title: str) -> Figure:
        captions[title] = shown
        return Figure()

    monkeypatch.setattr(gallery, "image_sheet", sheet)
    names = [f"folder/{index}.png" for index in range(len(TEST.labels))]
    comparison = a_comparison({"lm": [4] * 5, "cnn": [3] * 5}, names=names)
    curves = pd.concat([result.history.assign(model=result.model) for result in comparison.results])
    for _ in gallery.draw(comparison, curves, TEST.images, {}):
        pass

    files = {title: [c.splitlines()[-1] for c in shown] for title, shown in captions.items()}
    assert files == {
        "Missed by every model": ["0.png", "1.png", "2.png"],
        "Missed by only one model": ["3.png"],
        "lm: most confident mistakes": ["0.png", "1.png", "2.png", "3.png"],
        "cnn: most confident mistakes": ["0.png", "1.png", "2.png"],
        "Likely label errors": ["0.png", "1.png", "2.png"],
    }


@pytest.mark.slow
def test_a_long_comparison_is_described_without_links() -> None:
    few, many = ({"lm": [30] * runs, "cnn": [1] * runs} for runs in (1, 200))
    short = report.comparison_note(a_comparison(few), "the-key", DATA)
    long = report.comparison_note(a_comparison(many), "the-key", DATA)

    assert "- cnn: [cnn-0](run:key-of-cnn-0)\n" in short
    assert "cnn beats lm (+" in short
    assert "(run:the-key/artifacts/index.html)" in short
    assert "side by side](compare:key-of-cnn-0,key-of-lm-0)" in short
    assert "*" not in short  # which some of MLflow's pages show raw
    assert "The 400 runs compared" in long
    assert "(run:key-of-" not in long
    assert len(long) <= report.LONGEST_NOTE
