"""A project with one real training, and as many copies of it as a benchmark asks for.

A copy has its own model, seed and key, in its files, in its event logs and in MLflow; its model,
history and pictures are those of the real training. So hundreds of trainings take seconds. In
MLflow a copy is one of the rows that the project's own upload of the real training has written.
"""

import contextlib
import csv
import hashlib
import json
import random
import shutil
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from dvc.repo import Repo  # type: ignore[import-untyped]  # DVC has no types
from measure import run

from image_classification.core import paths
from image_classification.tracking import event_log
from image_classification.tracking.mlflow_tags import RUN_KEY, UPLOADED

MODELS = ("m0", "m1", "m2", "m3", "m4", "m5")  # lm under other names
REAL = "m0-0"
IMAGES = Path("images.npz")
STORE = Path("mlflow.db")
SIDE = 28
CLASSES = 10

# The tables that hold what belongs to a run, and the column that names it.
OF_RUN = {
    **{"runs": "run_uuid", "tags": "run_uuid", "params": "run_uuid"},
    **{"metrics": "run_uuid", "latest_metrics": "run_uuid", "inputs": "destination_id"},
}
OF_MODEL = ("logged_models", "logged_model_metrics", "logged_model_params", "logged_model_tags")


def write_images(path: Path, count: int) -> None:
    """Images whose class is the place of a bright square, which a linear model mostly finds."""
    generator = np.random.default_rng(count)
    labels = generator.integers(0, CLASSES, count, dtype=np.uint8)
    images = generator.integers(0, 120, (count, SIDE, SIDE), dtype=np.uint8)
    for label in range(CLASSES):
        row, column = divmod(label, 5)
        bright = np.s_[4 + 12 * row : 10 + 12 * row, 1 + 5 * column : 6 + 5 * column]
        images[(labels == label).nonzero()[0], *bright] += 60
    np.savez(path, images=images, labels=labels)


def make_project(root: Path, images: int, models: Iterable[str] = MODELS) -> None:
    """A project of its own, with this many images, whose pipeline trains one epoch."""
    shutil.rmtree(root, ignore_errors=True)
    run("git", "clone", "--quiet", Path.cwd(), root)
    for folder in (paths.CONF, Path("src")):  # also what is not committed yet
        shutil.copytree(folder, root / folder, dirs_exist_ok=True)
    (root / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(root / paths.REPORTS, ignore_errors=True)
    for model in MODELS:
        shutil.copy(root / paths.CONF / "model/lm.yaml", root / paths.CONF / f"model/{model}.yaml")
    write_images(root / IMAGES, images)
    params = yaml.safe_load((root / paths.PARAMS).read_text())
    params |= {"models": list(models), "seeds": [0]}
    params["data"] |= {"name": "npz", "path": str(IMAGES)}
    params["recipe"] |= {"epochs": 1}
    (root / paths.PARAMS).write_text(yaml.safe_dump(params, sort_keys=False))


def key_of(name: str) -> str:
    """The key of the copy of that name."""
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Copies:
    """A project in which one training and its evaluation have really run."""

    root: Path

    def make(self, images: int) -> None:
        """Make the project, unless an earlier call has."""
        kept = self.root / "kept.db"
        if kept.exists():
            return
        make_project(self.root, images)
        for stage in ("train", "evaluate"):
            run("dvc", "repro", f"{stage}@{REAL}", cwd=self.root, store="")
        shutil.copy(self.root / STORE, kept.with_suffix(".part"))
        kept.with_suffix(".part").rename(kept)

    def grow(self, seeds: int) -> None:
        """Make copies for all models with this many seeds, in the files and in MLflow."""
        names = [paths.run_name(model, seed) for model in MODELS for seed in range(seeds)]
        for folder in (paths.RUNS, paths.EVALUATIONS):
            for path in (self.root / folder).iterdir():
                if path.is_dir() and path.name not in names:
                    shutil.rmtree(path)
        keys = {name: self._copy(name) for name in names if name != REAL}
        params = yaml.safe_load((self.root / paths.PARAMS).read_text())
        params["seeds"] = list(range(seeds))
        (self.root / paths.PARAMS).write_text(yaml.safe_dump(params, sort_keys=False))
        self.fill_store(keys)

    def _copy(self, name: str) -> str:
        """Copy the files of the real training; the key of the copy."""
        key = key_of(name)
        for folder in (paths.RUNS, paths.EVALUATIONS):
            copy = self.root / folder / name
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self.root / folder / REAL, copy)
            self._rename(copy / paths.EVENTS_FILE, name, key)
        self._rename(self.root / paths.RUNS / name / paths.TRAINING_FILE, name, key)
        _swap_predictions(self.root / paths.EVALUATIONS / name / paths.TEST_FILE, key)
        return key

    def _rename(self, path: Path, name: str, key: str) -> None:
        model, _, seed = name.partition("-")
        text = path.read_text().replace(self._real_key(), key).replace(f'"{REAL}"', f'"{name}"')
        text = text.replace('"model": "m0"', f'"model": "{model}"')
        path.write_text(text.replace('"seed": "0"', f'"seed": "{seed}"'))

    def _real_key(self) -> str:
        training = json.loads((self.root / paths.RUNS / REAL / paths.TRAINING_FILE).read_text())
        return str(training["run"])

    def fill_store(self, keys: dict[str, str]) -> None:
        """Put MLflow's store back to the real training, and add copies: names and their keys."""
        for left in self.root.glob(f"{STORE}*"):
            left.unlink()
        shutil.copy(self.root / "kept.db", self.root / STORE)
        self.add_to_store(keys)

    def add_to_store(self, keys: dict[str, str]) -> None:
        """Add copies of the real training's rows to MLflow's store."""
        with contextlib.closing(sqlite3.connect(self.root / STORE)) as database, database:
            real = _Rows(database, self._real_key())
            for name, key in keys.items():
                real.add(name, key, list(self._digests(name)))

    def _digests(self, name: str) -> Iterator[str]:
        """The digests of a run's event logs, where its files exist."""
        for folder in (paths.RUNS, paths.EVALUATIONS):
            if (self.root / folder / name).is_dir():
                yield event_log.digest(self.root / folder / name)

    def forget(self, names: Iterable[str]) -> None:
        """Make MLflow forget that it has the event logs of these runs."""
        with contextlib.closing(sqlite3.connect(self.root / STORE)) as database, database:
            for name in names:
                for digest in self._digests(name):
                    database.execute("DELETE FROM tags WHERE value = ?", (digest,))

    def lock(self) -> None:
        """Write dvc.lock for all that is there, once; `dvc commit` writes it stage by stage."""
        with contextlib.chdir(self.root), Repo() as repository, repository.lock:
            stages = repository.index.stages
            for stage in stages:
                stage.save(run_cache=False)
                stage.commit()
            stages[0].dvcfile.dump_stages(stages, update_pipeline=False)


