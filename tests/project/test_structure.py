"""The structure of the code: what stages depend on, and who may import whom."""

import ast
from collections.abc import Iterator
from pathlib import Path

import mutants
import pytest
import yaml
from conftest import ROOT

PACKAGE = "image_classification"
SOURCE = ROOT / "src" / PACKAGE
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = sorted(PIPELINE["stages"])
ROOMS = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
MODULES = sorted(SOURCE.rglob("*.py"))
(DECLARED,) = (
    set(entry["rooms_that_change_no_result"])
    for entry in PIPELINE["vars"]
    if "rooms_that_change_no_result" in entry
)  # they end a search below
METADATA = {  # of packages: imports nothing
    *("importlib.metadata.version", "importlib.metadata.PackageNotFoundError"),
}
MOST_INNER_IMPORTS = 6  # within functions: each costs a reader a surprise


def named(node: ast.AST, file: Path) -> Iterator[str]:
    """The dotted names that an import statement of a file names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = file.relative_to(SOURCE.parent).parts[: -node.level] if node.level else ()
        module = ".".join([*above, *filter(None, [node.module])])
        yield from (f"{module}.{alias.name}" for alias in node.names)


def file_of(name: str) -> Path | None:
    """The project's file that a dotted name is, or that it names a part of."""
    path = SOURCE.parent.joinpath(*name.split("."))
    for place in (path, path.parent):
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None


def imports(file: Path, top_only: bool = False) -> Iterator[Path]:
    """The project's own files that a file imports, also those within functions."""
    tree = ast.parse(file.read_text())
    for node in tree.body if top_only else ast.walk(tree):
        for name in named(node, file):
            if name.split(".")[0] == PACKAGE:
                found = file_of(name)
                assert found, f"{file}: {name} is no file"
                yield found


def place(file: Path) -> str:
    """The room of a file, or the name of a module outside the rooms."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def reached(stage: str) -> set[Path]:
    """The files that can change the result of a stage: what it imports, and what these import.

    A room that is declared to change no result ends the search: what it imports can't either.
    """
    found: set[Path] = set()
    rest = [SOURCE / f"{stage}.py"]
    while rest:
        file = rest.pop()
        if file not in found and place(file) not in DECLARED:
            found.add(file)
            rest += imports(file)
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from image_classification.models.build import build", "models/build.py"),
        ("from image_classification.models import build", "models/build.py"),
        ("from image_classification import models", "models/__init__.py"),
        ("import image_classification.models.build as x", "models/build.py"),
        ("from ..models.build import build", "models/build.py"),
        ("from . import splits", "data/splits.py"),
        ("def f():\n    from image_classification import split", "split.py"),
        ("import numpy.linalg", None),
    ],
)
def test_every_form_of_an_import_is_understood(
    line: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: line)

    assert list(imports(SOURCE / "data/new.py")) == ([SOURCE / expected] if expected else [])


def test_the_door_alone_imports_by_a_name_that_is_computed() -> None:
    for file in MODULES:
        tree = ast.parse(file.read_text())
        outside = {name for node in ast.walk(tree) for name in named(node, file)}
        called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        by_name = any(name.split(".")[0] == "importlib" for name in outside - METADATA)
        assert (by_name or "__import__" in called) == (file.name == "__main__.py"), file


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_only_what_dvc_yaml_lists(stage: str) -> None:
    """Otherwise a change of that code would change the result, and DVC would not notice."""
    listed = {ROOT / path for path in PIPELINE["stages"][stage]["deps"]}

    for file in reached(stage):
        assert listed & {file, *file.parents}, f"{stage} imports {file.relative_to(ROOT)}"


def test_what_is_declared_to_change_no_result_is_a_room() -> None:
    assert set(ROOMS) > DECLARED > set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_only_code_that_it_imports(stage: str) -> None:
    """Otherwise a change of that code would run the stage again for nothing."""
    files = reached(stage)
    for path in PIPELINE["stages"][stage]["deps"]:
        if path.startswith("src/"):
            assert any({file, *file.parents} & {ROOT / path} for file in files), path


def test_no_stage_imports_another_and_no_room_imports_a_stage() -> None:
    outside = {path for path in SOURCE.glob("*.py") if path.name != "__init__.py"}
    for file in MODULES:
        assert not outside & set(imports(file)), file


def test_rooms_import_one_way() -> None:
    """Among rooms, and among the files of each: what is imported does not import back."""
    for by in (place, lambda file: str(file.relative_to(SOURCE))):
        arrows = {(by(file), by(other)) for file in MODULES for other in imports(file)}
        arrows = {(one, other) for one, other in arrows if one != other}
        while arrows:
            ends = {other for _, other in arrows} - {one for one, _ in arrows}
            assert ends, f"a circle among {sorted(arrows)}"
            arrows = {(one, other) for one, other in arrows if other not in ends}


def test_each_module_that_gets_mutants_has_its_tests() -> None:
    for module in mutants.MODULES:
        assert mutants.path_of(module).is_file(), module
        assert (ROOT / mutants.tests_of(module)).is_file(), module


def test_imports_stand_at_the_top() -> None:
    inner = [
        (file.relative_to(SOURCE), other.relative_to(SOURCE))
        for file in MODULES
        for other in set(imports(file)) - set(imports(file, top_only=True))
    ]
    assert len(inner) <= MOST_INNER_IMPORTS, inner
