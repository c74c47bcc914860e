"""A project with artifacts and records, and a server that runs in it, for these tests."""

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from conftest import ROOT, TOOLS, fixed_params
from numpy.typing import NDArray

from image_classification.core import paths
from image_classification.promotion import records
from image_classification.promotion.records import JudgedRun, Record
from image_classification.serving import artifact
from image_classification.serving.artifact import Artifact

NAME = "mnist"
STRAIGHT, REVERSED = "a" * 32, "b" * 32  # the keys of two runs
RUNS = {STRAIGHT: "straight", REVERSED: "reversed"}  # and their models
STARTUP_SECONDS = 60
TAKEOVER_SECONDS = 120


def striped(place: int) -> NDArray[np.uint8]:
    """A black image with a bright stripe in one of ten places; STRAIGHT answers with its number."""
    image = np.zeros((28, 28, 1), np.uint8)
    image[:, 2 * place + 4 : 2 * place + 6] = 255
    return image


def make_artifacts(folder: Path) -> None:
    """The artifacts of two models: one tells the place of the stripe, the other counts back."""
    import keras  # seconds, which only the tests with a server need

    from image_classification.serving import conversion

    for version, (key, model) in enumerate(RUNS.items(), start=1):
        weights = np.zeros((28, 28, 10), np.float32)
        for place in range(10):
            said = place if key == STRAIGHT else 9 - place
            weights[:, 2 * place + 4 : 2 * place + 6, said] = 0.3
        layer = keras.layers.Dense(10, activation="softmax")
        layers = (keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), layer)
        net = keras.Sequential([keras.Input((28, 28, 1), dtype="uint8"), *layers])
        layer.set_weights([weights.reshape(784, 10), np.zeros(10, np.float32)])
        images = np.stack([striped(place) for place in range(10)])
        values: dict[str, Any] = {
            **{"name": NAME, "model": model, "run": f"{model}-0", "key": key, "version": version},
            **{"classes": [str(digit) for digit in range(10)], "image_shape": (28, 28, 1)},
            **{"resize": "pad", "normalise": True, "engine": "", "sha256": "", "checked": {}},
            **{"weights_sha256": key[0] * 64, "folder": folder / key},
        }
        described = Artifact(**values)
        (folder / key).mkdir()
        artifact.write(conversion.convert(net, described, images))


def project(root: Path, artifacts: Path, **changes: Any) -> Path:
    """A project in which both are exported, and compared, but none is promoted."""
    shutil.copytree(ROOT / paths.CONF, root / paths.CONF)
    (root / paths.PARAMS).write_text(yaml.safe_dump(fixed_params(NAME, ["lm"])))
    shutil.copytree(artifacts, root / paths.EXPORTED)
    board = [{"model": model, "seed": 0, "run": key} for key, model in RUNS.items()]
    (root / paths.REPORTS).mkdir()
    (root / "reports/leaderboard.json").write_text(json.dumps(board))
    for key in RUNS:
        described = artifact.read(root / paths.EXPORTED / key)
        artifact.write(replace(described, **changes))
    return root


def promote(root: Path, key: str, **changes: Any) -> None:
    """Write what `promote` writes, about the run with this key."""
    model = RUNS.get(key, "other")
    judged: dict[str, Any] = {
        **{"run": f"{model}-0", "model": model, "key": key, "version": None},
        **{"sha256": "", "weights_sha256": key[0] * 64, "data": ""},
        "split": {"seed": 42, "split_per_seed": False, "folds": None},
        **changes,
    }
    numbers = {"to": dict.fromkeys(records.NUMBERS, 1)}
    values: dict[str, Any] = {"who": "", "command": "", "reason": "test", "numbers": numbers}
    record = Record(
        records.now(), decision=records.PROMOTED, to=JudgedRun(**judged), from_=None, **values
    )
    with contextlib.chdir(root):
        records.append(NAME, record)


def copy_artifact(root: Path, key: str, new: str) -> Path:
    """Export the model of a run once more, as another run's; the folder."""
    source, target = root / paths.EXPORTED / key, root / paths.EXPORTED / new
    shutil.copytree(source, target)
    described = replace(
        artifact.read(target), key=new, weights_sha256=new[0] * 64, run=f"{new[:4]}-0"
    )
    artifact.write(described)
    return target


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def said(self) -> str:
        """The class of the first image."""
        assert self.status == 200, self.body
        return str(self.json["predictions"][0]["class"])


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: bytes | None = None, kind: str = "", method: str = "") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": kind} if kind else {}
        with contextlib.closing(connection):
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, headers, answer.read())

    def predict(self, image: NDArray[np.uint8]) -> Answer:
        return self.ask("/predict", image.tobytes(), "application/octet-stream")

    def metric(self, name: str) -> float:
        page = self.ask("/metrics").body.decode()
        (value,) = re.findall(rf"^image_classification_{re.escape(name)} (\S+)$", page, re.M)
        return float(value)

    def wait_for_log(self, text: str) -> None:
        deadline = time.monotonic() + TAKEOVER_SECONDS
        while not re.search(text, self.log.read_text()):
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "image_classification", "serve", *words]


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in TOOLS}
    return {**kept, "PYTHONPATH": str(ROOT / "src")}


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Server]:
    """A server in a project, on a port that the system chooses; it ends with the block."""
    log = root / "log.txt"
    with log.open("a") as output:
        process = subprocess.Popen(
            command("--port", "0"),
            cwd=root,
            env=environment(),
            stdout=output,
            stderr=output,
            text=True,
        )
    server = Server(process, 0, log)
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        server.port = int(found[1])
        yield server
    finally:
        process.kill()
        process.wait()
