"""MLflow's store: where it is, that it is made once, and that no dead run stays RUNNING in it.

It is sqlite:///mlflow.db at the project's root unless MLFLOW_TRACKING_URI names another.
"""

import contextlib
import logging
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import mlflow.store.db.utils
import psutil
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from sqlalchemy.exc import SQLAlchemyError

from image_classification.core import paths
from image_classification.core.errors import UserError, without_login
from image_classification.core.locks import locked
from image_classification.tracking import mlflow_tags, mlflow_view

ARTIFACTS = "mlartifacts"  # the folder beside the database that holds the runs' files
LEFT_BEHIND = r"\.[0-9a-f]{32}(-journal|-wal|-shm)?"  # suffix of what a kill leaves of a database

mlflow.store.db.utils.MAX_RETRY_COUNT = 1  # as tracking/__init__.py says

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow").setLevel(logging.WARNING)
# It prints the traceback of an error of the database, which is raised as well and becomes a line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


# What MLflow raises while it, its store or the network is down; anything else is a bug of ours.
OUTAGES = (MlflowException, SQLAlchemyError, OSError, UserError)


class UnreachableError(UserError):
    """The store can't be used now; it may be later."""


class DeletedError(UnreachableError):
    """Somebody has deleted the experiment in MLflow; others can be used."""


def cause_of(error: BaseException) -> str:
    """An error in one line."""
    # SQLAlchemy's advice to programmers, which it may put before what happened.
    said = re.sub(r"\(raised as a result of [^)]*\)\s*", "", str(error))
    return said.strip().partition("\n")[0][:300] or type(error).__name__


