"""Files that get their names only when they are whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image_classification.errors import UserError

PART = ".part"  # .gitignore and .dvcignore know it too: a killed stage leaves it


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder; each file in it gets its place in `folder` when the block ends well.

    An error, a signal or a kill in the block leaves `folder` as it was; one while files get their
    places may leave some new and some old, each of them whole.

    Raises:
        UserError: the folder can't be written, or the disk is full.
    """
    part = folder / PART
    try:
        if part.exists():  # what a killed process left
            shutil.rmtree(part)
        part.mkdir(parents=True)
        yield part
        written = [path for path in sorted(part.rglob("*")) if path.is_file()]
        for path in written:
            to_disk(path)
        for path in written:
            target = folder / path.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        to_disk(folder)
    except OSError as error:
        if error.filename is None or str(part) in str(error.filename):
            cause = (
                error.strerror or f"{error}: No space left on device"
            )  # NumPy has no words for it
            raise UserError(f"{folder} can't be written: {cause}: mend that and repeat") from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def to_disk(path: Path) -> None:
    """Have a file's contents, or a folder's names, outlast a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
