"""MLflow's loader of a registered model, run from a copy of this file beside the model.

It runs where this project is not installed, so it imports nothing of it. MLflow's own loader would
accept fractional pixels, truncated to 0, and would print a progress bar into its server's log.
"""

from typing import Any

import mlflow.keras
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from numpy.typing import NDArray

BATCH = 1000  # images at once


class ImageModel:
    """A Keras model from uint8 images to probabilities."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._shape = tuple(model.input_shape[1:])

    def get_raw_model(self) -> Any:
        """The keras.Model; MLflow's `unwrap_python_model` and users call this."""
        return self._model

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """The probabilities of images.

        Args:
            data: (n, height, width, channels), whole numbers from 0 to 255 of any type.
            params: MLflow passes them; there are none.

        Returns:
            float32 (n, classes).

        Raises:
            MlflowException: the pixels are fractions or out of range, or of another shape; its
                server answers with 400.
        """
        images = self._checked(data.to_numpy() if isinstance(data, pd.DataFrame) else data)
        # Keras' `predict` may wait at its end for a thread of tf.data, about as long as it took.
        predicted = [
            self._model.predict_on_batch(images[start : start + BATCH])
            for start in range(0, max(1, len(images)), BATCH)
        ]
        return np.concatenate(predicted, dtype=np.float32)

    def _checked(self, data: Any) -> NDArray[np.uint8]:
        try:
            pixels = np.asarray(data)
            if pixels.dtype != np.uint8:
                pixels = pixels.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise _refused("pixels must be numbers, the same number of them in each row") from error
        if pixels.shape[1:] != self._shape or pixels.ndim != len(self._shape) + 1:
            wanted = ", ".join(map(str, self._shape))
            raise _refused(f"images must have the shape (n, {wanted}), got {pixels.shape}")
        if pixels.dtype == np.uint8:
            return pixels
        lowest, highest = pixels.min(initial=0), pixels.max(initial=0)
        is_whole = np.isfinite(pixels).all() and (pixels == np.floor(pixels)).all()
        if not is_whole or highest == 1:
            raise _refused("pixels must be whole numbers 0 to 255, not fractions: multiply by 255")
        if lowest < 0 or highest > 255:
            raise _refused(f"pixels must be from 0 to 255, got {lowest:g} to {highest:g}")
        return pixels.astype(np.uint8)


def _refused(cause: str) -> MlflowException:
    return MlflowException(cause, error_code=INVALID_PARAMETER_VALUE)


def _load_pyfunc(path: str) -> ImageModel:
    """MLflow calls this with the folder of the model."""
    return ImageModel(mlflow.keras.load_model(path))
