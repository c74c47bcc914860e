"""Stage `download`: the data set's files, from the first mirror that has them, in data/raw/."""

import sys
from pathlib import Path

from image_classification.core import paths, readers
from image_classification.core.config import Config, FileConfig
from image_classification.core.errors import UserError, without_login
from image_classification.core.files import sha256
from image_classification.formats.listing import LISTING, write_listing
from image_classification.sources.mirrors import (
    READING_ERRORS,
    MirrorError,
    fetch_file,
    open_mirror,
)


def main(config: Config) -> None:
    """Download a data set."""
    download(config)


def download(config: Config) -> dict[str, Path]:
    """Fetch the files that are missing, trying one mirror after another; list the user's own.

    Returns:
        The files by their role: train_images, train_labels, test_images, test_labels. Or, for the
        user's own data, `files`: the list of them.

    Raises:
        UserError: no mirror had all the files; says why, for each mirror. Or the data set's file
            has kept a hash of another data set.
    """
    paths.RAW.mkdir(parents=True, exist_ok=True)
    if config.data.kind != "idx":
        count = write_listing(config.data, paths.RAW / LISTING)
        print(f"{count:,} files at {config.data.path}; they stay there")
        return {"files": paths.RAW / LISTING}
    _require_own_files(config)
    failures = []
    for mirror in config.data.mirrors:
        missing = _missing(config)
        if not missing:
            break
        try:
            with open_mirror(mirror) as fetch:
                for file in missing:
                    fetch_file(fetch, file, paths.RAW)
        except (MirrorError, *READING_ERRORS) as error:
            cause = " ".join(without_login(str(error)).split())[:200]
            failures.append(f"{without_login(mirror)}: {cause}")
            print(f"mirror failed: {failures[-1]}", file=sys.stderr)
    missing = _missing(config)
    if missing:
        names = ", ".join(file.name for file in missing)
        raise UserError(
            f"no mirror in {paths.CONF}/data/{config.data.name}.yaml has {names}. "
            + "; ".join(failures or ["it lists none"])
        )
    return {role: paths.RAW / file.name for role, file in config.data.files.items()}


def _require_own_files(config: Config) -> None:
    """Refuse hashes copied from another data set's file: its data would be used unnoticed.

    Another split of the same data has the same files and mirrors, and is allowed.
    """
    files = {role: vars(file) for role, file in config.data.files.items()}
    hashes = {file.sha256 for file in config.data.files.values()}
    place = paths.CONF / "data"
    for path in sorted(place.glob("*.yaml")):
        if path.stem == config.data.name:
            continue
        other = readers.read_mapping(path, "fix it or remove it")
        if (other.get("files"), other.get("mirrors")) == (files, config.data.mirrors):
            continue
        others = other.get("files")
        for role, file in others.items() if isinstance(others, dict) else ():
            if isinstance(file, dict) and file.get("sha256") in hashes:
                raise UserError(
                    f"{place}/{config.data.name}.yaml has the SHA-256 of {role} in {path}: give "
                    "those of your own files (`sha256sum FILE`), or, for another split of the same "
                    "data, the same files and mirrors"
                )


def _missing(config: Config) -> list[FileConfig]:
    """The files that are not in data/raw/ with the right contents."""
    return [
        file
        for file in config.data.files.values()
        if not (paths.RAW / file.name).is_file() or sha256(paths.RAW / file.name) != file.sha256
    ]
