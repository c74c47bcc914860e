"""The runs that trainings and sweeps open: every record goes to disk first, then to MLflow."""

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from image_classification import checkpoint, paths, provenance, records
from image_classification.command import is_interrupted
from image_classification.config import SWEEP_RUN, Config, defining, flatten
from image_classification.delivery import Courier
from image_classification.errors import UserError
from image_classification.records import Record, Records

SAMPLE_SECONDS = 2.0  # between two looks at processor, memory, disk and network
LAST_SECONDS = 10.0  # for MLflow to hear of an interruption; what is left is told later


def opening(experiment: str, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the record with which a run begins, in this process."""
    from image_classification import store

    parent = os.environ.get(SWEEP_RUN)
    return {
        "key": records.new_key(),
        "experiment": experiment,
        "name": name,
        "start": records.now(),
        "tags": {**store.context_tags(), **tags, **store.process_tags()},
        "parent": json.loads(parent) if parent else None,
        "mlflow_run": os.environ.get("MLFLOW_RUN_ID"),
    }


class LiveRun:
    """A run that goes on; begun, or taken up where another process left it."""

    def __init__(self, folder: Path, output: Path, fields: Mapping[str, Any]) -> None:
        """Keep the records in `folder`; the files that they name will be in `output`.

        Args:
            folder: that exists.
            output: of the stage.
            fields: from `opening`; of a run that is taken up, only the tags count.
        """
        self._folder = folder
        self._ended = False
        self._records = Records(folder / paths.RECORDS_FILE)
        self._courier = Courier(output)
        known = list(self._records.all)
        for record in known:
            self._courier.send(record)
        if known:
            self.tell("resume", tags=fields["tags"])
        else:
            self.tell("run", **fields)

    @property
    def records(self) -> list[Record]:
        """All that has been told."""
        return list(self._records.all)

    @property
    def key(self) -> str:
        """The name of the run on disk."""
        return str(self._records.all[0]["key"])

    def tell(self, record_type: str, **fields: Any) -> None:
        """Put a record on disk, and hand it to MLflow."""
        self._courier.send(self._records.append(record_type, **fields))

    def tell_epochs(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Tell those rows of recipes.EpochRecord that have not been told."""
        told = {
            record["step"]
            for record in self._records.all
            if record["type"] == "metrics" and "epoch_seconds" in record["values"]
        }
        for row in rows:
            if row["epoch"] not in told:
                values = {name: value for name, value in row.items() if name != "epoch"}
                self.tell("metrics", **records.metrics(values, int(row["epoch"]), records.now()))

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Tell what processor, memory, disk and network do meanwhile."""
        stop = threading.Event()
        thread = threading.Thread(target=self._sample, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _sample(self, stop: threading.Event) -> None:
        from image_classification import tracking

        steps = [record["step"] for record in self._records.all if _is_sample(record)]
        step = max(steps, default=-1)
        monitors = tracking.system_monitors()
        # Of a full disk the training will say; a look at the machine is not worth a training.
        with suppress(UserError, psutil.Error, OSError):
            while not stop.wait(SAMPLE_SECONDS):
                step += 1
                values = tracking.sample(monitors)
                self.tell("metrics", **records.metrics(values, step, records.now()))

    def end(self, status: str) -> bool:
        """Close the run, which may be taken up again; whether MLflow has been told all of it."""
        if not self._ended:  # else interrupted in its last moment
            with suppress(UserError):  # a full disk, which is why it ends
                self.tell("end", status=status, time=records.now())
            self._records.close()
        return self._courier.finish(records.digest(self._folder), LAST_SECONDS)

    def complete(self, final: Sequence[Record], output: Path, model: Any) -> None:
        """Hand MLflow the last records, which `output` holds after all the others."""
        self._ended = True
        self._records.close()
        for record in final:
            self._courier.send(record, model)
        self._courier.finish(records.digest(output))


def _is_sample(record: Record) -> bool:
    return record["type"] == "metrics" and str(next(iter(record["values"]))).startswith("system/")


@contextmanager
def training_run(config: Config, data_hash: str, folder: Path) -> Iterator[LiveRun]:
    """The run of a training, FAILED or, when interrupted, KILLED unless its block completes it.

    Args:
        config: told as flat parameters.
        data_hash: DVC's hash of the split.
        folder: of the training's checkpoint, claimed.
    """
    tags = {
        "dataset": config.data.name,
        "model": config.model.name,
        "recipe": config.recipe.name,
        "seed": str(config.seed),
        "dvc.data": data_hash,
        **provenance.commit(),
        "machine": provenance.machine(),
        provenance.TRAINING_KEY: provenance.training_key(config, data_hash),
    }
    name = paths.training_name(config.model.name, config.seed)
    fields = opening(config.data.name, name, tags)
    run = LiveRun(folder, Path(config.output_dir), fields)
    try:
        if not any(record["type"] == "params" for record in run.records):
            run.tell("params", values=dict(flatten(defining(config))))
        yield run
    except BaseException as error:
        interrupted = is_interrupted() or isinstance(error, KeyboardInterrupt | SystemExit)
        told = run.end("KILLED" if interrupted else "FAILED")
        if told and not interrupted and not checkpoint.has_state(folder):
            checkpoint.discard(folder)  # there is nothing to take up
        raise
