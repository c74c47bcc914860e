"""The inference engine: LiteRT, which needs no TensorFlow, or else TensorFlow itself."""

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification.core.errors import UserError
from image_classification.core.tensorflow_log import quiet_start
from image_classification.serving.artifact import Artifact

BATCH = 64  # images at once: more are no faster, and take more memory
UNPACKED = 2**32  # bytes of a SavedModel, the most


class Engine:
    """A model that is ready to predict. It uses one thread, and only one thread may call it."""

    def __init__(self, artifact: Artifact) -> None:
        """Load the model of an artifact.

        Raises:
            UserError: its file does not fit its engine, or its engine is not installed.
        """
        self.artifact = artifact
        load = _load_litert if artifact.engine == "litert" else _load_saved_model
        try:
            with quiet_start():
                self._run = load(artifact.file)
        except ImportError as error:
            raise UserError(
                f"{artifact.file} needs the package {error.name}: install it: "
                "`pip install 'image-classification[serve]'`"
            ) from error
        except (ValueError, RuntimeError, OSError, zipfile.BadZipFile) as error:
            cause = " ".join(str(error).split())[:200]
            hint = f"run `image-classification export {artifact.key}`"
            raise UserError(f"{artifact.file} can't be loaded ({cause}): {hint}") from error

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The model's probabilities for each image.

        Args:
            images: uint8 (n, height, width, channels), 0 to 255, of the artifact's shape.

        Returns:
            float32 (n, classes), rows that sum to 1.

        Raises:
            ValueError: the images have another type or shape.
        """
        shape = self.artifact.image_shape
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise ValueError(f"images {images.dtype} {images.shape}, expected uint8 (n, *{shape})")
        parts = [self._run(images[at : at + BATCH]) for at in range(0, len(images), BATCH)]
        if not parts:
            return np.empty((0, len(self.artifact.classes)), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _load_litert(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
    (input_details,) = interpreter.get_input_details()
    (output_details,) = interpreter.get_output_details()
    input_index, kind = input_details["index"], input_details["dtype"]
    output_index = output_details["index"]
    shape: tuple[int, ...] = ()

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        nonlocal shape
        if images.shape != shape:
            shape = ()  # of a tensor that could not be allocated
            interpreter.resize_tensor_input(input_index, images.shape)
            interpreter.allocate_tensors()
            shape = images.shape
        interpreter.set_tensor(input_index, images.astype(kind, copy=False))
        interpreter.invoke()
        found: NDArray[np.float32] = interpreter.get_tensor(output_index)
        return found

    interpreter.allocate_tensors()
    return run


def _load_saved_model(path: Path) -> Any:
    """Load a SavedModel from an archive whose contents are those that were exported."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > UNPACKED:
            raise ValueError(f"larger than {UNPACKED} bytes")
        archive.extractall(scratch)
        loaded = tf.saved_model.load(scratch)

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = loaded.serve(images).numpy()
        return found

    return run