def _swap_predictions(path: Path, key: str) -> None:
    """Let each run miss other test images than the real one, in a file of the same size."""
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    at = head.index("actual") + 1
    generator = random.Random(key)
    for _ in range(max(1, len(rows) // 40)):
        one, other = generator.sample(range(len(rows)), 2)
        rows[one][at:], rows[other][at:] = rows[other][at:], rows[one][at:]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


class _Rows:
    """The rows of the real training in MLflow's database, to add copies of."""

    def __init__(self, database: sqlite3.Connection, key: str) -> None:
        self._database = database
        query = "SELECT run_uuid FROM tags WHERE key = ? AND value = ?"
        ((self._run,),) = database.execute(query, (RUN_KEY, key)).fetchall()
        query = "SELECT model_id FROM logged_models WHERE source_run_id = ?"
        ((self._model,),) = database.execute(query, (self._run,)).fetchall()

    def add(self, name: str, key: str, digests: list[str]) -> None:
        """Add a copy under this name and key that has uploaded the logs with these digests."""
        run_id, model_id = uuid.uuid4().hex, f"m-{uuid.uuid4().hex}"
        model, _, seed = name.partition("-")
        for table, column in OF_RUN.items():
            self._copy(table, {column: run_id}, {column: self._run})
        for table in OF_MODEL:
            self._copy(table, {"model_id": model_id}, {"model_id": self._model})
        change = self._database.execute
        change("UPDATE runs SET name = ? WHERE run_uuid = ?", (name, run_id))
        change("UPDATE logged_models SET source_run_id = ? WHERE model_id = ?", (run_id, model_id))
        change("UPDATE logged_model_metrics SET run_id = ? WHERE model_id = ?", (run_id, model_id))
        change("DELETE FROM tags WHERE run_uuid = ? AND key LIKE ?", (run_id, f"{UPLOADED}%"))
        tags = {RUN_KEY: key, "model": model, "seed": seed}
        tags |= {f"{UPLOADED}{digest[:16]}": digest for digest in digests}
        for tag, value in tags.items():
            change(
                "REPLACE INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", (tag, value, run_id)
            )
        for param, value in (("model.name", model), ("seed", seed)):
            change(
                "UPDATE params SET value = ? WHERE run_uuid = ? AND key = ?", (value, run_id, param)
            )
        score = random.Random(key).random()
        change(
            "UPDATE latest_metrics SET value = ? WHERE run_uuid = ? AND key = 'test_accuracy'",
            (score, run_id),
        )

    def _copy(self, table: str, new: dict[str, str], old: dict[str, str]) -> None:
        described = self._database.execute(f'PRAGMA table_info("{table}")').fetchall()
        columns = [str(column[1]) for column in described]
        ((changed, value),), ((_, known),) = new.items(), old.items()
        taken = ", ".join("?" if column == changed else f'"{column}"' for column in columns)
        names = ", ".join(f'"{column}"' for column in columns)
        self._database.execute(
            f'INSERT INTO "{table}" ({names}) SELECT {taken} FROM "{table}" WHERE "{changed}" = ?',
            (value, known),
        )