def connect(experiment: str) -> str:
    """Reach the store and find the experiment; make both where they are missing.

    Returns:
        The id of the experiment.

    Raises:
        UnreachableError: it can't be used, or made; DeletedError: only this experiment can't.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    artifacts = None
    if uri.startswith("sqlite:///"):
        # Relative to the main checkout, not to a copy of it that the command may run in.
        database = paths.home() / uri.removeprefix("sqlite:///")
        uri = f"sqlite:///{database}"
        artifacts = (database.parent / ARTIFACTS).as_uri()
        _set_aside_if_moved(database)
        initialize(database)
    mlflow.set_tracking_uri(uri)
    try:
        client = mlflow.MlflowClient()
        experiment_id = _experiment_id(client, experiment, artifacts)
        _close_abandoned(client, experiment_id)
    except (MlflowException, SQLAlchemyError) as error:
        cause = cause_of(error)
        if "failed with exception" in cause:  # MLflow's text for an unreachable server
            cause = "it does not respond"
        raise UnreachableError(
            f"the tracking store {display_uri()} can't be used: {cause}"
        ) from error
    return experiment_id


def display_uri() -> str:
    """The address of the tracking store, for messages."""
    return without_login(mlflow.get_tracking_uri())


def _experiment_id(client: mlflow.MlflowClient, name: str, artifacts: str | None) -> str:
    """The experiment of that name, made when it is missing; another process may be faster."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifacts, mlflow_view.EXPERIMENT_TAGS)
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise DeletedError(
            f"the experiment {name} was deleted in MLflow: MLFLOW_TRACKING_URI={display_uri()} "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    for tag, value in mlflow_view.EXPERIMENT_TAGS.items():
        if tag not in found.tags:  # the experiment was made by something else, such as `mlflow run`
            client.set_experiment_tag(found.experiment_id, tag, value)
    return str(found.experiment_id)


def initialize(database: Path) -> None:
    """Make an empty database, once, however many processes start at the same time.

    Raises:
        UnreachableError: it can't be made, or what is there is no database.
    """
    if not database.exists():
        try:
            with _database_lock(database):
                _remove_left_behind(database)
                if not database.exists():  # else another process was faster
                    _make(database)
        except UserError as error:
            cause = getattr(error.__cause__, "strerror", None) or cause_of(error)
            raise UnreachableError(f"{database} can't be made: {cause}") from error
    if _left_behind(database):
        with contextlib.suppress(UserError), _database_lock(database, wait=False):
            _remove_left_behind(database)
    with _reading(database) as connection:
        connection.execute("PRAGMA schema_version")


def _make(database: Path) -> None:
    """Make it under another name, so that it never exists half-made.

    Raises:
        UserError: says why it can't be made.
    """
    fresh = database.with_name(f"{database.name}.{uuid.uuid4().hex}")
    try:
        fresh.touch()  # fails at once where MLflow would retry for minutes
        # In a separate process: no connection to this name may outlive it.
        subprocess.run(
            [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{fresh}"],
            check=True,
            capture_output=True,
        )
        fresh.rename(database)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode().splitlines() or [str(error)]  # killed, it says nothing
        raise UserError(next((line for line in lines if "Error" in line), lines[-1])) from error
    except OSError as error:
        raise UserError(error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):
            _remove_left_behind(database)


def _left_behind(database: Path) -> list[Path]:
    """What killed processes left of databases that they were making."""
    name = re.compile(re.escape(database.name) + LEFT_BEHIND)
    found = database.parent.glob(f"{database.name}.*")
    return [path for path in found if name.fullmatch(path.name)]


def _remove_left_behind(database: Path) -> None:
    for path in _left_behind(database):
        path.unlink(missing_ok=True)


def _database_lock(database: Path, wait: bool = True) -> contextlib.AbstractContextManager[None]:
    """Keep other processes from making, moving or cleaning up after the database."""
    return locked(database.with_name(".mlflow.lock"), wait=wait)


@contextlib.contextmanager
def _reading(database: Path) -> Iterator[sqlite3.Connection]:
    """Read from the database without MLflow, which would retry for minutes where it can't be read.

    Raises:
        UnreachableError: it can't be read, or is no database.
    """
    try:
        # rw: where there is none, an empty one is not made
        address = f"{database.absolute().as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=60)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise UnreachableError(f"the tracking store {database} can't be used: {error}") from error


def _set_aside_if_moved(database: Path) -> None:
    """Quarantine a store that was made elsewhere: it holds absolute paths, and would write there.

    Raises:
        UnreachableError: it can't be read, or moved out of the way.
    """
    if not _made_in(database):
        return
    try:
        with _database_lock(database):
            elsewhere = _made_in(database)
            if not elsewhere:  # another process was faster
                return
            stamp = time.time_ns()
            # The database last: a kill before leaves it to be noticed again.
            for path in (
                database.with_name(ARTIFACTS),
                *(database.with_name(f"{database.name}-{kind}") for kind in ("wal", "shm")),
                database,
            ):
                moved = path.with_name(f"quarantined-{stamp}-{path.name}")
                with contextlib.suppress(FileNotFoundError):
                    path.rename(moved)
    except OSError as error:
        raise UnreachableError(f"{database} can't be set aside: {error.strerror}") from error
    print(
        f"{database} was made in {elsewhere} and would write there: it is now {moved.name}, and a "
        "new one is made; `image-classification sync` uploads every run to it",
        file=sys.stderr,
    )


def _made_in(database: Path) -> Path | None:
    """The other folder that the database was made in, if it was."""
    try:
        with _reading(database) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
            if ("experiments",) not in tables:
                return None
            found = connection.execute("SELECT artifact_location FROM experiments").fetchall()
    except UnreachableError:
        if database.exists():
            raise
        return None  # there is none, or another process has just set it aside
    own = database.with_name(ARTIFACTS)
    for (location,) in found:
        address = urlsplit(location or "")
        folder = Path(unquote(address.path))
        # Others than this project give an experiment a folder of its own.
        if address.scheme == "file" and folder.name == ARTIFACTS and not _is_same(folder, own):
            return folder.parent
    return None


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same folder; it need not be there."""
    with contextlib.suppress(OSError):
        return one.parent.samefile(other.parent)
    return one.resolve() == other.resolve()


def _close_abandoned(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Mark as KILLED the RUNNING runs of this machine whose process is gone."""
    host, process, began = map(mlflow_tags.stored, mlflow_tags.PROCESS)
    running = client.search_runs(
        [experiment_id],
        f"attributes.status = 'RUNNING' and tags.`{host}` = '{socket.gethostname()}'",
    )
    for run in running:
        pid, started = int(run.data.tags[process]), run.data.tags[began]
        if not _is_alive(pid, started):
            client.set_terminated(run.info.run_id, "KILLED")


def _is_alive(pid: int, started: str) -> bool:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # Roughly: the clock that it is computed from may have been set in between.
        return bool(abs(process.create_time() - float(started)) < 60)
    except psutil.NoSuchProcess:
        return False


def context_tags() -> dict[str, str]:
    """Who started the process, and from which program, as MLflow's pages show it."""
    return dict(resolve_tags())


def process_tags() -> dict[str, str]:
    """Which process a run belongs to; others check by it whether the process is still alive."""
    own = psutil.Process()
    return dict(
        zip(
            mlflow_tags.PROCESS,
            (socket.gethostname(), str(own.pid), str(own.create_time())),
            strict=True,
        )
    )


def store_lock() -> contextlib.AbstractContextManager[None]:
    """Keep other processes of this machine from making the same run or version at the same time."""
    return locked(paths.home() / ".mlflow.lock")
