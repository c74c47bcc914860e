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


def inventory(labels: list[str], groups: Sequence[str | None] = ()) -> Inventory:
    count = len(labels)
    return Inventory(
        names=[f"{number}.png" for number in range(count)],
        labels=labels,
        parts=[None] * count,
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
