"""The container's packages and files, held against the lock and the code."""

import platform
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

from conftest import ROOT
from packaging.specifiers import SpecifierSet

from image_classification.core import paths

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def pinned(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


def test_the_container_has_the_versions_of_the_lock() -> None:
    serving = pinned("requirements-serving.lock")

    assert "ai-edge-litert" in serving
    assert not {"tensorflow", "keras", "mlflow", "pandas"} & serving.keys()
    assert serving.items() <= pinned("requirements.lock").items()
    assert "index-url" not in (ROOT / "requirements-serving.lock").read_text()


def test_pip_accepts_every_locked_package_here_and_in_the_container() -> None:
    """Uv, which makes the lock, ignores that a package excludes later versions of Python."""
    containers = re.findall(r"^FROM python:([\d.]+)", DOCKERFILE, re.MULTILINE)
    assert containers

    for name in pinned("requirements.lock"):
        try:
            metadata = Distribution.from_name(name).metadata
        except PackageNotFoundError:  # of other systems
            continue
        required = ",".join(metadata.get_all("Requires-Python") or [])
        for version in (platform.python_version(), *containers):
            assert version in SpecifierSet(required), f"{name}: {version} is not {required}"


def test_the_container_has_every_package_that_the_server_imports() -> None:
    """The server is imported where only these packages can be."""
    program = """
import sys, importlib.metadata as metadata
allowed = set(sys.argv[1:])
owners = metadata.packages_distributions()
class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        packages = {one.lower().replace("_", "-") for one in owners.get(top, [])}
        if packages and not packages & allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Guard())
import image_classification.__main__, image_classification.commands.serve
from ai_edge_litert.interpreter import Interpreter
"""
    allowed = [*pinned("requirements-serving.lock"), "image-classification"]
    done = subprocess.run(
        [sys.executable, "-c", program, *allowed],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_the_dockerfile_copies_what_the_build_may_see_and_runs_without_rights() -> None:
    copied = set(re.findall(r"^COPY (\S+)", DOCKERFILE, re.MULTILINE))
    seen = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))

    assert copied == seen
    assert {str(path) for path in (paths.CONF, paths.PARAMS, paths.EXPORTED)} <= copied
    assert Path("reports/leaderboard.json").as_posix() in copied
    lines = [line.split()[0] for line in DOCKERFILE.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert lines.index("USER") < lines.index("CMD")
    assert re.search(r"^USER (?!0\b|root\b)\S+$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in lines
