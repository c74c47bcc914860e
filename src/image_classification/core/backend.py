"""Keras' backend: TensorFlow, unless the variable KERAS_BACKEND names JAX."""

import json
import os
from importlib.metadata import version

from image_classification.core.errors import UserError

BACKENDS = ("tensorflow", "jax")


def backend() -> str:
    """The name of the backend; the package sets the variable where the user does not."""
    return os.environ["KERAS_BACKEND"]


def require_backend() -> None:
    """Check before any work that there is such a backend.

    Raises:
        UserError: there is none, or JAX is not installed.
    """
    if backend() not in BACKENDS:
        raise UserError(f"KERAS_BACKEND: must be {' or '.join(BACKENDS)}, got {backend():.50}")
    if backend() == "jax":
        try:
            version("jax")
        except ImportError as error:
            raise UserError(
                "KERAS_BACKEND: JAX is not installed: `uv pip install 'jax==0.10.*'`, or unset it"
            ) from error


def require_one_worker() -> None:
    """Check before any work that TensorFlow is not asked for what Keras can't do on it.

    Raises:
        UserError: TF_CONFIG names several workers, each of which would train a model of its own.
    """
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        workers = sum(map(len, cluster.values()))
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError("TF_CONFIG: not valid for TensorFlow: correct or unset it") from error
    if workers > 1 and backend() == "tensorflow":
        raise UserError(
            f"TF_CONFIG: names {workers} workers, but on TensorFlow Keras cannot train one model "
            "on several: unset it; docs/how-to/scale-out.md says what to do instead"
        )
