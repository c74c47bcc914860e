"""Memory of finished trainings that TensorFlow never frees, and that adds up in a sweep."""

import gc
import sys

TRACED = "CustomGradient-"  # prefix of the gradients that tracing registers, one per training


def forget_graphs() -> None:
    """Free the graphs of finished trainings, and with them their data; none may be running.

    Keras' optimizers trace a gradient of their own, which TensorFlow registers for good, and which
    refers to the whole graph (https://github.com/tensorflow/tensorflow/issues/97697).
    """
    operations = sys.modules.get("tensorflow.python.framework.ops")
    if operations is None:  # the job has trained nothing
        return
    registered = operations.gradient_registry._registry
    for name in [name for name in registered if name.startswith(TRACED)]:
        del registered[name]
    gc.collect()  # models and graphs hold reference cycles, otherwise collected only by chance
