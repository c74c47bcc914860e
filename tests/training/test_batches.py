import numpy as np
from conftest import tiny_examples
from numpy.typing import NDArray

from image_classification.data.arrays import Examples
from image_classification.training.batches import BatchGroups, batches

EXAMPLES = tiny_examples(50, seed=0)


def in_order(groups: list[Examples]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images and labels of groups, one after the other."""
    return (
        np.concatenate([group.images for group in groups]),
        np.concatenate([group.labels for group in groups]),
    )


def test_an_epoch_is_every_example_once_in_its_order() -> None:
    groups = BatchGroups(EXAMPLES, batch_size=7, steps=3, seed=3)
    epochs = [list(groups.epoch(epoch)) for epoch in range(3)]

    assert [len(labels) for _, labels in epochs[0]] == [21, 21, 7, 1]
    assert (len(groups), groups.steps_per_epoch) == (4, 8)
    for epoch, found in enumerate(epochs):
        order = np.random.default_rng([3, epoch]).permutation(50)
        images, labels = in_order(found)
        assert np.array_equal(images, EXAMPLES.images[order])
        assert np.array_equal(labels, EXAMPLES.labels[order])


def test_batches_in_order_hold_every_example_once() -> None:
    found = [Examples(*map(np.asarray, batch)) for batch in batches(EXAMPLES, 20)]

    assert [len(labels) for _, labels in found] == [20, 20, 10]
    images, labels = in_order(found)
    assert np.array_equal(images, EXAMPLES.images)
    assert np.array_equal(labels, EXAMPLES.labels)


def test_batches_that_are_all_full_leave_no_rest() -> None:
    groups = BatchGroups(EXAMPLES, batch_size=10, steps=2, seed=3)

    assert [len(labels) for _, labels in groups.epoch(0)] == [20, 20, 10]
    assert (len(groups), groups.steps_per_epoch) == (3, 5)


def test_groups_are_of_one_size_if_that_keeps_them_more_than_half_as_large() -> None:
    def sizes(batch_size: int, steps: int) -> list[int]:
        groups = BatchGroups(EXAMPLES, batch_size, steps, seed=3)
        return [len(labels) for _, labels in groups.epoch(0)]

    assert sizes(batch_size=5, steps=4) == [20, 20, 10]  # 2 divides 10 batches, but is half of 4
    assert sizes(batch_size=5, steps=7) == [25, 25]
    assert sizes(batch_size=7, steps=6) == [42, 7, 1]  # 7 batches can't be divided
    assert sizes(batch_size=8, steps=4) == [24, 24, 2]  # 6 batches
    assert sizes(batch_size=60, steps=4) == [50]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {
        bytes(BatchGroups(EXAMPLES, batch_size, steps, seed).order(epoch))
        for batch_size, steps, seed, epoch in (
            *((8, 2, 1, 4), (7, 3, 1, 4)),  # the same order
            *((8, 2, 2, 4), (8, 2, 1, 5)),
        )
    }

    assert len(orders) == 3


def test_tensorflow_gets_the_groups_of_the_epochs_that_are_left() -> None:
    groups = BatchGroups(EXAMPLES, batch_size=8, steps=2, seed=3)
    found = [Examples(*group) for group in groups.dataset(range(1, 3)).as_numpy_iterator()]

    expected = [*groups.epoch(1), *groups.epoch(2)]
    assert [len(group.labels) for group in found] == [len(group.labels) for group in expected]
    for one, two in zip(in_order(found), in_order(expected), strict=True):
        assert one.dtype == np.uint8
        assert np.array_equal(one, two)


def test_tensorflow_tunes_nothing_since_its_thread_holds_up_the_end_of_every_other_fit() -> None:
    groups = BatchGroups(EXAMPLES, batch_size=8, steps=2, seed=3)

    for dataset in (groups.dataset(range(1)), batches(EXAMPLES, 20)):
        assert dataset.options().autotune.enabled is False
