"""The pages: every command works, every link leads somewhere, every setting is listed.

A command in README.md, CONTRIBUTING.md or docs/ must fit a row of `COMMANDS`. `make test` checks
its words without running it; `make test-docs` runs it, each page from top to bottom, on tiny data.
"""

import ast
import contextlib
import itertools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import typing
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from conftest import (
    ROOT,
    Mirror,
    Project,
    TrackingServer,
    commit,
    copy_project,
    fixed_params,
)
from dvc.cli import parse_args  # type: ignore[import-untyped]  # DVC has no types
from dvc.utils.cli_parse import to_path_overrides  # type: ignore[import-untyped]  # as above
from dvc.utils.hydra import apply_overrides  # type: ignore[import-untyped]  # as above
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from image_classification import mlproject
from image_classification.__main__ import STAGES
from image_classification.commands import drift, feedback, predict
from image_classification.commands import serve as serving
from image_classification.core import compose as composing
from image_classification.core import paths
from image_classification.core.config import Config

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", *ROOT.glob("*/README.md")]  # whose links are checked
LANGUAGES = {"sh", "yaml", "python", "diff", "mermaid", "text"}  # of the pages' blocks
PROGRAMS = (  # that begin a command where they stand between backticks
    *("make", "dvc", "hydra", "mlflow", "image-classification", "pytest", "git", "python"),
    *("pre-commit", ".ci/run", "source"),
)
NAMES = {"mlflow run", "dvc exp run", "dvc exp run -S", "dvc exp apply"}  # of commands with words
ADDRESS = "http://127.0.0.1:5000"  # of another MLflow, which `make test-docs` starts
SECONDS = 120  # that a server may take to answer


# What a page is made of.


@dataclass(frozen=True)
class Piece:
    """A block in a language, or a piece of code in a sentence (`inline`)."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that a block is, as its first line says."""
        named = re.match(r"# (\S+\.(?:yaml|py))\n", self.text)
        return named[1] if named and self.language in ("yaml", "python") else None

    @property
    def commands(self) -> list[str]:
        if self.language == "sh":
            lines = self.text.replace("\\\n", " ").splitlines()
            return [re.sub(r"\s+# .*", "", line).strip() for line in lines if line.strip()]
        if self.language != "inline":
            return []
        text = " ".join(self.text.split())
        words = shlex.split(text)[len(assignments(text)) :] if is_shell(text) else []
        is_command = len(words) > 1 or words == [".ci/run"]
        return [text] if is_command and words[0] in PROGRAMS and text not in NAMES else []


PIECE = re.compile(r"^```(\w*)\n(.*?)^```$|`([^`]+)`", re.MULTILINE | re.DOTALL)


def pieces(page: Path) -> list[Piece]:
    found = PIECE.finditer(page.read_text())
    return [Piece("inline", m[3]) if m[3] else Piece(m[1], m[2]) for m in found]


