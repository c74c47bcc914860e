import numpy as np
import pytest

from image_classification.evaluation import captions

PROBABILITIES = np.array([[0.1, 0.2, 0.7]])
LONG = ["a", "American_water_spaniel_dog", "Curly-coated_retriever_dog"]


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("spaniel", 7, "spaniel"),
        ("spaniels", 7, "spa…els"),
        ("spaniels", 6, "spa…ls"),
        ("", 5, ""),
        ("spaniels", 1, "s…s"),
    ],
)
def test_a_long_text_loses_its_middle(text: str, most: int, shown: str) -> None:
    assert captions.shortened(text, most) == shown


def test_a_mistake_is_captioned_with_both_classes_and_the_confidence() -> None:
    assert captions.mistake_captions(np.array([1]), PROBABILITIES, ["a", "b", "c"]) == [
        "b taken for c\n70.0% confident"
    ]


def test_long_names_get_a_line_each_and_fit_it() -> None:
    files = ["dogs/2023/IMG_20231105_by_the_sea_0001.jpg"]
    (caption,) = captions.mistake_captions(np.array([1]), PROBABILITIES, LONG, files)

    assert caption.splitlines() == [
        "American_wa…paniel_dog",
        "taken for Curly-…r_dog",
        "70.0% confident",
        "IMG_2023110…a_0001.jpg",
    ]
    assert max(map(len, caption.splitlines())) == captions.LINE


def test_a_long_start_of_a_line_leaves_some_of_the_name() -> None:
    assert captions.caption_line("only a_very_long_model_name: ", LONG[1]).endswith(": Ameri…l_dog")
