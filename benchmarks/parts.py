"""The parts of a benchmark, measured one after the other, and how long the rest will take."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from kept import Kept
from tqdm import tqdm


@dataclass(frozen=True)
class Part:
    """A part of what is measured."""

    title: str
    seconds: float  # that it should take
    measure: Callable[[], list[str]]  # which returns lines of the page


def headed(head: list[str], rows: Sequence[Part]) -> list[Part]:
    """Put the head of a table before what the first part measures."""
    first = rows[0]
    return [replace(first, measure=lambda: [*head, *first.measure()]), *rows[1:]]


def measure_in_turn(parts: Sequence[Part], kept: Kept) -> Iterator[list[str]]:
    """Measure each part; print its number of how many, and how long the rest will take."""
    expected = [part.seconds for part in parts]
    for done, part in enumerate(parts):
        left = tqdm.format_interval(seconds_left(expected, done, kept.spent, kept.waiting))
        times = f"{tqdm.format_interval(kept.spent)} so far, about {left} left"
        print(f"part {done + 1} of {len(parts)}: {part.title} ({times})", file=sys.stderr)
        yield part.measure()


def seconds_left(expected: Sequence[float], done: int, spent: float, ahead: float = 0.0) -> float:
    """The expected seconds of the parts to come, scaled by what those done took of theirs.

    Args:
        expected: seconds of each part.
        done: how many parts are done.
        spent: seconds that these took, by whichever call.
        ahead: seconds that an earlier call has already spent on the parts to come.
    """
    pace = spent / sum(expected[:done]) if done else 1.0
    return max(0.0, pace * sum(expected[done:]) - ahead)
