"""The real configuration with fixed parameters; a tiny data set; a project for whole commands.

What takes seconds to make (see `once`) is made once a session, whichever worker needs it first.
"""

import contextlib
import gc
import gzip
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from dvc.repo import Repo  # type: ignore[import-untyped]  # DVC has no types
from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from playwright.sync_api import Browser, sync_playwright
from xdist.scheduler import (  # type: ignore[import-untyped]  # it has no types
    LoadScopeScheduling,
)

from image_classification.core import compose as composing
from image_classification.core import paths
from image_classification.core.config import Config, RecipeConfig
from image_classification.data import arrays, fingerprint
from image_classification.data.arrays import Examples
from image_classification.serving import artifact
from image_classification.serving.artifact import Artifact
from image_classification.tracking import mlflow_store

ROOT = Path(__file__).parent.parent
Compose = Callable[..., Config]
Once = Callable[[str, Callable[[Path], object]], Path]

# A job in the background ignores Ctrl-C, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Set by MLflow, DVC and make for what they start: here each project stands for itself.
TOOLS = (
    *("DVC_ROOT", "MAKEFLAGS", "MAKELEVEL"),
    *("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"),
)
for variable in TOOLS:
    os.environ.pop(variable, None)

# The models that whole commands train: the smallest that have every kind of layer of the real ones.
TINY_MODELS = {
    "tiny_lm": {
        "family": "linear",
        "layers": {"flatten": {"type": "Flatten"}},
        "fast": {"epochs": 6, "batch_size": 128, "learning_rate": 0.003},
    },
    "tiny_cnn": {
        "family": "convolutional",
        "dropout": 0.25,
        "layers": {
            "convolution": {"type": "Conv2D", "filters": 4, "kernel_size": 3, "padding": "same"},
            "pooling": {"type": "MaxPooling2D", "pool_size": 4},
            "flatten": {"type": "Flatten"},
            "hidden": {"type": "Dense", "units": 16, "activation": "relu"},
            "dropout": {"type": "Dropout"},
        },
        "fast": {"epochs": 3, "batch_size": 128, "learning_rate": 0.004},
    },
}


# What starts a browser, a server or another long process stays in one worker, and so do tests
# that share fits or figures.
TOGETHER = {
    "tests/reporting/test_gallery.py": "gallery",
    "tests/reporting/test_report.py": "browser",
    "tests/stages/test_mlflow_ui.py": "browser",
    "tests/stages/test_outage.py": "server",
    "tests/tracking/test_pyfunc_loader.py": "loader",
    "tests/training/test_fit.py": "fit",
    "tests/training/test_phases.py": "phases",
    "tests/web/test_page.py": "browser",
    "tests/web/test_server.py": "server",
}


class Scheduler(LoadScopeScheduling):
    """Gives a worker one test at a time, but what belongs together at once.

    pytest-xdist's own `xdist_group` has no effect with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(nodeid.partition("::")[0], nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduler:
    return Scheduler(config, log)


def pytest_configure() -> None:
    gc.set_threshold(100_000)  # as commands do


def pytest_collection_finish() -> None:
    gc.freeze()  # statsmodels collects garbage at each call, and would traverse all modules


@pytest.hookimpl(trylast=True)  # when what `-m` leaves out is gone
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long tests first, so that short ones fill up the workers at the end."""

    def uses_trained(item: pytest.Item) -> bool:
        return "trained" in getattr(item, "fixturenames", ())

    def place(item: pytest.Item) -> int:
        return int(uses_trained(item)) if "stages" in item.path.parts else 2

    items.sort(key=place)
    # One worker makes `trained` from the start, or the other would wait for it later.
    first = next(filter(uses_trained, items), None)
    if first:
        items.remove(first)
        items.insert(0, first)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder that all workers of pytest-xdist share: gives its name and what fills it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, made = shared / name, shared / f"{name}.made"
        with FileLock(shared / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return make_once


@pytest.fixture(autouse=True)
def no_store_from_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow writes the store it is told into the environment; pytest takes it back afterwards."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")


def emptied(value: object) -> Any:
    """The same nested mappings with nulls for all values."""
    return {k: emptied(part) for k, part in value.items()} if isinstance(value, dict) else None


def fixed_params(data: str, models: list[str], **recipe: object) -> dict[str, Any]:
    """The real params.yaml with all its values replaced: tests do not depend on them."""
    params = emptied(yaml.safe_load((ROOT / paths.PARAMS).read_text()))
    params["models"], params["seeds"] = models, [0]
    params["data"]["name"] = data
    params["data"]["path"] = "images"  # DVC takes no null for a path
    params["recipe"] |= {"name": "fast", **recipe}
    params["augmentation"]["name"] = "by_model"
    params["promotion"]["name"] = "default"
    return dict(params)


@pytest.fixture(scope="session")
def configuration(once: Once) -> Path:
    """A folder with the real conf/, the tiny models, and a params.yaml that sets nothing."""

    def make(folder: Path) -> None:
        shutil.copytree(ROOT / paths.CONF, folder / paths.CONF)
        write_models(folder)
        params = fixed_params("mnist", ["lm", "nn", "dnn", "dnnd", "cnn", "dcnn"])
        (folder / paths.PARAMS).write_text(yaml.safe_dump(params))

    return once("configuration", make)


