"""What TensorFlow keeps of a training for as long as the process lives, which a sweep adds up."""

import gc
import sys

TRACED = "CustomGradient-"  # begins the names of gradients that tracing registers, one a training


def forget_graphs() -> None:
    """Let go of the graphs of finished trainings, and with them of their data; none may go on.

    Keras' optimizers trace a gradient of their own, which TensorFlow registers for good, and which
    refers to the whole graph (https://github.com/tensorflow/tensorflow/issues/97697).
    """
    operations = sys.modules.get("tensorflow.python.framework.ops")
    if operations is None:  # the job has trained nothing
        return
    registered = operations.gradient_registry._registry
    for name in [name for name in registered if name.startswith(TRACED)]:
        del registered[name]
    gc.collect()  # models and graphs refer to themselves, and to collect is left to chance else
