"""The parent run in MLflow of the runs of one sweep (`hydra -m …`), and the sweep's progress."""

import atexit
import math
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from psutil import Process

from image_classification.core import job_states, paths, ray
from image_classification.core.command import one_line_errors
from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.core.files import remove_empty
from image_classification.core.signals import pass_on_signals
from image_classification.tracking import sweep


class SweepParent(Callback):
    """Hydra calls this around a sweep; conf/config.yaml names it.

    A launcher sends a copy of it to each process that runs jobs.
    """

    def __init__(self) -> None:
        self._status = "KILLED"  # until all jobs are done
        self._announcement: str | None = None  # of the sweep to its jobs
        self._variables: dict[str, str] = {}  # that a job has to set
        self._earlier_errors: dict[Path, int] = {}  # what other sweeps have left in the folder

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the parent run, or that of an earlier attempt; close it when the process ends."""
        folder = Path(config.hydra.sweep.dir)
        self._earlier_errors = _errors(folder)
        atexit.register(remove_empty, folder.resolve())  # the last to be called
        with one_line_errors():  # Hydra would turn an error into a warning and continue
            swept = sweep.swept(config.hydra.overrides.task)
            _require_one_search(config, swept)
        jobs = math.prod(swept.values())
        on_ray = config.hydra.runtime.choices["hydra/launcher"] == "ray"
        if not sweep.is_one_process(config):
            # Ray's servers are children, too: without them, neither jobs nor this one would close.
            processes = partial(job_states.processes, folder) if on_ray else Process().children
            pass_on_signals(processes, are_done=lambda: not job_states.running(folder))
            atexit.register(job_states.show_progress(folder, jobs))
        if on_ray:
            with one_line_errors():
                self._variables = ray.prepare(config)
        if config.hydra.job.name != "train" or config.hydra.runtime.choices.data is None:
            return  # of several data sets, which share no experiment
        self._open_parent(config, folder, jobs)

    def _open_parent(self, config: DictConfig, folder: Path, jobs: int) -> None:
        """Open the parent run of a sweep of trainings.

        Args:
            config: of the sweep.
            folder: of the sweep.
            jobs: how many there are.
        """
        # MLflow takes seconds to import, and Hydra imports this module for every command.
        from image_classification.tracking import live_run, outbox

        with one_line_errors():
            HydraConfig.instance().set_config(config)  # conf/config.yaml takes names from it
            data = OmegaConf.to_object(config.data)  # a group that is swept over has no value
            assert isinstance(data, DataConfig)
            folder.mkdir(parents=True, exist_ok=True)
            run = live_run.open_sweep(
                folder,
                experiment=data.dataset,
                words=[f"search {config.search.study}"]
                if config.search
                else sorted(config.hydra.overrides.task),
            )
        self._announcement = sweep.announcement(run.events[0], jobs)

        def end() -> None:
            try:
                if (folder / paths.SEARCH_PICTURES).is_dir():
                    run.log("artifacts", path="search", inside=paths.SEARCH_PICTURES)
                if not run.end(self._status):
                    outbox.upload(folder)
            except UserError as error:  # of the disk; nobody above would catch it
                print(f"error: {error}", file=sys.stderr)

        atexit.register(end)  # Hydra does not call on_multirun_end after a failure

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Let the job know of its sweep, in whatever process it runs."""
        os.environ.update(self._variables)
        if self._announcement is not None:
            sweep.announce(self._announcement)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All jobs are done: list those that failed, also in other processes, with their errors."""
        folder = Path(config.hydra.sweep.dir)
        # Compared by their times: a job that fails again writes its file anew.
        failed = sorted(dict(_errors(folder).items() - self._earlier_errors.items()))
        self._status = "FAILED" if failed else "FINISHED"
        for path in failed:
            name = path.parent.relative_to(folder)
            print(f"failed: {name}: {path.read_text().rstrip()}", file=sys.stderr)
        if failed:
            print(f"{len(failed)} failed: fix that and repeat the command", file=sys.stderr)
            sys.exit(1)
        if self._announcement is not None and not sweep.is_one_process(config):
            from image_classification.tracking import outbox

            with one_line_errors():
                code = outbox.upload()  # what jobs in other processes could not
            if code:
                sys.exit(code)


def _errors(folder: Path) -> dict[Path, int]:
    """The files in which jobs have left an error, at any depth, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob(paths.ERROR_FILE)}


def _require_one_search(config: DictConfig, swept: Mapping[str, int]) -> None:
    others = sorted(swept.keys() - {"trial"})
    if others and (config.search is not None or "search" in swept):
        raise UserError(
            f"{', '.join(others)}: a search sweeps over trial alone: search once for each value"
        )
