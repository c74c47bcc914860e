"""`make audit` against a database of OSV's form that runs here."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Project, copy_project


class Database(BaseHTTPRequestHandler):
    """Knows one vulnerability, of whatever version of idna."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = query["package"]["name"]
        self.server.asked.append(name)  # type: ignore[attr-defined]  # the fixture's own
        known = {"id": "GHSA-x", "aliases": ["CVE-2026-1"], "summary": "reads anything"}
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": []}]
        answer = {"vulns": [known | {"affected": affected}]} if name == "idna" else {}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Database) as server:
        server.asked = []  # type: ignore[attr-defined]  # read by the tests
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def root(tmp_path: Path) -> Project:
    project = copy_project(tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.installed").touch()  # what runs is this test's environment
    return project


def audit(root: Project, port: int) -> subprocess.CompletedProcess[str]:
    address = f"http://127.0.0.1:{port}/v1/query"
    return root.run("make", "audit", PIP_AUDIT_OSV_URL=address, NO_PROXY="127.0.0.1")


@pytest.mark.slow
def test_a_vulnerability_fails_until_it_is_accepted_with_a_reason(
    root: Project, database: ThreadingHTTPServer
) -> None:
    done = audit(root, database.server_port)

    assert done.returncode != 0
    assert "Found 1 known vulnerability in 1 package" in done.stderr
    assert "CVE-2026-1" in done.stdout
    assert {"tensorflow", "mlflow", "dvc"} <= set(database.asked)  # type: ignore[attr-defined]  # set by the fixture

    with (root.root / "docs/accepted-vulnerabilities.txt").open("a") as file:
        file.write("CVE-2026-1 no name of another host is ever read\n")
    done = audit(root, database.server_port)

    assert done.returncode == 0, done.stderr
    assert "CVE-2026-1 no name of another host is ever read" in done.stdout
    assert "No known vulnerabilities found, 1 ignored" in done.stderr


def test_a_database_that_cannot_be_reached_fails_in_one_line(root: Project) -> None:
    done = audit(root, 9)

    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert "Connection refused" in said[0]
