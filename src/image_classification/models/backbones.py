"""Pretrained networks that a model begins with: their weights, their scaling, their layers."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from image_classification.core.config import BackboneConfig
from image_classification.core.errors import UserError
from image_classification.models import efficientnet_lite, torch_file, weights
from image_classification.models.graph import connect
from image_classification.models.safety import error_text

FEATURES = "features"  # the name of the backbone's pooled output in the inputs of layers
LITE0 = "EfficientNetLite0"


@dataclass(frozen=True)
class Pretrained:
    """How a network was trained on ImageNet, and where its weights are.

    scale, offset: of its input, as pixels * scale + offset; (1, 0) if it scales inside.
    address: of Keras' file without the top; `{size}` is one that there are weights for.
    """

    scale: float
    offset: float
    address: str


STORE = "https://storage.googleapis.com/"
OF_KERAS = f"{STORE}tensorflow/keras-applications/"
SIGNED = (1 / 127.5, -1.0)
# All that use only Keras' own layers, and the same scaling for the three colours.
PRETRAINED = {
    LITE0: Pretrained(1 / 128, -127 / 128, ""),
    "MobileNet": Pretrained(*SIGNED, f"{OF_KERAS}mobilenet/mobilenet_1_0_{{size}}_tf_no_top.h5"),
    "MobileNetV2": Pretrained(
        *SIGNED,
        f"{OF_KERAS}mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels"
        "_1.0_{size}_no_top.h5",
    ),
    "Xception": Pretrained(
        *SIGNED, f"{OF_KERAS}xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
    **{
        f"ResNet{depth}V2": Pretrained(
            *SIGNED,
            f"{OF_KERAS}resnet/resnet{depth}v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        )
        for depth in (50, 101, 152)
    },
    **{
        f"EfficientNetB{size}": Pretrained(
            1.0, 0.0, f"{STORE}keras-applications/efficientnetb{size}_notop.h5"
        )
        for size in range(8)
    },
    **{
        f"EfficientNetV2{size}": Pretrained(
            1.0, 0.0, f"{OF_KERAS}efficientnet_v2/efficientnetv2-{size.lower()}_notop.h5"
        )
        for size in ("B0", "B1", "B2", "B3", "S", "M", "L")
    },
}
MOBILE_SIZES = {"MobileNet": (128, 160, 192), "MobileNetV2": (96, 128, 160, 192)}


def load(backbone: BackboneConfig) -> keras.Model:
    """The pretrained network without its top.

    Returns:
        From float32 (n, image_size, image_size, 3), scaled as `PRETRAINED` says, to feature maps
        (n, height, width, channels).

    Raises:
        UserError: there is no such network, or its weights can't be fetched, or do not fit it.
    """
    if backbone.name not in PRETRAINED:
        raise UserError(
            f"backbone.name: must be one of {', '.join(PRETRAINED)}, got {backbone.name:.50}"
        )
    if backbone.weights.startswith("pypi:") and backbone.name != LITE0:
        raise UserError(f"backbone.weights: packages are read for {LITE0} only")
    path = weights.find(backbone, *_published(backbone))
    try:
        return _with_weights(backbone, path)
    except Exception as error:  # the readers of HDF5 and pickles, and layers, raise anything
        raise UserError(
            f"backbone.weights: {path} does not fit {backbone.name}: {error_text(error)}"
        ) from error


def scaling(backbone: BackboneConfig) -> keras.Layer:
    """The layer that scales pixels as the network was trained with them."""
    pretrained = PRETRAINED[backbone.name]
    return keras.layers.Rescaling(pretrained.scale, pretrained.offset, name="scaling")


def attach(
    backbone: BackboneConfig, network: keras.Model, image: keras.KerasTensor
) -> keras.KerasTensor:
    """Apply new layers like those of a network to an image, and pool their output.

    They become layers of one model, not a model within it, which steps in another precision do not
    reach. Their weights are to be set by `copy_weights`.

    Args:
        backbone: its size, and which of its layers can learn.
        network: from `load`.
        image: scaled, (height, width, channels).

    Raises:
        ValueError: it has neither one channel nor three.
    """
    size = backbone.image_size
    if image.shape[1:3] != (size, size):
        image = keras.layers.Resizing(size, size, antialias=True, name="resizing")(image)
    if image.shape[3] == 1:
        image = keras.layers.Concatenate(name="channels")([image] * 3)
    if image.shape[3] != 3:
        raise ValueError(f"a backbone takes images of 1 or 3 channels, not {image.shape[3]}")
    first, *described = network.get_config()["layers"]
    if not backbone.trainable:
        for part in described:  # as in inference: nothing is dropped
            if part["class_name"] == "Dropout":
                part["config"]["rate"] = 0.0
    layers = {part["name"]: keras.layers.deserialize(part) for part in described}
    inputs = {part["name"]: _inputs(part) for part in described}
    maps = connect(layers, inputs, {first["name"]: image})
    _freeze(list(layers.values()), backbone.trainable)
    return keras.layers.GlobalAveragePooling2D(name=FEATURES)(maps)


def copy_weights(network: keras.Model, model: keras.Model) -> None:
    """Give the layers that `attach` made the weights that they have in the network."""
    for layer in network.layers:
        if layer.weights:
            copy = model.get_layer(layer.name)
            copy.set_weights(layer.get_weights())
            if isinstance(copy, keras.layers.Normalization):
                copy.finalize_state()  # it computes with what it derives from its weights


def _published(backbone: BackboneConfig) -> tuple[str, str | None]:
    """The name of the file of weights, and the mirror that Keras has it from."""
    if backbone.name == LITE0:
        return efficientnet_lite.FILE, None
    sizes = MOBILE_SIZES.get(backbone.name, ())
    size = backbone.image_size if backbone.image_size in sizes else 224
    address = PRETRAINED[backbone.name].address.format(size=size)
    return address.rpartition("/")[2], address


def _with_weights(backbone: BackboneConfig, path: Path) -> keras.Model:
    size = backbone.image_size
    if backbone.name == LITE0:
        network = efficientnet_lite.build(size)
        if path.suffix == ".pth":
            efficientnet_lite.set_weights(network, torch_file.read(path))
        else:
            network.load_weights(path)
        return network
    # By its name, Keras builds some of them otherwise than from the path of the same file.
    given = backbone.weights if backbone.weights == "imagenet" else str(path)
    make = getattr(keras.applications, backbone.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a size that it was not trained with
        return make(include_top=False, weights=given, input_shape=(size, size, 3))


def _inputs(part: dict[str, Any]) -> list[str]:
    """The names of the layers whose outputs a layer takes, from its description."""
    ((given,),) = (call["args"] for call in part["inbound_nodes"])
    tensors = given if isinstance(given, list) else [given]
    return [tensor["config"]["keras_history"][0] for tensor in tensors]


def _freeze(layers: list[keras.Layer], trainable: bool | int) -> None:
    """Freeze all layers except the last `trainable` that can learn, or, if true, all of those.

    Batch normalisation is always frozen: the statistics of a small data set are worse.
    """
    can_learn = [
        layer
        for layer in layers
        if layer.trainable_weights and not isinstance(layer, keras.layers.BatchNormalization)
    ]
    count = len(can_learn) if trainable is True else int(trainable)
    for layer in layers:
        layer.trainable = False
    for layer in can_learn[max(0, len(can_learn) - count) :]:
        layer.trainable = True
