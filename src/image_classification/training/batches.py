"""The batches of each epoch, in an order of its own."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from image_classification.data.arrays import Examples


class BatchGroups:
    """The batches of each epoch, many at a time, in an order drawn from (seed, epoch) alone.

    Keras' own seeded shuffle of arrays repeats one order in every epoch.
    """

    def __init__(self, examples: Examples, batch_size: int, steps: int, seed: int) -> None:
        """Group at most `steps` batches; a last, smaller batch is a group of its own.

        Both `batch_size` and `steps` are 1 or more, and `seed` is 0 or more.
        """
        self._examples = examples
        self._seed = seed
        count = len(examples.labels)
        whole = count - count % batch_size  # examples that fill batches
        size = _group_size(whole // batch_size, steps) * batch_size
        self._bounds = [*range(0, whole, size), whole]
        if whole < count:
            self._bounds.append(count)
        self.steps_per_epoch = -(-count // batch_size)

    def __len__(self) -> int:
        """How many groups an epoch has."""
        return len(self._bounds) - 1

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The indices of the examples in the order of an epoch, counted from 0."""
        generator = np.random.default_rng([self._seed, epoch])
        return generator.permutation(len(self._examples.labels))

    def epoch(self, epoch: int) -> Iterator[Examples]:
        """An epoch's groups, each the examples of its batches one after the other."""
        order = self.order(epoch)
        for start, end in pairwise(self._bounds):
            yield Examples(*(array[order[start:end]] for array in self._examples))

    def dataset(self, epochs: range) -> tf.data.Dataset:
        """The groups of these epochs."""
        return _dataset(
            self._examples, lambda: (group for epoch in epochs for group in self.epoch(epoch))
        )


def _group_size(batches: int, steps: int) -> int:
    """How many batches form a group: at most `steps`.

    The largest number that divides the batches, since each size of a group is compiled on its own;
    but `steps` if that is not more than half of it, since many small groups take longer.
    """
    even = max(
        (size for size in range(1, min(batches, steps) + 1) if batches % size == 0), default=0
    )
    return even if 2 * even > min(batches, steps) else steps


def batches(examples: Examples, size: int) -> tf.data.Dataset:
    """All examples in their order, read a batch at a time; the last batch may be smaller."""
    starts = range(0, len(examples.labels), size)
    read = _dataset(
        examples,
        lambda: (Examples(*(array[at : at + size] for array in examples)) for at in starts),
    )
    return read.apply(tf.data.experimental.assert_cardinality(len(starts)))  # else Keras warns


def _dataset(like: Examples, parts: Callable[[], Iterator[Examples]]) -> tf.data.Dataset:
    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in like)
    read = tf.data.Dataset.from_generator(lambda: map(tuple, parts()), output_signature=signature)
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread sleeps up to 60 s, and `fit` may wait for it
    return read.prefetch(1).with_options(options)
