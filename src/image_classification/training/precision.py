"""The precision that training steps compute in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from image_classification.core.backend import backend

# As Linux names them: Intel's AMX, AVX-512 of Intel and AMD, and Arm's.
NATIVE_BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}
PROCESSOR = Path("/proc/cpuinfo")


def usable_precision(wanted: str) -> str:
    """The precision wanted by `recipe.precision` if this machine has it natively, else float32."""
    if backend() == "jax" and not keras.distribution.list_devices()[0].startswith("cpu"):
        return wanted  # all accelerators that JAX uses have it
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        fast_bfloat16 = details.get("compute_capability", (0, 0)) >= (8, 0)  # Ampere and later
    else:
        fast_bfloat16 = PROCESSOR.exists() and has_native_bfloat16(PROCESSOR.read_text())
    return wanted if fast_bfloat16 else "float32"


def has_native_bfloat16(cpuinfo: str) -> bool:
    """Whether a processor computes in bfloat16 itself, by what /proc/cpuinfo says of it.

    Where it does not, TensorFlow emulates it, which takes longer than float32.
    """
    return not NATIVE_BFLOAT16.isdisjoint(cpuinfo.split())


@contextmanager
def computing_in(precision: str, layers: Sequence[keras.Layer]) -> Iterator[None]:
    """Make layers compute in a precision while they are traced; weights stay float32.

    Layers with a type of their own keep it, and so do layers within layers.
    """
    changed = [layer for layer in layers if layer.dtype_policy.name == "float32"]
    policy = precision if precision == "float32" else f"mixed_{precision}"
    for layer in changed:
        layer.dtype_policy = policy
    try:
        yield
    finally:
        for layer in changed:
            layer.dtype_policy = "float32"
