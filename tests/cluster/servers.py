"""Servers that a team shares, on this machine: object stores, and how to wait for a server."""

import contextlib
import importlib.util
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGES = ("boto3", "dvc_gs", "dvc_s3", "flask_wtf", "gcp_storage_emulator", "moto", "psycopg")
NEEDS_GROUP = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PACKAGES)), reason="needs the group `cluster`"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def wait_for(address: str) -> None:
    latest = time.monotonic() + 120
    while not answers(address):
        assert time.monotonic() < latest, f"{address} does not answer"
        time.sleep(0.5)


@dataclass(frozen=True)
class Bucket:
    """An empty bucket in an object store.

    scheme: s3 or gs, with which its address begins.
    variables: the variables of the environment under which MLflow's server and DVC reach it.
    remote: options of a DVC remote in it.
    """

    scheme: str
    variables: dict[str, str]
    remote: dict[str, str]

    @property
    def address(self) -> str:
        return f"{self.scheme}://shared"


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[Bucket]:
    """A bucket in moto's S3, which keeps it in memory."""
    import boto3  # of the group `cluster`

    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    variables = {
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, folder / "s3.log"):
        wait_for(endpoint)
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="shared")
        yield Bucket("s3", variables, {"endpointurl": endpoint})


@contextlib.contextmanager
def google(folder: Path) -> Iterator[Bucket]:
    """A bucket in an emulator of Google Cloud Storage, which keeps it in the folder."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    variables = {
        "STORAGE_EMULATOR_HOST": endpoint,
        # Otherwise gcsfs asks the emulator by gRPC what kind of bucket it is, 60 s a time.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    command = [
        *(sys.executable, "-m", "gcp_storage_emulator", "--data-dir", str(folder / "google")),
        *("start", "--host", "127.0.0.1", "--port", str(port), "--default-bucket", "shared"),
        "--quiet",
    ]
    with _running(command, folder / "google.log"):
        wait_for(endpoint)
        remote = {"endpointurl": endpoint, "allow_anonymous_login": "true"}
        yield Bucket("gs", variables, remote)


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)
