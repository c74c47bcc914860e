"""The files of a user's own data: their names, sizes and hashes."""

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.core.files import sha256

LISTING = "files.csv"  # in data/raw/
MANY = 1000  # from this many files on, hashing shows its progress


def visible_files(path: Path) -> Iterator[Path]:
    """The file itself, or the regular files below the folder, but for hidden ones, in order.

    Raises:
        UserError: a folder can't be read, or a link leads back to a folder above it.
    """
    if path.is_file():
        yield path
        return
    for folder, inner, files in os.walk(path, onerror=_refuse, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for link in (each for name in inner if (each := Path(folder) / name).is_symlink()):
            if any(above.resolve().is_relative_to(link.resolve()) for above in link.parents):
                raise UserError(f"{link} leads back to a folder that it is in: remove this link")
        for name in sorted(files):
            if not name.startswith(".") and (Path(folder) / name).is_file():
                yield Path(folder) / name


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename} can't be read: {error.strerror}: fix it") from error


def require_path(data: DataConfig) -> Path:
    """Where the data is.

    Raises:
        UserError: there is nothing.
    """
    path = Path(data.path)
    if not path.exists():
        raise UserError(f"data.path: {path} is missing: set it to where your images are")
    if next(visible_files(path), None) is None:
        raise UserError(f"data.path: {path} holds no file: set it to where your images are")
    return path


def write_listing(data: DataConfig, target: Path) -> int:
    """List name, bytes and SHA-256 of every file, as CSV; the files stay where they are.

    Returns:
        The number of files.

    Raises:
        UserError: there is none, or one can't be read, or is in a folder that DVC overlooks.
    """
    root = require_path(data)
    files = list(visible_files(root))
    for folder in {above for path in files for above in path.relative_to(root).parents}:
        if (root / folder).is_symlink() and root / folder != root:
            raise UserError(
                f"{root / folder} is a link to a folder, in which DVC would see no change: put the "
                "folder itself there"
            )
    with target.open("w", newline="") as stream:
        # Quoted, since a name may hold a carriage return, which ends a line for the reader.
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(["file", "bytes", "sha256"])
        hidden = len(files) < MANY or not sys.stderr.isatty()
        for path in tqdm(files, "hashing", unit=" files", disable=hidden):
            name = path.name if path == root else path.relative_to(root)
            try:
                writer.writerow([name, path.stat().st_size, sha256(path)])
            except OSError as error:
                raise UserError(f"{path} can't be read: {error.strerror}: fix it") from error
            except UnicodeEncodeError as error:
                raise UserError(f"{str(path)!a}: its name is not UTF-8: rename it") from error
    return len(files)


def require_listed(data: DataConfig, folder: Path) -> None:
    """Check that the files are those that were listed, by name and size.

    Raises:
        UserError: there is no list, or the files have changed since.
    """
    root, listing = require_path(data), folder / LISTING
    if not listing.is_file():
        raise UserError(f"{listing} is missing: run `dvc repro download`")
    with listing.open(newline="") as stream:
        listed = {(row["file"], row["bytes"]) for row in csv.DictReader(stream)}
    for path in visible_files(root):
        name = path.name if path == root else str(path.relative_to(root))
        entry = (name, str(path.stat().st_size))
        if entry not in listed:
            raise UserError(f"{path} has changed since it was listed: run `dvc repro`")
        listed.remove(entry)
    if listed:
        raise UserError(f"{root}: {min(listed)[0]} is gone since it was listed: run `dvc repro`")
