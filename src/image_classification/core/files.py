"""Files that get their names only when they are complete, and their checksums."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image_classification.core.errors import UserError

PART = ".part"  # .gitignore and .dvcignore know it too: a killed stage leaves it


@contextmanager
def atomic_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder whose files move into `folder` when the block succeeds.

    An error, a signal or a kill in the block leaves `folder` as it was; one during the move may
    leave some files new and some old, each of them complete.

    Args:
        folder: made when it is missing.
        replace: whether to remove the files that were there and are not written anew.

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
            sync_to_disk(path)
        for path in written:
            target = folder / path.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        if replace:
            for path in folder.iterdir():
                if path.is_file() and part / path.name not in written:
                    path.unlink()
        sync_to_disk(folder)
    except OSError as error:
        if error.filename is None or str(part) in str(error.filename):
            # NumPy gives no reason when the disk is full.
            cause = error.strerror or f"{error}: No space left on device"
            raise UserError(f"{folder} can't be written: {cause}: fix that and repeat") from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_empty(folder: Path) -> None:
    """Remove a folder that holds nothing, and those above it, up to the working folder."""
    for path in (folder, *folder.parents):
        if path == Path.cwd() or not folder.is_relative_to(Path.cwd()):
            return
        try:
            path.rmdir()
        except OSError:  # there is something in it
            return


def sync_to_disk(path: Path) -> None:
    """Make a file's contents, or a folder's names, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
