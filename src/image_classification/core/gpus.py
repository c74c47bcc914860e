"""A GPU for each process of a sweep."""

import itertools
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

DEVICES = Path("/dev")
_slot: FileLock | None = None  # held until this process ends


def take_gpu(folder: Path) -> None:
    """Restrict this process to one GPU, if it sees several, until it ends.

    Processes of one sweep share a GPU only where there are more of them than GPUs.

    Args:
        folder: of the sweep, for the locks that assign its processes to GPUs.
    """
    global _slot
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(number) for number, _ in enumerate(DEVICES.glob("nvidia[0-9]*"))]
    gpus = gpus if named is None else named.split(",")
    if len(gpus) < 2:  # as after the first job of this process
        return
    for number in itertools.count():
        with suppress(Timeout):  # another process has this slot
            _slot = FileLock(folder / f"slot-{number}")
            _slot.acquire(blocking=False)
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
            return
