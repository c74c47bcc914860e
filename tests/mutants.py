"""Mutation testing: do a module's tests notice small careless changes to the module?

A mutant is a module with one such change: `<` for `<=`, a number one higher, a call left out, and
so on. Its tests run in a fork that imports the mutant from memory; no file changes, and libraries
are imported only once. Tests that start a Python of their own do not see the mutant there.

Prints a table and the survivors, except those that tests/mutants_accepted.txt gives a reason for.

    python tests/mutants.py [MODULE]... [--jobs 2]
"""

import argparse
import ast
import contextlib
import gc
import io
import os
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
PACKAGE = "image_classification"
MODULES = (
    *("comparison/contributions", "comparison/error_analysis", "comparison/leaderboard"),
    *("comparison/intervals", "comparison/statistical_tests"),
    *("comparison/verdict", "comparison/verdict_text"),
    *("data/splits", "evaluation/metrics", "promotion/gate", "promotion/paired"),
    "tracking/provenance",
    *("training/batches", "training/checkpoint", "training/fit", "training/schedules"),
)
ENOUGH, ENOUGH_EACH = 90, 85  # percent caught: of all mutants, and of those of any module
NOT_IMPORTED = 99  # exit code of tests that pass without importing their module
LIMITS = {  # of the tests of a mutant
    resource.RLIMIT_DATA: 16 * 2**30,  # bytes
    resource.RLIMIT_CPU: 120,  # seconds of processor time
}
WAIT = 1200  # seconds, for mutants that wait for ever
PYTEST = ("-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist")
SELECTED = ("-k", "not xla")  # XLA takes many seconds to compile

PAIRS: tuple[tuple[Any, Any], ...] = (
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot)),
    *((ast.In, ast.NotIn), (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.BitAnd, ast.BitOr)),
    *((ast.And, ast.Or), ("min", "max"), ("any", "all"), ("argmin", "argmax"), ("floor", "ceil")),
)
SWAPS: dict[Any, Any] = {
    **{ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult},
    **{one: other for pair in PAIRS for one, other in (pair, pair[::-1])},
}
KEYLIKE = re.compile(r"[\w./*-]*\w[\w./*-]*")  # a string that is a key or a name, not a text
KEPT = {"annotation", "returns", "decorator_list"}  # fields that have no mutants


@dataclass(frozen=True)
class Mutant:
    """The source of a module with one change, and the line of the change in the file."""

    module: str
    source: str
    line: int
    change: str


def path_of(module: str) -> Path:
    """The file of a module."""
    return ROOT / "src" / PACKAGE / f"{module}.py"


def tests_of(module: str) -> str:
    """The tests of a module, as seen from the project."""
    room, _, name = module.partition("/")
    return f"tests/{room}/test_{name}.py"


def has_no_mutants(node: ast.AST) -> bool:
    """Whether it is a message or a docstring, or there for the type checker."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.JoinedStr() | ast.Assert():
            return True
        case ast.Expr(value=ast.Constant()) | ast.Subscript(value=ast.Name(id="Literal")):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name == "print" or name.endswith("Error")
    return False


def nodes(node: ast.AST, line: int = 0) -> Iterator[tuple[ast.AST, int]]:
    """The node and all below it that have mutants, each with its line."""
    if has_no_mutants(node):
        return
    line = getattr(node, "lineno", line)
    yield node, line
    if isinstance(node, ast.keyword) and node.arg == "axis":
        return  # an axis too high is an error that any run shows
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in KEPT:
                yield from nodes(child, line)


def without(items: Sequence[Any], index: int, *instead: Any) -> list[Any]:
    """The items with others in place of one."""
    return [*items[:index], *instead, *items[index + 1 :]]


def exchanges(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Fields of a node, each with the value of a mutant: another operator, constant or name."""
    match node:
        case ast.Compare(ops=operators):
            for index, operator in enumerate(operators):
                yield "ops", without(operators, index, SWAPS[type(operator)]())
        case ast.BinOp(left=ast.Constant(value=str()) | ast.List() | ast.JoinedStr()):
            pass  # to subtract or divide it is an error that any run shows
        case ast.BinOp(right=ast.Constant(value=str()) | ast.List() | ast.JoinedStr()):
            pass
        case ast.BoolOp(op=operator) | ast.BinOp(op=operator) | ast.AugAssign(op=operator):
            yield "op", SWAPS[type(operator)]()
        case ast.UnaryOp(op=operator, operand=operand):
            yield "operand", ast.UnaryOp(operator, operand)  # twice is not at all
        case ast.Constant(value=bool(truth)):
            yield "value", not truth
        case ast.Constant(value=int(number)):
            yield "value", number + 1
        case ast.Constant(value=float(number)):
            yield "value", 2 * number or 1.0
        case ast.Constant(value=str(text)) if KEYLIKE.fullmatch(text):
            yield "value", f"x{text}"
        case ast.Name(id=name) if name in SWAPS:
            yield "id", SWAPS[name]
        case ast.Attribute(attr=name) if name in SWAPS:
            yield "attr", SWAPS[name]
        case ast.keyword(arg="axis", value=ast.Constant(value=0 | 1 as axis)):
            yield "value", ast.Constant(1 - axis)


