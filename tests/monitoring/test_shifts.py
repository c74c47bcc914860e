"""Drift: clean windows raise no alarm, shifted streams all do."""

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from simulation import WINDOW, alarms, drawn_digits, found, nearest_mean, windows

from image_classification.monitoring import shifts
from image_classification.monitoring.statistics import NAMES, Statistics, describe

Drawn = tuple[Statistics, Statistics]
Judged = list[list[shifts.Shift]]


@pytest.fixture(scope="module")
def digits() -> Drawn:
    """The statistics of validation images, and of others of the same kind."""
    images, labels = drawn_digits(4500, seed=0)
    model = nearest_mean(images[:1000], labels[:1000])
    reference, pool = images[1000:3000], images[3000:]
    return describe(reference, model(reference)), describe(pool, model(pool))


@pytest.fixture(scope="module")
def clean(digits: Drawn) -> Judged:
    """300 clean windows."""
    reference, pool = digits
    return [shifts.compare(reference, window) for window in windows(pool, 300, seed=0)]


@pytest.mark.slow
def test_300_clean_windows_raise_no_alarm(clean: Judged) -> None:
    """The level allows one or more with a probability of 0.3 %, whatever the seed."""
    assert not [shift for found in clean for shift in found if shift.moved]


def test_p_values_of_clean_windows_are_no_smaller_than_they_should_be(clean: Judged) -> None:
    """Holm's adjustment holds the family's rate: at 0.05 15 of 300; 36 once in a million."""
    assert sum(min(shift.p for shift in found) < 0.05 for found in clean) <= 35


def test_large_clean_windows_raise_no_alarm(digits: Drawn) -> None:
    assert alarms(*digits, count=10, seed=0, size=shifts.MOST_IMAGES) == 0


@pytest.mark.slow
def test_every_shifted_stream_is_found_with_100_images() -> None:
    images, labels = drawn_digits(5000, seed=1)
    model = nearest_mean(images[:1000], labels[:1000])
    reference = describe(images[1000:4000], model(images[1000:4000]))

    counts = found(reference, images[4000:], labels[4000:], model, count=10)

    assert counts == dict.fromkeys(counts, 10)


def test_a_shift_tells_its_direction_and_size(digits: Drawn) -> None:
    reference, pool = digits
    values = pool.values[:WINDOW].copy()
    values[:, NAMES.index("brightness")] += 1

    by_name = {
        one.name: one
        for one in shifts.compare(reference, Statistics(values, pool.classes[:WINDOW]))
    }

    moved = by_name.pop("brightness")
    assert moved.moved
    assert moved.distance == 1
    assert moved.current - moved.reference == pytest.approx(1, abs=0.05)
    assert not any(one.moved for one in by_name.values())


def test_a_change_of_classes_names_the_one_that_changed_most(digits: Drawn) -> None:
    reference, pool = digits
    classes = np.where(np.arange(WINDOW) < 60, 7, pool.classes[:WINDOW]).astype(np.int32)

    *_, last = shifts.compare(reference, Statistics(pool.values[:WINDOW], classes))

    assert (last.name, last.number, last.moved) == (shifts.CLASSES, 7, True)
    assert last.current > 0.6 > last.reference
    assert 0.4 < last.distance < 0.7


@pytest.mark.parametrize("probabilities", [[1.0], [0.999, 0.001], [0.5, 0.3, *[0.002] * 100]])
def test_rare_classes_raise_no_false_alarm(probabilities: list[float]) -> None:
    random = np.random.default_rng(0)
    reference, *seen = (
        random.choice(len(probabilities), size, p=probabilities).astype(np.int32)
        for size in (10_000, *[WINDOW] * 30)
    )
    constant = np.zeros((10_000, len(NAMES)), np.float32)

    for classes in seen:
        window = Statistics(constant[:WINDOW], classes)
        assert not any(one.moved for one in shifts.compare(Statistics(constant, reference), window))


def test_a_class_that_validation_never_has_is_noticed() -> None:
    constant = np.zeros((1000, len(NAMES)), np.float32)
    reference = Statistics(constant, np.arange(1000, dtype=np.int32) % 3)
    new = Statistics(constant[:WINDOW], np.full(WINDOW, 5, np.int32))

    *_, last = shifts.compare(reference, new)

    assert last.moved
    assert (last.number, last.reference, last.current, last.distance) == (5, 0, 1, 1)


@pytest.mark.parametrize(("expected", "reference"), [(10, 10_000), (10, 1000), (1, 10_000)])
def test_a_rare_class_raises_no_more_alarms_than_the_level_allows(
    expected: int, reference: int
) -> None:
    """Summed over all that can come in, not simulated; the chi-squared test exceeds it."""
    counts = np.arange(WINDOW + 1)
    share = expected / WINDOW
    reference_count = round(reference * share)
    together = reference_count + expected
    chance = scipy.stats.hypergeom.pmf(counts, reference + WINDOW, together, WINDOW)

    p = np.ones(WINDOW + 1)
    for count in np.flatnonzero(chance > 0):
        reference_classes = np.repeat([0, 1], [reference - together + count, together - count])
        window = np.repeat([0, 1], [WINDOW - count, count])
        p[count] = of_classes(reference_classes, window)

    for level in (0.05, 1e-3, 1e-6):
        assert chance[p < level].sum() <= level
    assert p.min() < 1e-6


def of_classes(reference: NDArray[np.integer], window: NDArray[np.integer]) -> float:
    """The p-value of the classes alone: all else is equal, and Holm takes it 8-fold."""
    rows = [np.zeros((len(part), len(NAMES)), np.float32) for part in (reference, window)]
    statistics = [
        Statistics(row, part.astype(np.int32))
        for row, part in zip(rows, (reference, window), strict=True)
    ]
    return shifts.compare(*statistics)[-1].p / (len(NAMES) + 1)


@pytest.mark.parametrize("size", [50, 100, 1000])
def test_the_smallest_distance_is_where_alarms_begin(size: int) -> None:
    reference = np.tile(np.linspace(0, 1, 10_000, dtype=np.float32)[:, np.newaxis], len(NAMES))
    classes = np.zeros(10_000, np.int32)
    limit = shifts.smallest_distance(10_000, size)

    def any_moved(distance: float) -> bool:
        values = np.zeros((size, len(NAMES)), np.float32) + 0.5
        values[:] = np.linspace(0, 1, size)[:, np.newaxis]
        values[:, 0] = distance + (1 - distance) * np.linspace(0, 1, size)
        found = shifts.compare(
            Statistics(reference, classes), Statistics(values, np.zeros(size, np.int32))
        )
        return any(one.moved for one in found)

    assert any_moved(limit + 0.03)
    assert not any_moved(limit - 0.03)