@pytest.fixture
def compose(configuration: Path) -> Compose:
    """The real conf/ with these overrides, as a stage gets it; params.yaml sets nothing."""

    def compose_real(*overrides: str) -> Config:
        with contextlib.chdir(configuration):
            return composing.compose(*overrides)

    return compose_real


@pytest.fixture(autouse=True)
def no_configuration_from_another_test() -> Iterator[None]:
    """Hydra keeps the last one for the process."""
    yield
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


def write_models(root: Path) -> None:
    for name, description in TINY_MODELS.items():
        text = yaml.safe_dump(description, sort_keys=False)  # the layers are in order
        (root / paths.CONF / f"model/{name}.yaml").write_text(text)


# Two epochs; of 50 examples each has 7 steps: 6 of 8 examples and one of 2.
SMALL_RECIPE = RecipeConfig(
    name="small",
    epochs=2,
    batch_size=8,
    learning_rate=0.01,
    schedule="one_cycle",
    warm_up=0.25,
    steps_per_execution=3,
    precision="float32",
)


def tiny_examples(count: int, seed: int) -> Examples:
    """Images whose class is the place of a bright square, noisy enough to leave some mistakes."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 10, count, dtype=np.uint8)
    images = generator.integers(0, 120, (count, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 5)
        image[4 + 12 * row : 10 + 12 * row, 1 + 5 * column : 6 + 5 * column] += 60
    return Examples(images, labels)


@pytest.fixture
def tiny_model(compose: Compose) -> Any:
    """An untrained keras.Model, the same each time."""
    return untrained(compose)


def untrained(compose: Compose) -> Any:
    import keras  # seconds, which only some tests need

    from image_classification.models import build

    keras.utils.set_random_seed(1)
    return build.build(compose("model=tiny_cnn").model, (28, 28, 1), classes=10)


@pytest.fixture
def exported(once: Once, compose: Compose) -> Artifact:
    """The artifact of that model, which tests leave as it is."""

    def make(folder: Path) -> None:
        from image_classification.serving import conversion  # needs Keras

        images = tiny_examples(130, seed=5).images
        artifact.write(conversion.convert(untrained(compose), described(folder), images))

    return artifact.read(once("exported", make))


def described(folder: Path, shape: tuple[int, int, int] = (28, 28, 1)) -> Artifact:
    """What is known of a model before it is converted."""
    return Artifact(
        name="tiny",
        model="tiny_cnn",
        run="tiny_cnn-0",
        key="0" * 32,
        version=3,
        classes=[str(digit) for digit in range(10)],
        image_shape=shape,
        resize="pad",
        normalise=False,
        engine="",
        weights_sha256="1" * 64,
        sha256="",
        checked={},
        folder=folder,
    )


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.tobytes())


@dataclass(frozen=True)
class Mirror:
    """A site's own copy of the tiny data set, plain and gzipped, and what conf/data/ says of it."""

    folder: Path

    @property
    def description(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "description.json").read_text()))


@pytest.fixture(scope="session")
def mirror(once: Once) -> Mirror:
    return Mirror(once("mirror", write_mirror))


def write_mirror(folder: Path) -> None:
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
    description = {
        "classes": [str(digit) for digit in range(10)],
        "image_shape": [28, 28, 1],
        "validation_examples": 100,
        "split_seed": 42,
        "files": files,
        "mirrors": [f"file://{folder}/{{name}}.gz"],
        "published": {"tiny_cnn": [0.9920, 0.9909], "nn": [0.9808]},  # nn: for the benchmarks
    }
    (folder / "description.json").write_text(json.dumps(description))


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
        """Run a command of the environment in the project and return what it printed."""
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
        """Replace a text, which must be there."""
        path = self.root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def value(self, file: str, key: str) -> Any:
        """A value of a YAML file, by its dotted key."""
        value = yaml.safe_load((self.root / file).read_text())
        for part in key.split("."):
            value = value[part]
        return value

    def set(self, file: str, key: str, value: object) -> None:
        """Change a value of a YAML file, whose dotted key must be there."""
        assert self.value(file, key) != value
        contents = yaml.safe_load((self.root / file).read_text())
        *parents, last = key.split(".")
        place = contents
        for part in parents:
            place = place[part]
        place[last] = value
        (self.root / file).write_text(yaml.safe_dump(contents, sort_keys=False))

    def restore(self) -> None:
        """Take back every edit of tracked files but dvc.lock and what stages measured."""
        self.must("git", "checkout", "--quiet", "--", "conf", "src", "params.yaml", "dvc.yaml")

    def copy(self, root: Path) -> "Project":
        """Copy all of it, results and MLflow's store included, for a test that changes it."""
        shutil.copytree(self.root, root, symlinks=True, dirs_exist_ok=True)
        if (root / "mlflow.db").exists():
            move_store(root / "mlflow.db", str(self.root), str(root))
        return Project(root)

    def dvc_status(self) -> dict[str, Any]:
        """What `dvc status --json` prints, without the seconds that starting it takes."""
        with contextlib.chdir(self.root), Repo() as repository:
            return dict(repository.status())


