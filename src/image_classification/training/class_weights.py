"""How much an example of each class counts in the loss."""

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight


def class_weights(
    kind: str, labels: NDArray[np.unsignedinteger], classes: int
) -> NDArray[np.float32] | None:
    """The weight of each class, by `recipe.class_weights`.

    Args:
        kind: `none`, or `balanced`: n / (classes x examples of the class), with which every class
            counts the same, and the weights of all examples sum to n.
        labels: uint8 or uint16 (n,), of the training examples.
        classes: how many there are.

    Returns:
        float32 (classes,), 0 for a class without examples, which is not counted in the formula;
        None for `none`.
    """
    if kind == "none":
        return None
    weights = np.zeros(classes, np.float32)
    present = np.unique(labels)
    weights[present] = compute_class_weight("balanced", classes=present, y=np.asarray(labels))
    return weights
