"""The real configuration, shrunk; a tiny data set; a project to run whole commands in."""

import contextlib
import gzip
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from playwright.sync_api import Browser, sync_playwright

from image_classification import config as configuration
from image_classification import dataset, paths, store
from image_classification.config import Config
from image_classification.dataset import Examples

ROOT = Path(__file__).parent.parent
Compose = Callable[..., Config]

# Set by MLflow and DVC for what they start: here each project stands for itself.
TOOLS = ("DVC_ROOT", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI")
for variable in TOOLS:
    os.environ.pop(variable, None)


@pytest.fixture(autouse=True)
def no_store_from_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow writes the store it is told into the environment; pytest takes it back afterwards."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")


@pytest.fixture
def compose() -> Iterator[Compose]:
    """The real conf/ and params.yaml with these overrides, as a stage gets them."""

    def compose_real(*overrides: str) -> Config:
        with contextlib.chdir(ROOT):
            return configuration.compose(*overrides)

    yield compose_real
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


def tiny_examples(count: int, seed: int) -> Examples:
    """Images whose class is the place of a bright square, noisy enough to leave some mistakes."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 10, count, dtype=np.uint8)
    images = generator.integers(0, 120, (count, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 5)
        image[4 + 12 * row : 10 + 12 * row, 1 + 5 * column : 6 + 5 * column] += 60
    return Examples(images, labels)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.tobytes())


@dataclass(frozen=True)
class Mirror:
    """A site's own copy of the tiny data set, gzipped, and what conf/data/ says of it."""

    folder: Path
    description: dict[str, object]


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    folder = tmp_path_factory.mktemp("mirror")
    train, test = tiny_examples(600, seed=1), tiny_examples(200, seed=2)
    arrays = {
        "train_images": ("train-images-idx3-ubyte", train.images[..., 0]),
        "train_labels": ("train-labels-idx1-ubyte", train.labels),
        "test_images": ("t10k-images-idx3-ubyte", test.images[..., 0]),
        "test_labels": ("t10k-labels-idx1-ubyte", test.labels),
    }
    files = {}
    for role, (name, array) in arrays.items():
        write_idx(folder / name, array)
        contents = (folder / name).read_bytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(contents))
        files[role] = {"name": name, "sha256": hashlib.sha256(contents).hexdigest()}
    description = yaml.safe_load((ROOT / "conf/data/mnist.yaml").read_text())
    description |= {
        "files": files,
        "mirrors": [f"file://{folder}/{{name}}.gz"],
        "validation_examples": 100,
    }
    return Mirror(folder, description)


@dataclass(frozen=True)
class Project:
    """A copy of this project, as a commit of its own, with the tiny data set as its data."""

    root: Path

    def environment(self, **variables: str) -> dict[str, str]:
        """The variables that its commands run under."""
        inherited = {key: value for key, value in os.environ.items() if key not in TOOLS}
        return {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": "src",
            **variables,
        }

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in the project and return what it said."""
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )

    def must(self, *command: str, **variables: str) -> str:
        """Run a command that has to succeed; what it printed."""
        done = self.run(*command, **variables)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def restore(self) -> None:
        """Take back every edit of tracked files but dvc.lock and what stages measured."""
        self.must("git", "checkout", "--quiet", "--", "conf", "src", "params.yaml", "dvc.yaml")


def copy_project(root: Path) -> Project:
    """Copy what git would commit, with the real configuration, into a repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(
            ("reports/", "evaluations/", "dvc.lock")
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    return Project(root)


def commit(project: Project) -> None:
    project.must("git", "init", "--quiet")
    project.must("git", "config", "user.name", "Test")
    project.must("git", "config", "user.email", "test@example.com")
    project.must("git", "add", "--all")
    project.must("git", "commit", "--quiet", "--message", "start")


def tiny_project(root: Path, mirror: Mirror) -> Project:
    project = copy_project(root)
    (root / "conf/data/tiny.yaml").write_text(yaml.safe_dump(mirror.description))
    project.edit("params.yaml", "name: mnist  # conf/data/mnist.yaml", "name: tiny")
    project.edit("params.yaml", "models: [lm, nn, dnn, dnnd, cnn, dcnn]", "models: [lm, cnn]")
    project.edit("params.yaml", "epochs: null", "epochs: 2")
    commit(project)
    return project


class TrackingServer:
    """An MLflow server with a store of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                    *("--host", "127.0.0.1", "--port", str(self.port)),
                    *("--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"),
                    *("--artifacts-destination", str(self.folder / "artifacts")),
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,  # its workers are processes of their own: they die with it
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.address}/health", timeout=2).close()
                return
            time.sleep(0.1)
        raise TimeoutError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        """End it as a loss of power would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A folder with a tracking store, for the tests of a module."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copy(empty_store, folder)
    return folder


@pytest.fixture
def workspace(shared_folder: Path, monkeypatch: pytest.MonkeyPatch, compose: Compose) -> Path:
    """The tiny data set, split, where the stages look for it."""
    monkeypatch.chdir(shared_folder)
    parts = {
        "train": tiny_examples(500, 1),
        "validation": tiny_examples(100, 2),
        "test": tiny_examples(200, 3),
    }
    dataset.save_split(paths.SPLIT, parts, dataset.origin(compose().data))
    return shared_folder


def chromium() -> str | None:
    """The system's Chromium, which root gets installed on the way."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", *command], capture_output=True, timeout=240, check=False)
        found = shutil.which("chromium")
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium here, and none could be installed: apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh mlflow.db, to be copied: to make one takes seconds."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    store._initialise(database)
    return database


@pytest.fixture
def project(tmp_path: Path, mirror: Mirror) -> Project:
    """A fresh project on the tiny data set; nothing has run in it."""
    return tiny_project(tmp_path, mirror)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, mirror: Mirror) -> Project:
    """A project on the tiny data set in which `dvc repro` has run; tests leave it as it is."""
    project = tiny_project(tmp_path_factory.mktemp("trained"), mirror)
    project.must("dvc", "repro")
    project.must("git", "add", "--all")
    project.must("git", "commit", "--quiet", "--message", "measured")
    shutil.copy(project.root / "mlflow.db", project.root / "mlflow.db.first")  # tests add runs
    return project
