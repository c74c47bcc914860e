"""Where the time of a training step goes: TensorFlow's own profile of an epoch of `notebook`.

Prints milliseconds a step of each operation, the longest first; operations run beside each other
on several cores, so that they add up to more than the step.
"""

import argparse
import collections
import tempfile
from pathlib import Path

from image_classification.core import paths  # first: it sets what TensorFlow reads

# isort: split
import keras
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from image_classification.core.compose import compose
from image_classification.data.arrays import Examples, load_split
from image_classification.models.build import build
from image_classification.training.checkpoint import State
from image_classification.training.fit import fit


def milliseconds(folder: Path) -> dict[str, float]:
    """The time of each operation in a profile, all threads together."""
    (file,) = folder.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    total: dict[str, float] = collections.defaultdict(float)
    for plane in space.planes:
        for line in plane.lines if "CPU" in plane.name else ():
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if ":" in name:  # an operation, with its type
                    total[name] += event.duration_ps / 1e9
    return total


def main() -> None:
    """Profile the second epoch of one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--lines", type=int, default=20)
    options = parser.parse_args()
    config = compose(f"model={options.model}", "recipe=notebook", "recipe.epochs=2")
    split = load_split(paths.SPLIT)
    train = Examples(*(array[: options.examples] for array in split.train))
    hardly_any = Examples(*(array[:1] for array in split.validation))
    keras.utils.set_random_seed(0)
    model = build(config.model, split.image_shape, len(split.classes))
    with tempfile.TemporaryDirectory() as folder:

        def profile_the_second(state: State) -> None:
            if len(state.rows) == 1:
                tf.profiler.experimental.start(folder)
            else:
                tf.profiler.experimental.stop()

        rows = fit(
            *(model, config.recipe, 0),
            jit_compile=config.model.jit_compile,
            train=train,
            validation=hardly_any,
            state=None,
            save=profile_the_second,
        )
        spent = milliseconds(Path(folder))
    steps = -(-options.examples // config.recipe.batch_size)
    print(f"{rows[1]['epoch_seconds'] / steps * 1e3:8.3f} ms a step of {options.model}, of which")
    for name, value in sorted(spent.items(), key=lambda item: -item[1])[: options.lines]:
        print(f"{value / steps:8.3f} ms {name}")


if __name__ == "__main__":
    main()
