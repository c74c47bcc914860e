"""Dividing examples: properties that hold for any data."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from image_classification.data.assignment import assign, quotas, units

SHARES = (0.15, 0.15)


@settings(max_examples=60, deadline=None)
@example(counts=[3, 3], shares=(0.4375, 0.125), seed=0)  # a part lacks two examples of a class
@given(
    counts=st.lists(st.integers(3, 60), min_size=1, max_size=8),
    shares=st.tuples(st.floats(0.02, 0.45), st.floats(0.02, 0.45)),
    seed=st.integers(0, 2**32 - 1),
)
def test_shares_are_within_one_example_of_what_was_asked(
    counts: list[int], shares: tuple[float, float], seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    wanted = quotas(counts, shares)
    parts = assign(labels, np.arange(len(labels)), wanted, seed)

    assert np.array_equal(parts, assign(labels, np.arange(len(labels)), wanted, seed))
    for part, share in enumerate(shares):
        found = np.bincount(labels[parts == part], minlength=len(counts))
        assert (found >= 1).all()
        asked = np.array(counts) * share
        assert (np.abs(found - asked) < 2).all()
        # A class of too few for a share in every part has one example there, at others' cost.
        small = int((np.outer([*shares, 1 - sum(shares)], counts).min(axis=0) < 2).sum())
        assert abs(found.sum() - asked.sum()) <= 1 + 2 * small + 1e-6
    assert np.bincount(labels[parts == 2], minlength=len(counts)).min() >= 1


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_what_belongs_together_is_never_on_both_sides(data: st.DataObject, seed: int) -> None:
    count = data.draw(st.integers(20, 80))
    generator = np.random.default_rng(seed)
    groups = [int(group) if group < 15 else None for group in generator.integers(0, 30, count)]
    pixels = [bytes([int(value)]) for value in generator.integers(0, 60, count)]
    labels = generator.integers(0, 3, count)
    labels[:9] = [0, 1, 2] * 3
    together = units(groups, pixels)
    wanted = quotas(np.bincount(labels, minlength=3).tolist(), SHARES)

    parts = assign(labels, together, wanted, seed)

    for keys in (groups, pixels):
        for key in set(keys) - {None}:
            assert len({int(parts[i]) for i, other in enumerate(keys) if other == key}) == 1


def test_units_join_what_is_connected_by_any_key() -> None:
    groups, pixels = ["a", "a", None, None, "b", None], [1, 2, 2, 3, 4, None]

    assert units(groups, pixels).tolist() == [0, 0, 0, 1, 2, 3]


def test_groups_of_a_tenth_come_near_to_the_shares() -> None:
    labels = np.tile(np.arange(4), 100)
    together = np.repeat(np.arange(100), 4)

    parts = assign(labels, together, quotas([100] * 4, SHARES), 0)

    assert np.bincount(parts).tolist() == pytest.approx([60, 60, 280], abs=4)
