"""What is said about drift: true to the numbers, and that drift is not harm."""

import json

import numpy as np
import pytest

from image_classification.monitoring import drift_report
from image_classification.monitoring.drift_report import Report, as_json, as_text
from image_classification.monitoring.observations import Window
from image_classification.monitoring.statistics import NAMES, Statistics

CLASSES = ("cat", "dog")
BEGIN = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


def statistics(count: int, seed: int, **moves: float) -> Statistics:
    random = np.random.default_rng(seed)
    values = random.normal(0.5, 0.1, (count, len(NAMES)))
    for name, move in moves.items():
        values[:, NAMES.index(name)] += move
    return Statistics(values.astype(np.float32), random.integers(0, 2, count).astype(np.int32))


def report(window: Statistics) -> Report:
    seen = Window("key", BEGIN, BEGIN + 3600, 5000, window)
    return drift_report.report("pets", "cnn-0", 3, seen, statistics(2000, 0), CLASSES)


def test_it_names_what_moved_in_which_direction_and_what_did_not() -> None:
    text = as_text(report(statistics(200, 1, confidence=-0.4, sharpness=0.2)))

    first, second, _, verdict, *lines = text.splitlines()
    assert first.startswith("pets: 5,000 images classified by cnn-0, version 3, ")
    assert first.endswith("from 2023-11-14 22:13 to 2023-11-14 23:13 UTC.")
    assert second == "Compared: 200 of them, with 2,000 validation images."
    assert verdict.startswith("Drift: ")
    assert lines[0].startswith("  confidence: less sure: median 0.0")
    assert lines[1].startswith("  sharpness: sharper or noisier: median 0.6")
    assert lines[2].startswith("No shift detected: brightness, ")
    assert lines[-1].startswith("Drift is not harm")


def test_a_class_is_named_with_its_shares() -> None:
    reference = statistics(300, 1)

    text = as_text(report(Statistics(reference.values, np.ones(300, np.int32))))

    lines = ("dog, more often: 100.0%", "cat, less often: 0.0%")  # both moved as far
    assert any(f"  predictions: above all {line} of the images, in" in text for line in lines)
    assert "No shift detected: confidence, " in text


def test_no_drift_says_what_would_have_gone_unnoticed() -> None:
    few, many = (as_text(report(statistics(count, 1))) for count in (100, 1000))

    assert few.splitlines()[-2].startswith("No drift: ")
    assert few.splitlines()[-1].endswith("below about 0.27 go unnoticed.")
    assert many.splitlines()[-1].endswith("below about 0.10 go unnoticed.")


@pytest.mark.parametrize("count", [1, 49])
def test_too_few_images_are_not_judged(count: int) -> None:
    found = report(statistics(count, 1, brightness=1))

    assert as_text(found).splitlines()[-1] == (
        f"Too few to judge: 50 images are needed, {count} were seen."
    )
    assert not found.drift
    assert as_json(found)["enough"] is False


def test_json_holds_the_same_in_numbers() -> None:
    found = report(statistics(1500, 1, brightness=0.3))

    values = json.loads(json.dumps(as_json(found)))

    assert (values["drift"], values["enough"], values["compared"]) == (True, True, 1000)
    assert (values["since"], values["until"]) == (
        "2023-11-14T22:13:20+00:00",
        "2023-11-14T23:13:20+00:00",
    )
    by_name = {shift["name"]: shift for shift in values["shifts"]}
    assert by_name.keys() == {*NAMES, "classes"}
    assert [name for name, shift in by_name.items() if shift["moved"]] == ["brightness"]
    assert by_name["brightness"]["current"] - by_name["brightness"]["reference"] == pytest.approx(
        0.3, abs=0.02
    )
    assert by_name["classes"]["class"] in CLASSES
