"""What figures must show; how they look, a person has to check."""

import io

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_examples
from matplotlib.figure import Figure

from image_classification.evaluation import figures

CLASSES = [str(digit) for digit in range(10)]
HISTORY = pd.DataFrame(
    {
        "epoch": [0, 1, 2],
        "loss": [0.9, 0.5, 0.3],
        "accuracy": [0.7, 0.8, 0.9],
        "val_loss": [0.8, 0.6, 0.5],
        "val_accuracy": [0.75, 0.8, 0.85],
    }
)


def drawn(figure: Figure) -> Figure:
    """Every figure must also survive being drawn."""
    figure.savefig(io.BytesIO(), format="png")
    return figure


def test_loss_and_accuracy_stand_side_by_side() -> None:
    figure = drawn(figures.loss_and_accuracy(HISTORY, "title"))

    assert [axes.get_ylabel() for axes in figure.axes] == ["loss (nats)", "accuracy"]
    assert np.asarray(figure.axes[1].get_lines()[1].get_ydata()).tolist() == [0.75, 0.8, 0.85]


def test_the_layer_table_sums_the_parameters() -> None:
    layers = pd.DataFrame(
        [("flatten", "Flatten", "784", 0), ("probabilities", "Dense", "10", 7850)],
        columns=["layer", "type", "output_shape", "parameters"],
    )
    figure = drawn(figures.layer_table(layers, "lm"))

    assert figure.axes[0].get_title() == "lm: 7,850 parameters"


def test_of_a_model_of_many_layers_the_table_shows_the_first_and_the_last() -> None:
    rows = [(f"layer_{number}", "Dense", "10", 1) for number in range(200)]
    layers = pd.DataFrame(rows, columns=["layer", "type", "output_shape", "parameters"])

    figure = drawn(figures.layer_table(layers, "deep"))

    cells = figure.axes[0].tables[0].get_celld()
    names = [cells[row, 0].get_text().get_text() for row in range(1, 62)]
    assert [*names[:1], *names[29:32], *names[-1:]] == [
        *("layer_0", "layer_29", "… 140 more …", "layer_170", "layer_199")
    ]
    assert figure.axes[0].get_title() == "deep: 200 parameters"
    assert figure.get_size_inches()[1] < 20


def test_confusion_rows_are_per_cent_of_the_actual_class() -> None:
    matrix = pd.DataFrame([[3, 1], [0, 0]], index=["a", "b"], columns=["a", "b"])
    figure = drawn(figures.confusion_matrix(matrix, "title"))
    axes = figure.axes[0]

    assert [text.get_text() for text in axes.texts] == ["75.00", "25.00", "0.00", "0.00"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "actual")


def class_names(count: int) -> list[str]:
    return [f"American_wire_haired_water_spaniel_{index}" for index in range(count)]


@pytest.mark.parametrize("count", [2, 10, 20, 21, 100, pytest.param(300, marks=pytest.mark.slow)])
def test_the_names_of_many_classes_do_not_overlap(count: int) -> None:
    names = class_names(count)
    matrix = pd.DataFrame(np.eye(count, dtype=int), index=names, columns=names)
    figure = drawn(figures.confusion_matrix(matrix, "model"))
    axes = figure.axes[0]

    assert max(figure.get_size_inches()) <= figures.LARGEST_SIDE
    assert len(axes.texts) == (count**2 if count <= figures.MOST_NUMBERED else 0)
    inside = figure.bbox
    for labels, low in ((axes.get_yticklabels(), "y0"), (axes.get_xticklabels(), "x0")):
        boxes = [label.get_window_extent() for label in labels]
        assert all(inside.x0 <= box.x0 and inside.y0 <= box.y0 for box in boxes)
        assert len(boxes) >= min(count, 50)
        places = sorted(getattr(box, low) for box in boxes)
        thickest = max(box.height if low == "y0" else box.width for box in boxes)
        assert np.diff(places).min() >= 0.8 * thickest  # of which a part is empty


