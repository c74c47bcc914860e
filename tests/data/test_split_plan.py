"""One's own images, divided: what can't be is one line."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from conftest import Compose

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.data.split_plan import Inventory, plan


@pytest.fixture
def data(compose: Compose) -> DataConfig:
    return replace(compose("data=folder").data, classes=None)


def inventory(
    labels: list[str],
    groups: Sequence[str | None] = (),
    parts: Sequence[str | None] = (),
) -> Inventory:
    count = len(labels)
    return Inventory(
        names=[f"{number}.png" for number in range(count)],
        labels=labels,
        parts=parts or [None] * count,
        groups=groups or [None] * count,
        hashes=[str(number).encode() for number in range(count)],
        perceptual_hashes=np.arange(count, dtype=np.uint64),
        sizes=[(8, 8)] * count,
        modes=["L"] * count,
    )


def test_too_few_groups_for_all_parts_are_refused_with_what_to_do(data: DataConfig) -> None:
    images = inventory(["a", "b"] * 20, ["first"] * 20 + ["second"] * 20)

    with pytest.raises(UserError, match=r"no images are left for \w+: a group, .* more or smaller"):
        plan(images, data)


def test_a_share_of_less_than_an_image_is_one_image(data: DataConfig) -> None:
    small = replace(data, stratify=False, test_share=0.01)
    found, issues = plan(inventory(["a", "b"] * 20), small)

    assert len(found.parts["test"]) == 1
    assert issues == []


def test_classes_are_ordered_by_numbers_whatever_digits_they_have(data: DataConfig) -> None:
    labels = [name for name in ("10", "9", "10\N{SUPERSCRIPT TWO}") for _ in range(6)]
    found, _ = plan(inventory(labels), data)

    assert found.classes == ["9", "10", "10\N{SUPERSCRIPT TWO}"]


@pytest.mark.parametrize("other", ["train", None])
def test_a_group_in_several_given_parts_is_named(data: DataConfig, other: str | None) -> None:
    parts = [*["test"] * 10, *[other] * 30]
    images = inventory(["a", "b"] * 20, [*["split up"] * 11, *[None] * 29], parts)

    with pytest.raises(
        UserError, match=r"images of the group 'split up' are in .*test.*: give them"
    ):
        plan(images, data)
    plan(inventory(["a", "b"] * 20, ["whole"] * 10 + [None] * 30, parts), data)


def test_a_group_in_training_and_in_no_part_is_drawn_as_one(data: DataConfig) -> None:
    groups = [str(number // 4) for number in range(80)]
    found, _ = plan(inventory(["a", "b"] * 40, groups, ["train", None] * 40), data)

    sides = [{groups[row] for row in found.parts[part]} for part in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 20


def test_too_few_images_of_the_classes_are_told_with_what_to_do(data: DataConfig) -> None:
    with pytest.raises(
        UserError,
        match=r"holds 1 classes with enough good images, at least 2 are needed \(b: good images of "
        r"this class: 2, needed: at least 3\): add images, or correct data\.path",
    ):
        plan(inventory(["a"] * 9 + ["b"] * 2), data)
    with pytest.raises(UserError, match=r"holds no good images to train with: add images"):
        plan(inventory(["a", "b"] * 9, parts=["test"] * 18), data)