def move_store(database: Path, old: str, new: str) -> None:
    """Replace the paths in a copy of MLflow's database, which are absolute."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            columns = connection.execute(f'PRAGMA table_info("{table}")').fetchall()
            for column in [column[1] for column in columns if "CHAR" in column[2]]:
                change = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?)'
                connection.execute(f'{change} WHERE instr("{column}", ?)', (old, new, old))


def copy_project(root: Path) -> Project:
    """Copy what git would commit, with the real configuration, into a repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    left_out = ("reports/", "evaluations/", "promotions/", "studies/", "dvc.lock")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(left_out):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    return Project(root)


def commit(project: Project) -> None:
    project.must("git", "init", "--quiet")
    project.must("git", "config", "user.name", "Test")
    project.must("git", "config", "user.email", "test@example.com")
    project.must("git", "add", "--all")
    project.must("git", "commit", "--quiet", "--message", "start")


def tiny_project(root: Path, mirror: Mirror, epochs: int = 2) -> Project:
    """A project on the tiny data set, whatever the real params.yaml says."""
    project = copy_project(root)
    write_models(root)
    (root / paths.CONF / "data/tiny.yaml").write_text(yaml.safe_dump(mirror.description))
    params = fixed_params("tiny", list(TINY_MODELS), epochs=epochs)
    (root / paths.PARAMS).write_text(yaml.safe_dump(params))
    commit(project)
    return project


@pytest.fixture(scope="session")
def fresh(once: Once, mirror: Mirror) -> Project:
    """A project on the tiny data set in which nothing has run; tests leave it as it is."""
    return Project(once("fresh", lambda root: tiny_project(root, mirror)))


@pytest.fixture
def project(tmp_path: Path, fresh: Project) -> Project:
    """A project on the tiny data set in which nothing has run."""
    return fresh.copy(tmp_path)


@pytest.fixture(scope="session")
def with_data(once: Once, fresh: Project) -> Project:
    """A project in which download and split have run; tests leave it as it is."""

    def make(root: Path) -> None:
        fresh.copy(root).must("dvc", "repro", "split")

    return Project(once("with_data", make))


@pytest.fixture
def split_project(tmp_path: Path, with_data: Project) -> Project:
    """A project in which download and split have run."""
    return with_data.copy(tmp_path)


@pytest.fixture(scope="session")
def trained(once: Once, fresh: Project) -> Project:
    """A project in which `dvc repro` has run; tests leave it as it is, and run no DVC in it."""

    def make(root: Path) -> None:
        project = fresh.copy(root)
        project.must("dvc", "repro")
        project.must("git", "add", "--all")
        project.must("git", "commit", "--quiet", "--message", "measured")

    return Project(once("trained", make))


@pytest.fixture
def trained_copy(tmp_path: Path, trained: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in which `dvc repro` has run."""
    # MLflow remembers by a run's id where its files are; other copies have runs of the same ids.
    remembered = "mlflow.tracking._tracking_service.utils._artifact_repos_cache"
    monkeypatch.setattr(remembered, OrderedDict())
    return trained.copy(tmp_path / "trained")


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of so much space on the folder; gives what mounts it anew with options."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system takes more rights than are here")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def at_once(function: Callable[..., object], *calls: tuple[object, ...]) -> list[int | None]:
    """Call a function of the package in a process for each of the calls; their exit codes.

    The processes come from one that has imported MLflow, so that they start within milliseconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["image_classification.tracking.outbox"])
    processes = [context.Process(target=function, args=arguments) for arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


class TrackingServer:
    """An MLflow server with a store of its own, which can be killed and started again.

    It keeps artifacts at an address that it reaches under the variables, by default in its folder.
    """

    def __init__(self, folder: Path, artifacts: str = "", **variables: str) -> None:
        self.folder = folder
        self.artifacts = artifacts or str(folder / "artifacts")
        self.variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **variables}
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
                    *("--artifacts-destination", self.artifacts),
                ],
                cwd=self.folder,
                env={**os.environ, **self.variables},
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
    shutil.copy(ROOT / paths.PIPELINE, shared_folder)
    arrays.save_split(paths.SPLIT, parts, fingerprint.origin(compose().data))
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
def browser(once: Once) -> Iterator[Browser]:
    # Once, since apt-get fails where two workers call it at the same time.
    chosen = once("browser", lambda folder: (folder / "program").write_text(chromium() or ""))
    program = (chosen / "program").read_text()
    if not program:
        pytest.skip("no Chromium here, and none could be installed: apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])


@pytest.fixture(scope="session")
def empty_store(once: Once) -> Path:
    """A fresh mlflow.db, to be copied: to make one takes seconds."""
    folder = once("store", lambda folder: mlflow_store.initialize(folder / "mlflow.db"))
    return folder / "mlflow.db"
