"""Suppresses what TensorFlow prints at its start and about new models, if it says nothing."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Written by C++ before TensorFlow reads TF_CPP_MIN_LOG_LEVEL, so no setting leaves them out.
SAYS_NOTHING = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|I0000 .* (port|cudart_stub|cpu_feature_guard)\.cc"
    rb"|To enable the following instructions: "
    rb"|E0000 .* failed call to cuInit"
    rb"|INFO: Created TensorFlow Lite XNNPACK delegate"
)
GPUS = ("nvidia[0-9]*", "dxg", "kfd")  # in /dev: NVIDIA's, those of Windows under WSL, AMD's


def leave_out_advice_on_tracing() -> None:
    """Suppress the warning about frequent retracing: every new model is traced."""
    logging.getLogger("tensorflow").addFilter(_is_other_advice)


def _is_other_advice(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in record.getMessage()


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether the machine has a GPU, whether or not TensorFlow can use it."""
    return any(True for name in GPUS for _ in devices.glob(name))


@contextmanager
def quiet_start() -> Iterator[None]:
    """Suppress such lines on stderr in the block, unless there is a GPU."""
    if has_gpu():
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with os.fdopen(os.memfd_create("stderr"), "w+b") as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            printed.seek(0)
            for line in printed:
                if not SAYS_NOTHING.match(line):
                    os.write(2, line)