def test_of_many_classes_the_most_probable_are_shown_beside_an_example() -> None:
    probabilities = np.linspace(1, 2, 100) / 150
    image = tiny_examples(1, 0).images[0]
    figure = drawn(figures.example_prediction(image, 3, probabilities, class_names(100), "title"))
    picture, bars = figure.axes

    shown = [label.get_text() for label in bars.get_yticklabels()]
    assert [name.rpartition("_")[2] for name in shown] == [
        str(index) for index in range(99, 89, -1)
    ]
    assert bars.containers[0].datavalues == pytest.approx(probabilities[:89:-1])  # type: ignore[attr-defined]  # of a BarContainer
    assert [line[-2:] for line in picture.get_title().splitlines()] == ["_3", "99"]


def test_the_example_names_the_actual_and_the_predicted_class() -> None:
    probabilities = np.full(10, 0.02)
    probabilities[7] = 0.82
    image = tiny_examples(1, 0).images[0]
    figure = drawn(figures.example_prediction(image, 1, probabilities, CLASSES, "title"))

    assert figure.axes[0].get_title() == "actual 1, predicted 7"


@pytest.mark.parametrize("count", [0, 1, 25])
def test_the_sheet_of_mistakes_takes_any_number(count: int) -> None:
    examples = tiny_examples(count, 0)
    captions = [f"caption {index}" for index in range(count)]
    figure = drawn(figures.image_sheet(examples.images, captions, "title"))

    shown = [axes.get_title() for axes in figure.axes if axes.images]
    assert shown == captions


def test_reliability_has_a_panel_a_model_on_the_diagonal() -> None:
    table = pd.DataFrame({"confidence": [0.55, 0.95], "accuracy": [0.5, 0.9], "examples": [1, 3]})
    figure = drawn(figures.reliability({"nn": table, "cnn": table}))

    assert [axes.get_title() for axes in figure.axes] == ["nn", "cnn"]
    diagonal, measured = figure.axes[0].get_lines()
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert np.asarray(measured.get_ydata()).tolist() == [0.5, 0.9]


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.0, 1.0, ["10%", "50%", "90%", "99%", "99.9%"]),
        (0.96, 0.9945, ["96%", "97%", "98%", "98.5%", "99%", "99.2%", "99.4%"]),
        (0.9811, 0.9822, ["98.11%", "98.22%"]),
    ],
)
def test_the_ticks_of_accuracies_suit_their_range(
    low: float, high: float, shown: list[str]
) -> None:
    axes = Figure().subplots()
    axes.set_yscale("function", functions=figures.STRETCHED)
    axes.set_ylim(low, high)
    figures.accuracy_ticks(axes.yaxis, (low, high))

    assert [tick.get_text() for tick in axes.get_yticklabels()] == shown


def test_a_stretched_scale_can_be_read_back() -> None:
    stretch, shrink = figures.STRETCHED
    accuracies = np.array([0, 0.1, 0.5, 0.9, 0.99, 1])

    assert shrink(stretch(accuracies)).tolist() == pytest.approx(accuracies.tolist(), abs=1e-6)


@pytest.mark.parametrize("shape", [(8, 12, 3), (8, 1, 3), (1, 8, 4), (1, 1, 3)])
def test_colours_are_shown_as_they_are(shape: tuple[int, int, int]) -> None:
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    figure = drawn(figures.image_sheet(image[None], ["caption"], "title"))
    (shown,) = figure.axes[0].images

    assert np.array_equal(np.asarray(shown.get_array()), image)


@pytest.mark.parametrize("shape", [(8, 12, 1), (8, 1, 1), (1, 1, 1), (8, 12, 2)])
def test_a_single_channel_is_shown_as_it_is(shape: tuple[int, int, int]) -> None:
    image = np.zeros(shape, np.uint8)
    figure = drawn(figures.image_sheet(image[None], ["caption"], "title"))
    (shown,) = figure.axes[0].images

    assert np.asarray(shown.get_array()).shape == shape[:2]
    assert shown.to_rgba(np.array([0, 255])).tolist() == [[0, 0, 0, 1], [1, 1, 1, 1]]


def test_names_with_dollar_signs_are_no_formulas() -> None:
    names = ["$x_{", "a$b$", "c"]
    drawn(figures.confusion_matrix(pd.DataFrame(np.eye(3, dtype=int), names, names), "m"))
    image = np.zeros((4, 4, 1), np.uint8)
    drawn(figures.example_prediction(image, 0, np.array([0.2, 0.3, 0.5]), names, "m"))
    figure = drawn(figures.image_sheet(image[None], ["a$x_{$.png"], "title"))

    assert figure.axes[0].get_title() == r"a\$x_{\$.png"
