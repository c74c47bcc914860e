"""The learning rate over a whole training."""

import keras

from image_classification.core.config import RecipeConfig


def learning_rate(
    recipe: RecipeConfig, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over the `steps` of a whole training.

    `one_cycle`: linearly up from 0 in the first part (`warm_up`), then down to 0 along half a
    cosine, after Smith and Topin, "Super-Convergence" (2018), where the way down is linear.
    """
    if recipe.schedule == "constant":
        return recipe.learning_rate
    warm_up = int(recipe.warm_up * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=recipe.learning_rate,
        warmup_steps=warm_up,
        decay_steps=max(1, steps - warm_up),
    )