def is_shell(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True


def assignments(command: str) -> list[str]:
    """The variables that a command begins with."""
    return list(itertools.takewhile(re.compile(r"[A-Z_]+=").match, shlex.split(command)))


def commands(page: Path) -> list[str]:
    return [command for piece in pieces(page) for command in piece.commands]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# Whether the words of a command are valid, without running it.


@dataclass(frozen=True)
class Tree:
    """A project's settings and Makefile, with the files that a page has its readers write."""

    root: Path

    def copy(self) -> "Tree":
        target = self.root.with_name(f"{self.root.name}x")
        shutil.copytree(self.root, target)
        return Tree(target)

    def compose(self, *overrides: str) -> None:
        with contextlib.chdir(self.root):
            composing.compose(*overrides)


def settings_tree(root: Path, page: Path) -> Tree:
    shutil.copytree(ROOT / "conf", root / "conf")
    for name in ("dvc.yaml", "Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy2(ROOT / name, root)
    models = ["lm", "nn", "dnn", "dnnd", "cnn", "dcnn"]
    (root / "params.yaml").write_text(yaml.safe_dump(fixed_params("mnist", models)))
    (root / ".venv").mkdir()
    (root / ".venv/.installed").touch()  # or even a dry run would set it up
    write_files(page, root)
    return Tree(root)


def write_files(page: Path, root: Path) -> None:
    for piece in pieces(page):
        if piece.file:
            (root / piece.file).parent.mkdir(exist_ok=True)
            # Without its name: what Hydra reads above the settings has to be the first line.
            (root / piece.file).write_text(piece.text.partition("\n")[2])


def no_words(words: list[str], tree: Tree) -> None:
    """There is nothing to check."""


def make(words: list[str], tree: Tree) -> None:
    command = ["make", "--dry-run", *words]
    done = subprocess.run(command, cwd=tree.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def dvc(words: list[str], tree: Tree) -> None:
    parsed = parse_args(words)
    stages = yaml.safe_load((tree.root / "dvc.yaml").read_text())["stages"]
    if words[0] == "repro":
        targets = {target.partition("@")[0] for target in parsed.targets}
        assert {target for target in targets if not (ROOT / target).is_file()} <= stages.keys()
    if words[:2] == ["exp", "run"]:
        run_pipeline(parsed.set_param or [], tree)


def run_pipeline(parameters: list[str], tree: Tree) -> None:
    """Compose what trainings get after `dvc exp run -S` has set the parameters."""
    tree = tree.copy()
    files = to_path_overrides(parameters)
    for file, overrides in files.items():
        apply_overrides(str(tree.root / file), overrides)
    models = yaml.safe_load((tree.root / "params.yaml").read_text())["models"]
    named = [Path(file).stem for file in files if file.startswith("conf/model/")]
    is_choice = any(text.startswith("models=") for text in parameters)
    for model in models if is_choice else named or models[:1]:
        tree.compose(f"model={model}")


def hydra(words: list[str], tree: Tree) -> None:
    parsed = get_args_parser().parse_args(words)
    overrides = OverridesParser.create().parse_overrides(parsed.overrides)
    assert parsed.multirun or not any(override.is_sweep_override() for override in overrides)
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [text]
        for override, text in zip(overrides, parsed.overrides, strict=True)
    ]
    for override, values in zip(overrides, choices, strict=True):
        if override.is_range_sweep():
            del values[1:-1]  # the bounds do
    for turn in range(max(map(len, choices), default=1)):  # each value of a sweep at least once
        tree.compose(*(each[turn % len(each)] for each in choices))


def image_classification(words: list[str], tree: Tree) -> None:
    stage, *overrides = words
    if stage == "predict":
        predict.parse(overrides)
        return
    if stage in PARSED:
        PARSED[stage].parse_args(overrides)
        return
    assert stage in (*STAGES, "export", "sync", "links")
    hydra(overrides, tree)


def server(words: list[str], tree: Tree) -> None:
    command, *arguments = words
    assert command == "serve"
    serving.parser().parse_args(arguments)


def promotion(words: list[str], tree: Tree) -> None:
    from image_classification.commands import promote, rollback  # they take seconds

    command, *arguments = words
    {"promote": promote, "rollback": rollback}[command].parser().parse_args(arguments)


def mlflow(words: list[str], tree: Tree) -> None:
    import click
    import mlflow.cli  # takes seconds

    command: click.Command = mlflow.cli.cli
    context = command.make_context("mlflow", words)
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = command.make_context(name, words, parent=context)
    if "param_list" in context.params:  # of `mlflow run`
        pairs = [text.partition("=") for text in context.params["param_list"]]
        arguments = [word for key, _, value in pairs for word in (f"--{key}", value)]
        if context.params["entry_point"] == "train":
            tree.compose(*mlproject.train(arguments)[2:])
        else:
            run_pipeline(mlproject.pipeline(arguments)[5::2], tree)


PARSED = {"feedback": feedback.parser(), "drift": drift.parser()}  # their words are no settings


def existing_file(words: list[str], tree: Tree) -> None:
    file = words[-1]
    assert (tree.root / file).exists() or (ROOT / file).exists(), file


def pytest_paths(words: list[str], tree: Tree) -> None:
    for word in words:
        assert not word.startswith("tests/") or (ROOT / word.partition("::")[0]).exists(), word


PARSERS = {hydra: get_args_parser().parse_args, dvc: parse_args}
RUN, SERVE = "run it", "run it until it answers over HTTP"


@dataclass(frozen=True)
class Command:
    """A kind of command that pages show.

    form: a regular expression of all its words, variables before it left out.
    check: whether the words after the program are valid, by `make test`.
    run: how `make test-docs` runs it: RUN, SERVE, or why it does not.
    """

    form: str
    check: Callable[[list[str], Tree], None]
    run: str


COMMANDS = (
    Command(r"make (repro|publish|help|clean)", make, RUN),
    Command(r"make repro JOBS=\d+", make, RUN),
    Command(r"make ui( HOST=\S+)?( PORT=\d+)?", make, SERVE),
    Command(r"make (test|lint)", make, "`.ci/run` does"),
    Command(r"make (setup|lock|audit)", make, "it asks other machines"),
    Command(r"git checkout \S+", existing_file, RUN),
    Command(r"make test-docs", make, "it is what runs this"),
    Command(
        r"make (coverage|mutants|torture|test-(real|cluster|jax)|bench|bench-quick|bench-serve)",
        make,
        "it takes long",
    ),
    Command(r"\.ci/run", no_words, "it runs the tests, and CI runs it"),
    Command(r"source \.venv/bin/activate", no_words, "`make setup` makes it, and the tests use it"),
    Command(r"dvc (repro|status|dag|pull)( .*)?", dvc, RUN),
    Command(r"dvc (commit --force|push|remote add( .*)?)", dvc, RUN),
    Command(r"dvc (metrics|params) (show|diff)( .*)?", dvc, RUN),
    Command(r"dvc plots show( .*)?", dvc, RUN),
    Command(r"dvc exp (run|show|apply)( .*)?", dvc, RUN),
    Command(r"hydra .*", hydra, RUN),
    Command(
        r"image-classification (?!(promote|rollback|history|serve|feedback|drift)\b).*",
        image_classification,
        RUN,
    ),
    Command(r"image-classification serve.*", server, "it needs a champion"),
    Command(r"image-classification history", no_words, RUN),
    Command(r"image-classification promote --dry-run", promotion, RUN),
    Command(
        r"image-classification (feedback|drift).*", image_classification, "a server comes first"
    ),
    Command(
        r"image-classification (rollback.*|promote(?! --dry-run$).*)",
        promotion,
        "it changes the champion, or is refused",
    ),
    Command(r"mlflow run .*", mlflow, RUN),
    Command(r"mlflow models serve .* --port \d+", mlflow, SERVE),
    Command(r"pytest tests/\S+( -k \S+)?", pytest_paths, RUN),
    Command(r"pre-commit install", no_words, RUN),
    Command(r"git add \S+", existing_file, RUN),
    Command(r"python \S+\.py", existing_file, RUN),
    Command(r"sha256sum \S+", no_words, RUN),
    Command(r"(npm install|apt-get install) .*", no_words, "it asks other machines"),
)


def row_of(command: str) -> Command:
    """The row of the table that a command fits."""
    rest = command.split(maxsplit=len(assignments(command)))[-1]
    found = [row for row in COMMANDS if re.fullmatch(row.form, rest)]
    assert len(found) == 1, f"COMMANDS has {len(found)} rows for `{command}`"
    return found[0]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_words_of_every_command_are_valid(page: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    tree = settings_tree(tmp_path / "tree", page)
    changes_code = any(piece.language == "diff" for piece in pieces(page))
    for command in dict.fromkeys(commands(page)):
        row = row_of(command)
        words = shlex.split(command)[len(assignments(command)) + 1 :]
        if changes_code and row.check in PARSERS:
            PARSERS[row.check](words)  # the rest holds after the change: make test-docs
            continue
        row.check(words, tree)
        shutil.rmtree(tmp_path / "treex", ignore_errors=True)


def test_a_name_is_the_beginning_of_a_command_that_a_page_shows() -> None:
    shown = {command for page in PAGES for command in commands(page)}

    for name in NAMES:
        assert any(command.startswith(f"{name} ") for command in shown), name


# Running them.


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[TrackingServer]:
    (tmp_path / "server").mkdir()
    server = TrackingServer(tmp_path / "server")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def reader(trained: Project, tmp_path: Path) -> Project:
    """A reader's project: the pipeline has run, and DVC has a remote."""
    project = trained.copy(tmp_path / "project")
    be_installed(project)
    project.must("dvc", "remote", "add", "--default", "ours", str(tmp_path / "remote"))
    project.must("git", "commit", "--quiet", "--all", "--message", "remote")
    project.must("dvc", "push")
    return project


def be_installed(project: Project) -> None:
    (project.root / ".venv").mkdir(exist_ok=True)
    (project.root / ".venv/.installed").touch()  # what runs is this test's environment


def apply_diff(project: Project, diff: str) -> None:
    """Change the project as a diff says, unless somebody has done so already."""
    file = project.root.with_name("change.diff")
    file.write_text(diff)
    if project.run("git", "apply", "--reverse", "--check", str(file)).returncode != 0:
        project.must("git", "apply", str(file))


def carry_out(
    project: Project, piece: Piece, done: set[str], address: Callable[[], str] = str
) -> None:
    """Do what a piece of a page says; what stands in a sentence, once."""
    if piece.language == "python" and not piece.file:  # a file is there already
        project.must(sys.executable, "-c", for_tiny(piece.text))
    for command in piece.commands:
        if piece.language == "inline" and command in done:
            continue
        done.add(command)
        line = for_tiny(command)
        if ADDRESS in line:
            line = line.replace(ADDRESS, address())
        how = row_of(command).run
        if how == RUN:
            project.must("bash", "-c", line)
        elif how == SERVE:
            serve(project, line)


def for_tiny(text: str) -> str:
    return text.replace("mnist", "tiny")


def serve(project: Project, command: str) -> None:
    """Run a server at a free port until it answers."""
    port = free_port()
    command = re.sub(r"(--port |PORT=)\d+", rf"\g<1>{port}", command)
    if "make" in command and "PORT=" not in command:
        command += f" PORT={port}"
    log = project.root.with_name("server.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=project.root,
            env=project.environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,  # its workers are processes of their own: they end with it
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


def with_commands(change_code: bool) -> list[Path]:
    return [
        page
        for page in PAGES
        if commands(page) and change_code == any(p.language == "diff" for p in pieces(page))
    ]


@pytest.mark.docs
@pytest.mark.parametrize("page", with_commands(change_code=False), ids=name_of)
def test_every_command_works(page: Path, reader: Project, request: pytest.FixtureRequest) -> None:
    def address() -> str:
        return str(request.getfixturevalue("tracking").address)

    write_files(page, reader.root)
    done: set[str] = set()
    for piece in pieces(page):
        carry_out(reader, piece, done, address)


@pytest.mark.docs
@pytest.mark.parametrize("page", with_commands(change_code=True), ids=name_of)
def test_every_change_of_the_code_works(page: Path, tmp_path: Path, mirror: Mirror) -> None:
    """All changes first, since they are made to the settings as they are, not to the tiny ones."""
    project = copy_project(tmp_path / "project")
    for piece in pieces(page):
        if piece.language == "diff":
            apply_diff(project, piece.text)
    (project.root / "conf/data/tiny.yaml").write_text(yaml.safe_dump(mirror.description))
    params = yaml.safe_load((project.root / paths.PARAMS).read_text())
    params["models"], params["data"]["name"], params["recipe"]["epochs"] = ["lm"], "tiny", 1
    (project.root / paths.PARAMS).write_text(yaml.safe_dump(params))
    commit(project)
    be_installed(project)
    project.must("dvc", "repro", "split")

    done: set[str] = set()
    for piece in pieces(page):
        if piece.language != "diff":
            carry_out(project, piece, done)

    changed = [
        name
        for piece in pieces(page)
        for name in re.findall(r"^\+\+\+ b/(src.*)$", piece.text, re.MULTILINE)
    ]
    assert changed
    project.must("ruff", "check", *changed)
    project.must("ruff", "format", "--check", *changed)
    project.must("mypy", *changed)


# Links, blocks, settings, arrows.


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    text = PIECE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        if not target.startswith(("http://", "https://")):
            linked = (page.parent / file) if file else page
            assert linked.exists(), target
            assert not heading or heading in headings(linked), target


def headings(page: Path) -> set[str]:
    """As a link names them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_is_finished_and_says_what_its_blocks_are(page: Path) -> None:
    assert {piece.language for piece in pieces(page)} <= {"inline", *LANGUAGES}
    assert "TODO" not in page.read_text()
    for piece in pieces(page):
        if piece.language == "python":
            ast.parse(piece.text)
        elif piece.language == "yaml":
            assert isinstance(yaml.safe_load(piece.text), dict)


def settings_of(kind: type, prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings."""
    types = typing.get_type_hints(kind)
    for field in fields(kind):
        one, *others = typing.get_args(types[field.name]) or [types[field.name]]
        if is_dataclass(one):
            yield from settings_of(typing.cast(type, one), f"{prefix}{field.name}.")
        if others or not is_dataclass(one):  # it may be left out as a whole
            yield f"{prefix}{field.name}"


def test_the_page_of_settings_lists_every_setting_and_no_other() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    cells = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    listed = {name for cell in cells for name in re.findall(r"`(.+?)`", cell)}
    known = set(settings_of(Config))
    of_tools = {"model", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
    of_tools |= {"MLFLOW_TRACKING_URI", "KERAS_BACKEND", "HOST", "PORT", "PYTHON"}

    assert {name for name in known if f"`{name}`" not in page} == set()
    assert listed - of_tools <= known


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """What a file imports of the project, and how: as the picture's arrows show it."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        arrow = "-->" if node in tree.body else "-.->"
        if isinstance(node, ast.ImportFrom) and node.module == "image_classification":
            yield from ((alias.name, arrow) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("image_class"):
            yield str(node.module).split(".")[1], arrow


def test_the_picture_of_the_rooms_shows_who_imports_whom() -> None:
    picture = next(p.text for p in pieces(ROOT / "docs/architecture.md") if p.language == "mermaid")
    drawn = set(re.findall(r"^ *(\w+) (-->|-\.->) (\w+)$", picture, re.MULTILINE))

    source = ROOT / paths.SOURCE
    found = set()
    for file in source.rglob("*.py"):
        place = file.relative_to(source).parts[0].removesuffix(".py")
        for room, arrow in imports(file):
            if room not in (place, "core"):
                found.add((place, arrow, room))
    assert drawn == found