def omissions(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The same for what is left out, and for conditions that always or never hold."""
    match node:
        case ast.If() | ast.IfExp():
            yield from (("test", ast.Constant(truth)) for truth in (True, False))
        case ast.While():
            yield "test", ast.Constant(False)
        case ast.comprehension(ifs=tests):
            yield from (("ifs", without(tests, index)) for index in range(len(tests)))
        case ast.List(elts=items) if len(items) > 1:
            yield from (("elts", without(items, index)) for index in range(len(items)))
        case ast.Return(value=ast.expr()):
            yield "value", ast.Constant(None)
        case ast.Slice():
            for field in ("lower", "upper"):
                if bound := getattr(node, field):
                    yield field, None
                    yield field, ast.BinOp(bound, ast.Add(), ast.Constant(1))
        case ast.Call(func=function, keywords=keywords):
            named = [index for index, keyword in enumerate(keywords) if keyword.arg]
            yield from (("keywords", without(keywords, index)) for index in named)
            if isinstance(function, ast.Name) and function.id == "sorted":
                yield "keywords", [*keywords, ast.keyword("reverse", ast.Constant(True))]
    for field, block in ast.iter_fields(node):
        for index, child in enumerate(block if isinstance(block, list) else []):
            is_call = isinstance(child, ast.Expr) and isinstance(child.value, ast.Call)
            if isinstance(child, ast.Raise) or (is_call and not has_no_mutants(child.value)):
                yield field, without(block, index, ast.Pass())


def shown(before: str, after: str) -> str:
    """The first line that differs between two texts, cut short around {the change -> in it}."""
    lines = zip(before.splitlines(), after.splitlines(), strict=True)
    differing = next(two for two in lines if two[0] != two[1])
    old, new = (re.findall(r"\w+|\W", line) for line in differing)
    start = end = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    left, right = "".join(old[:start])[-40:].lstrip(), "".join(old[len(old) - end :])[:30]
    changed = (" ".join("".join(line[start : len(line) - end]).split()) for line in (old, new))
    return f"{left}{{{' -> '.join(changed)}}}{right}".rstrip()


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a module, in the order of its lines."""
    tree = ast.parse(path_of(module).read_text())
    clean = ast.unparse(tree)
    found = {clean: Mutant(module, clean, 0, "")}  # by source: different changes may give the same
    for node, line in nodes(tree):
        for field, value in (*exchanges(node), *omissions(node)):
            before = getattr(node, field)
            setattr(node, field, value)
            source = ast.unparse(tree)
            setattr(node, field, before)
            if source not in found:
                found[source] = Mutant(module, source, line, shown(clean, source))
    del found[clean]
    return sorted(found.values(), key=lambda mutant: mutant.line)


def run_tests(mutant: Mutant, scratch: str) -> None:
    """Run the module's tests on a mutant and exit with pytest's code: the life of a fork."""
    code = int(pytest.ExitCode.INTERNAL_ERROR)
    name = f"{PACKAGE}.{mutant.module.replace('/', '.')}"
    get_code = SourceFileLoader.get_code

    def get_mutant(loader: Any, fullname: str) -> CodeType | None:
        if fullname != name:
            return get_code(loader, fullname)
        return compile(mutant.source, path_of(mutant.module), "exec")

    try:
        os.setsid()  # so that what the tests start can be killed with it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(WAIT)
        for kind, limit in LIMITS.items():
            resource.setrlimit(kind, (limit, limit))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        SourceFileLoader.get_code = get_mutant  # type: ignore[method-assign, assignment]
        folder = f"--basetemp={scratch}/{os.getpid()}"
        code = int(pytest.main([*PYTEST, *SELECTED, "-x", folder, tests_of(mutant.module)]))
        if code == pytest.ExitCode.OK and name not in sys.modules:
            code = NOT_IMPORTED
    finally:
        os._exit(code)  # whatever threads there are


def import_libraries(modules: Sequence[str]) -> None:
    """Collect the tests once: what they import stays in memory, except for the project itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*PYTEST, "--collect-only", *map(tests_of, modules)])
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] == PACKAGE or file.startswith(f"{ROOT}/tests/"):
            del sys.modules[name]
    gc.freeze()  # the forks share what is in memory now


def run_all(mutants: Sequence[Mutant], jobs: int, scratch: str) -> list[int]:
    """Run the tests of many mutants, `jobs` at a time; the exit code of each."""
    codes: dict[int, int] = {}
    running: dict[int, int] = {}  # which mutant, by process id
    waiting = list(range(len(mutants)))[::-1]
    tqdm.monitor_interval = 0  # a thread could hold a lock at the moment of a fork
    bar = tqdm(total=len(mutants), unit="run")
    try:
        while waiting or running:
            if waiting and len(running) < jobs:
                index = waiting.pop()
                pid = os.fork()
                if pid == 0:
                    run_tests(mutants[index], scratch)
                running[pid] = index
            else:
                pid, status = os.wait()
                codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
                kill(pid)
                bar.update()
    finally:
        bar.close()
        for pid in running:
            kill(pid)
    return [codes[index] for index in range(len(mutants))]


def kill(group: int) -> None:
    """Kill a fork and what its tests have left running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def require_clean(modules: Sequence[str], jobs: int, scratch: str) -> None:
    """Exit with a message unless the tests of each module pass without any change."""
    clean = [Mutant(module, path_of(module).read_text(), 0, "") for module in modules]
    for module, code in zip(modules, run_all(clean, jobs, scratch), strict=True):
        if code:
            fault = "do not import it" if code == NOT_IMPORTED else f"fail unchanged ({code})"
            sys.exit(f"error: {module}: its tests {fault}: pytest {tests_of(module)}")


def report(mutants: Sequence[Mutant], caught: Sequence[bool]) -> bool:
    """Print how many mutants were caught, and the survivors; whether enough were."""
    both, by_module, enough = list(zip(mutants, caught, strict=True)), dict[str, list[bool]](), True
    for mutant, is_caught in both:
        by_module.setdefault(mutant.module, []).append(is_caught)
    print("| module | mutants | caught | % |", "|---|--:|--:|--:|", sep="\n")
    for module, its in {**by_module, "all": caught}.items():
        share = 100 * sum(its) / len(its)
        enough = enough and share >= (ENOUGH if module == "all" else ENOUGH_EACH)
        print(f"| {module} | {len(its)} | {sum(its)} | {share:.1f} |")
    lines = (ROOT / "tests/mutants_accepted.txt").read_text().splitlines()
    accepted = {line.rpartition("  # ")[0] for line in lines if not line.startswith("#")}
    for mutant, is_caught in both:
        is_accepted = f"{mutant.module}.py: {mutant.change}" in accepted
        if is_caught == is_accepted:
            note = "  # caught, need not be accepted" if is_caught else ""
            print(f"{mutant.module}.py:{mutant.line}: {mutant.change}{note}")
    return enough


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Do the tests notice careless changes?")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="forks at a time")
    options = parser.parse_args()
    modules = options.modules or MODULES
    if unknown := set(modules) - set(MODULES):
        parser.error(f"not one of the modules: {', '.join(unknown)}")

    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    mutants = [mutant for module in modules for mutant in mutants_of(module)]
    try:
        with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as scratch:
            import_libraries(modules)
            require_clean(modules, options.jobs, scratch)
            codes = run_all(mutants, options.jobs, scratch)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    if not report(mutants, [code != 0 for code in codes]):
        sys.exit(f"error: {ENOUGH} % must be caught, and {ENOUGH_EACH} % of each module's")


if __name__ == "__main__":
    main()
