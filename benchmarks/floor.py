"""The least time that a step can take: its multiply-adds, over the machine's rate of them.

Prints one line of JSON: float32 multiply-adds a second, and those of each model for one image.
"""

import json
import sys
import time
from math import prod

from image_classification.core.compose import compose  # first: it sets what TensorFlow reads

# isort: split
import keras
import tensorflow as tf

from image_classification.models.build import build

SIZE = 2048  # rows and columns of the matrices: large enough for the highest rate


def multiply_adds(model: keras.Model) -> int:
    """Count those of a training step for an image: outputs, gradients of weights and of inputs.

    The images themselves need no gradient. Biases, activations, pooling and Adam are left out.
    """
    total = 0
    weighted = [layer for layer in model.layers if layer.weights]
    for layer in weighted:
        kernel = layer.weights[0].shape
        positions = prod(layer.output.shape[1:-1])  # 1 for a dense layer
        total += prod(kernel) * positions * (2 if layer is weighted[0] else 3)
    return total


def rate(trials: int = 20) -> float:
    """Multiply-adds a second of a product of two float32 matrices, the best of several."""
    left, right = (tf.random.normal((SIZE, SIZE), seed=seed) for seed in (0, 1))
    seconds = []
    for _ in range(trials):
        start = time.perf_counter()
        tf.linalg.matmul(left, right).numpy()
        seconds.append(time.perf_counter() - start)
    return float(SIZE**3 / min(seconds))


def main() -> None:
    """Measure the rate, and count for the models named on the command line."""
    counted = {}
    for name in sys.argv[1:]:
        config = compose(f"model={name}")
        model = build(config.model, config.data.image_shape or (), len(config.data.classes or ()))
        counted[name] = multiply_adds(model)
    print(json.dumps({"rate": rate(), "multiply_adds": counted}))


if __name__ == "__main__":
    main()
