"""What is left out of TensorFlow's first lines, and what is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from image_classification.core import tensorflow_log

# As TensorFlow 2.21 prints them on a machine without a GPU.
NOISE = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795520859.458506   23263 port.cc:153] oneDNN custom operations are on. You may see
I0000 00:00:1795520859.458858   23263 cudart_stub.cc:31] Could not find cuda drivers on your machine
E0000 00:00:1795520864.614346   23263 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA
"""
FAULT = (
    "E0000 00:00:1795520864.614346   23263 executor.cc:1] something is wrong\nterminate called\n"
)


@pytest.mark.parametrize("gpu", [False, True])
def test_a_failing_gpu_and_every_error_are_shown(
    gpu: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tensorflow_log, "has_gpu", lambda: gpu)

    with tensorflow_log.quiet_start():
        os.write(2, (NOISE + FAULT).encode())

    assert capfd.readouterr().err == (NOISE + FAULT if gpu else FAULT)


def test_what_was_printed_before_an_exception_is_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tensorflow_log, "has_gpu", lambda: False)

    def fail() -> None:
        with tensorflow_log.quiet_start():
            os.write(2, FAULT.encode())
            raise ImportError

    with pytest.raises(ImportError):
        fail()

    assert capfd.readouterr().err == FAULT


@pytest.mark.parametrize(("name", "expected"), [("nvidia0", True), ("nvidiactl", False)])
def test_a_gpu_is_a_device(tmp_path: Path, name: str, expected: bool) -> None:
    (tmp_path / name).touch()

    assert tensorflow_log.has_gpu(tmp_path) == expected


PREDICTIONS = """
import sys, keras, numpy as np, tensorflow as tf
from image_classification.core.tensorflow_log import leave_out_advice_on_tracing
from image_classification.models.prediction import predict

def predict_with_new_models():
    for _ in range(4):
        model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
        predict(model, np.zeros((1234, 2, 2, 1), np.uint8))

predict_with_new_models()
print("left out from here", file=sys.stderr, flush=True)
leave_out_advice_on_tracing()
predict_with_new_models()
tf.get_logger().warning("something else")
"""


@pytest.mark.slow
def test_predictions_of_many_models_print_no_advice() -> None:
    """A sweep predicts with new models all the time; other warnings are shown."""
    done = subprocess.run(
        [sys.executable, "-c", PREDICTIONS], capture_output=True, text=True, check=True
    )

    before, after = done.stderr.split("left out from here")
    assert "triggered tf.function retracing" in before  # or TensorFlow has changed
    assert "triggered tf.function retracing" not in after
    assert "something else" in after
