"""The tracking store: where it is, that it is made once, and that no dead run stays RUNNING in it.

It is sqlite:///mlflow.db at the project's root unless MLFLOW_TRACKING_URI names another.
"""

import contextlib
import fcntl
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

# Who calls tries again later; MLflow's own tries would block for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # each training would ask the network

import mlflow
import mlflow.store.db.utils
import psutil
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from sqlalchemy.exc import SQLAlchemyError

from image_classification import paths
from image_classification.errors import UserError

PROCESS_TAGS = ("process.host", "process.id", "process.started")  # of a run that goes on

mlflow.store.db.utils.MAX_RETRY_COUNT = 1  # as for HTTP, above

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow").setLevel(logging.WARNING)


class UnreachableError(UserError):
    """The store can't be used now; it may be later."""


def connect(experiment: str) -> str:
    """Reach the store and find the experiment, making both when they are not there.

    Returns:
        The id of the experiment.

    Raises:
        UnreachableError: it can't be used, or made.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    artifacts = None
    if uri.startswith("sqlite:///"):
        # Relative to the project, not to whatever folder or copy of it the command runs in.
        database = paths.home() / uri.removeprefix("sqlite:///")
        uri = f"sqlite:///{database}"
        artifacts = (database.parent / "mlartifacts").as_uri()
        _initialise(database)
    mlflow.set_tracking_uri(uri)
    try:
        client = mlflow.MlflowClient()
        experiment_id = _experiment_id(client, experiment, artifacts)
        _close_abandoned(client, experiment_id)
    except (MlflowException, SQLAlchemyError) as error:
        cause = str(error).partition("\n")[0][:300]
        if "failed with exception" in cause:  # MLflow's words for a server that is not there
            cause = "it does not answer"
        raise UnreachableError(f"the tracking store {uri} can't be used: {cause}") from error
    return experiment_id


def _experiment_id(client: mlflow.MlflowClient, name: str, artifacts: str | None) -> str:
    """The experiment of that name, made when it is not there; another process may be faster."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            tags = {"mlflow.experimentKind": "custom_model_development"}  # the UI's view of it
            return client.create_experiment(name, artifact_location=artifacts, tags=tags)
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _initialise(database: Path) -> None:
    """Make an empty database, once, however many processes start at the same time."""
    if database.exists():
        try:
            with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
                connection.execute("PRAGMA schema_version")
        except sqlite3.Error as error:  # where MLflow would try for minutes
            raise UnreachableError(
                f"the tracking store {database} can't be used: {error}"
            ) from error
        return
    fresh = database.with_name(f"{database.name}.{uuid.uuid4().hex}")
    try:
        fresh.touch()  # fails at once where MLflow would try for minutes
        # In a process of its own, so that no connection to this name outlives it.
        subprocess.run(
            [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{fresh}"],
            check=True,
            capture_output=True,
        )
        os.link(fresh, database)
    except FileExistsError:
        pass  # another process was faster, and its database is complete
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode().strip().splitlines()
        cause = next((line for line in said if "Error" in line), said[-1])
        raise UnreachableError(f"{database} can't be made: {cause}") from error
    except OSError as error:
        raise UnreachableError(f"{database} can't be made: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def _close_abandoned(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Mark as KILLED what this machine started, left RUNNING and no longer runs."""
    running = client.search_runs(
        [experiment_id],
        f"attributes.status = 'RUNNING' and tags.`process.host` = '{socket.gethostname()}'",
    )
    for run in running:
        pid, started = int(run.data.tags["process.id"]), run.data.tags["process.started"]
        if not _lives(pid, started):
            client.set_terminated(run.info.run_id, "KILLED")


def _lives(pid: int, started: str) -> bool:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # Not to the second: the clock that it is computed from may have been set meanwhile.
        return bool(abs(process.create_time() - float(started)) < 60)
    except psutil.NoSuchProcess:
        return False


def context_tags() -> dict[str, str]:
    """Who has started what, as MLflow's pages show it."""
    return dict(resolve_tags())


def process_tags() -> dict[str, str]:
    """What tells whether the process of a run that is RUNNING still lives."""
    own = psutil.Process()
    return dict(
        zip(
            PROCESS_TAGS,
            (socket.gethostname(), str(own.pid), str(own.create_time())),
            strict=True,
        )
    )


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep other processes of this machine from making the same run or version meanwhile."""
    with (paths.home() / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
