"""The devices that one training is divided among: on JAX, all that it sees."""

from typing import Any

import keras

from image_classification.core.backend import backend
from image_classification.core.errors import UserError


class DataParallel(keras.distribution.DataParallel):
    """All devices, each of which computes its part of a batch with the same weights.

    Keras divides a batch while it is read, and fails where a part has another size, as at the end
    of an epoch. Here each device is given all of a batch, and takes its part in the step.
    """

    def get_data_layout(self, data_shape: Any) -> keras.distribution.TensorLayout:
        """A batch as it is read: whole; Keras calls this."""
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)

    def divided(self, images: Any) -> Any:
        """The images in a step: divided, unless that leaves parts of different sizes."""
        if images.shape[0] % self.num_model_replicas:
            return images
        layout = super().get_data_layout(images.shape)
        return keras.distribution.distribute_tensor(images, layout)


def data_parallel(batch_size: int) -> DataParallel | None:
    """The devices, in whose scope a model is built and fitted; None where one is all there is.

    Args:
        batch_size: of all devices together.

    Raises:
        UserError: it can't be divided by their number.
    """
    if backend() != "jax" or len(keras.distribution.list_devices()) == 1:
        return None
    devices = DataParallel(auto_shard_dataset=False)
    count = devices.num_model_replicas
    if batch_size % count:
        raise UserError(
            f"recipe.batch_size: must be a multiple of {count}, the devices that JAX sees, got "
            f"{batch_size}: change it, or let JAX see fewer (CUDA_VISIBLE_DEVICES)"
        )
    return devices
