"""The optimizers that a recipe can name."""

from collections.abc import Sequence

import keras

from image_classification.core.config import RecipeConfig
from image_classification.training.schedules import learning_rate

NOT_DECAYED = ("bias", "gamma", "beta", "scale")  # Keras' names for them, in all of its layers


def optimizer(
    recipe: RecipeConfig, steps: int, variables: Sequence[keras.Variable]
) -> keras.optimizers.Optimizer:
    """The recipe's optimizer, built for the trainable variables of a model.

    `adam` is Adam at Keras' defaults; `adamw` and `sgd`, which has Nesterov momentum 0.9, also
    subtract `weight_decay` x learning rate x itself from every weight in each step, decoupled from
    its gradient (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019). Biases and
    the parameters of normalisation do not decay.

    Args:
        recipe: what to optimize with.
        steps: of the whole training.
        variables: what is trained.
    """
    rate = learning_rate(recipe, steps)
    if recipe.optimizer == "adam":
        made = keras.optimizers.Adam(rate)
    elif recipe.optimizer == "adamw":
        made = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    else:
        made = keras.optimizers.SGD(
            rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    if recipe.weight_decay:
        kept = [variable for variable in variables if variable.name in NOT_DECAYED]
        made.exclude_from_weight_decay(var_list=kept)
    made.build(variables)
    return made
