"""Command `image-classification repro --jobs N`: the pipeline, up to N runs at once.

DVC runs one stage after another. But several DVCs can run different stages at once, since DVC
releases its lock on the project while a stage runs. So each run gets a DVC of its own, which trains
and evaluates it. At the end a plain `dvc repro` runs the rest, and decides whether all is done.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from image_classification.core import paths
from image_classification.core.command import one_line_errors

DVC = (sys.executable, "-m", "dvc")
# Each DVC, and with it its stage, gets SIGTERM when this process dies, however that happens.
BESIDE_OTHERS = ("setpriv", "--pdeathsig", "TERM", *DVC, "--wait-for-lock")
NEEDED_BY_ALL = {"download", "split"}


def main(arguments: Sequence[str]) -> None:
    """Run what can run at once, and become `dvc repro` for the rest."""
    argument_parser = parser()
    jobs = argument_parser.parse_args(arguments).jobs
    if jobs < 1:
        argument_parser.error("argument --jobs: must be 1 or more")
    with one_line_errors():
        os.chdir(paths.project_root())
        changed = _changed_stages()
        if NEEDED_BY_ALL & set(changed):
            _dvc("repro", "split")
            changed = _changed_stages()
        if run_all(names_of_runs(changed), jobs):
            sys.exit(1)
        print("dvc repro", flush=True)
        os.execv(sys.executable, [*DVC, "repro"])


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser("image-classification repro", description=__doc__)
    made.add_argument("--jobs", type=int, required=True, help="how many runs at once, from 1")
    return made


def names_of_runs(stages: Sequence[str]) -> list[str]:
    """The runs that stages train or evaluate, from the last to the first.

    The last in `params.yaml` are usually the longest; started first, they hold up nothing.
    """
    return list(
        dict.fromkeys(stage.partition("@")[2] for stage in reversed(stages) if "@" in stage)
    )


def run_all(names: Sequence[str], jobs: int) -> int:
    """Train and evaluate runs, `jobs` at once; a run that fails stops no other.

    Returns:
        1 if any failed (their errors are printed last), else 0.
    """
    with ThreadPoolExecutor(jobs) as pool:  # Ctrl-C reaches all, and no other starts
        said = list(pool.map(_train_and_evaluate, names))
    errors = [line for lines in said for line in lines]
    print("".join(errors), end="", file=sys.stderr, flush=True)
    return 1 if errors else 0


def _train_and_evaluate(name: str) -> list[str]:
    """Print the lines of a run as they come, each prefixed with its name; return its errors."""
    stages = [f"train@{name}", f"evaluate@{name}"]
    # --single-item: otherwise DVC would lock what these depend on, to see if it is up to date.
    with subprocess.Popen(
        [*BESIDE_OTHERS, "repro", "--single-item", *stages],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as dvc:
        assert dvc.stdout is not None
        errors = []
        for line in filter(str.strip, dvc.stdout):
            told = f"{name}: {line.rstrip()}\n"
            sys.stdout.write(told)
            sys.stdout.flush()
            if line.lower().startswith("error: "):
                errors.append(told)
    if dvc.returncode == 0:
        return []
    return errors or [f"{name}: error: dvc ended with {dvc.returncode}\n"]


def _changed_stages() -> list[str]:
    """The stages of `dvc.yaml` that DVC would run, in its order."""
    status = _dvc("status", "--json", str(paths.PIPELINE), stdout=subprocess.PIPE)
    return list(json.loads(status))


def _dvc(*words: str, stdout: int | None = None) -> str:
    """What DVC wrote to a pipe; if DVC fails, exit: it has said why."""
    with ThreadPoolExecutor(1) as pool:  # on Ctrl-C, which reaches it as well, let it end by itself
        run = partial(subprocess.run, stdout=stdout, text=True, check=False)
        done = pool.submit(run, [*BESIDE_OTHERS, *words]).result()
    if done.returncode:
        sys.exit(1)
    return str(done.stdout)
