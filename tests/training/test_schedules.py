from dataclasses import replace

import numpy as np
import pytest
from conftest import Compose

from image_classification.training.schedules import learning_rate


@pytest.mark.parametrize(("steps", "warm_up", "peak"), [(8, 0.25, 2), (7, 0.25, 1), (1, 0.25, 0)])
def test_one_cycle_rises_to_the_highest_rate_and_falls_to_zero(
    compose: Compose, steps: int, warm_up: float, peak: int
) -> None:
    recipe = compose("recipe.schedule=one_cycle", "recipe.learning_rate=0.01").recipe
    schedule = learning_rate(replace(recipe, warm_up=warm_up), steps)
    assert not isinstance(schedule, float)

    up = 0.01 * np.arange(peak) / max(peak, 1)
    down = 0.01 * (1 + np.cos(np.pi * np.arange(steps - peak + 1) / (steps - peak))) / 2
    rates = [float(schedule(step)) for step in range(steps + 1)]
    assert rates == pytest.approx([*up, *down], abs=1e-9)


def test_the_notebook_recipe_keeps_its_rate(compose: Compose) -> None:
    assert learning_rate(compose("recipe=notebook").recipe, steps=400) == 0.001
