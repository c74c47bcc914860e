"""Which example goes into which part: arrays in, arrays out.

A unit is a set of examples that must stay together, of one group or with the same pixels.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def units(*keys: Sequence[object]) -> Indices:
    """Number the sets of examples that are connected by equal keys.

    Args:
        keys: of each example, several times; None connects nothing.

    Returns:
        (examples,), from 0, in the order in which units begin.
    """
    count = len(keys[0])
    first: dict[tuple[int, object], int] = {}
    links = [
        (index, first.setdefault((kind, key), index))
        for kind, values in enumerate(keys)
        for index, key in enumerate(values)
        if key is not None
    ]
    rows, columns = zip(*links, strict=True) if links else ((), ())
    graph = scipy.sparse.coo_array((np.ones(len(rows), bool), (rows, columns)), (count, count))
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return _renumbered(labels)


def _renumbered(units: Indices) -> Indices:
    """The same units, numbered from 0 in the order in which they begin."""
    _, starts, inverse = np.unique(units, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(starts))[inverse].astype(np.int64)


def quotas(counts: Sequence[int], shares: Sequence[float]) -> Indices:
    """How many examples of each class go into each part.

    Each part has its share of all examples, and of each class, to within one example; but at least
    one example of each class that has enough for all parts, taken from the last part if possible.

    Args:
        counts: of the examples of each class.
        shares: of the parts, from 0 to 1; what they leave is for the last part.

    Returns:
        (parts + 1, classes).
    """
    ends = np.concatenate([[0], np.cumsum(counts)])
    bounds = [np.zeros(len(ends)), *(np.rint(ends * share) for share in np.cumsum(shares)), ends]
    wanted = np.diff(np.diff(np.array(bounds), axis=0), axis=1).astype(np.int64)
    for number, count in enumerate(counts):
        parts = wanted[:, number]
        while count >= len(parts) and parts.min() < 1:
            lacking = parts.argmin()
            parts[-1 if parts[-1] > 1 else parts.argmax()] -= 1
            parts[lacking] += 1
    return wanted


def assign(labels: Indices, units: Indices, wanted: Indices, seed: int) -> Indices:
    """Assign each unit to a part as a whole, at random, so that each part gets what is wanted.

    First the units of several examples, largest first, each to the part that lacks most of what it
    holds; then single examples fill up what is left. With single examples only, the parts come to
    exactly what is wanted.

    Args:
        labels: (examples,), classes from 0.
        units: (examples,), from the function of that name, or some of them; only which examples
            share a number counts.
        wanted: (parts, classes), from `quotas`.
        seed: the same gives the same parts.

    Returns:
        (examples,), parts from 0.
    """
    units = _renumbered(units)
    generator = np.random.default_rng(seed)
    left = wanted.copy()
    parts = np.full(len(labels), len(wanted) - 1, np.int64)
    sizes = np.bincount(units)
    order = generator.permutation(len(sizes))
    members = np.split(np.argsort(units, kind="stable"), np.cumsum(sizes)[:-1])
    for unit in sorted(order[sizes[order] > 1], key=lambda unit: -sizes[unit]):
        holds = np.bincount(labels[members[unit]], minlength=left.shape[1])
        part = int((left @ holds).argmax())
        parts[members[unit]] = part
        left[part] -= holds
    single = np.concatenate([[], *(members[unit] for unit in order if sizes[unit] == 1)])
    single = single.astype(np.int64)
    for number in range(left.shape[1]):
        rest = single[labels[single] == number]
        for part, lacking in enumerate(left[:-1, number]):
            chosen, rest = np.split(rest, [max(0, min(int(lacking), len(rest)))])
            parts[chosen] = part
    return parts
