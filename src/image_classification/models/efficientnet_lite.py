"""EfficientNet-Lite0: EfficientNet-B0 without what is slow on small devices.

Tan and Le, "EfficientNet" (2019); the lite variant (2020) has ReLU6 instead of swish and no
squeeze-and-excitation.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

# Of each stage: blocks, kernel, strides of the first, expansion, filters.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
FILE = "efficientnet-lite0-57934424.pth"  # of its weights, in the package
EPSILON = 1e-3  # of batch normalisation


def build(image_size: int) -> keras.Model:
    """The network without its top, with random weights.

    Returns:
        From float32 (n, image_size, image_size, 3), pixels as (x - 127) / 128, to float32
        (n, height, width, 1280). Its layers have the names that their weights have in PyTorch.
    """
    image = keras.Input((image_size, image_size, 3))
    x = _convolution(image, "_conv_stem", "_bn0", 32, 3, 2)
    number = 0
    for blocks, kernel, strides, expansion, filters in STAGES:
        for block in range(blocks):
            x = _block(x, f"_blocks.{number}", kernel, 1 if block else strides, expansion, filters)
            number += 1
    return keras.Model(image, _convolution(x, "_conv_head", "_bn1", 1280), name="lite0")


def set_weights(model: keras.Model, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Give a network from `build` the weights of a state dictionary of PyTorch.

    Raises:
        KeyError, ValueError: it lacks some, or has some of another shape.
    """
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([tensors[f"{layer.name}.{part}"] for part in parts])
        elif isinstance(layer, layers.DepthwiseConv2D):  # (channels, 1, height, width)
            layer.set_weights([np.transpose(tensors[f"{layer.name}.weight"], (2, 3, 0, 1))])
        elif isinstance(layer, layers.Conv2D):  # (to, from, height, width)
            layer.set_weights([np.transpose(tensors[f"{layer.name}.weight"], (2, 3, 1, 0))])


def _block(
    x: keras.KerasTensor, name: str, kernel: int, strides: int, expansion: int, filters: int
) -> keras.KerasTensor:
    start, width = x, x.shape[-1]
    if expansion > 1:
        x = _convolution(x, f"{name}._expand_conv", f"{name}._bn0", expansion * width)
    depthwise = layers.DepthwiseConv2D(
        kernel, strides, padding="same", use_bias=False, name=f"{name}._depthwise_conv"
    )
    x = _active(depthwise(x), f"{name}._bn1")
    project = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}._project_conv")
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}._bn2")(project(x))
    return layers.Add(name=f"{name}.sum")([start, x]) if start.shape == x.shape else x


def _convolution(
    x: keras.KerasTensor, name: str, norm: str, filters: int, kernel: int = 1, strides: int = 1
) -> keras.KerasTensor:
    convolution = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=name)
    return _active(convolution(x), norm)


def _active(x: keras.KerasTensor, norm: str) -> keras.KerasTensor:
    x = layers.BatchNormalization(epsilon=EPSILON, name=norm)(x)
    return layers.ReLU(6.0, name=f"{norm}.active")(x)
