"""What a job of a sweep (`hydra -m …`) knows of the sweep."""

import json
import os
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from image_classification.core import paths
from image_classification.core.config import Config

SWEEP = "IMAGE_CLASSIFICATION_SWEEP"  # environment variable: the parent run, the number of jobs


def announcement(parent: dict[str, Any], jobs: int) -> str:
    """What a job is to know of its sweep.

    Args:
        parent: the event with which the parent run begins.
        jobs: how many there are.
    """
    return json.dumps({"parent": parent, "jobs": jobs})


def announce(announcement: str) -> None:
    """Let the job that begins in this process know of its sweep."""
    os.environ[SWEEP] = announcement


def is_one_process(config: DictConfig) -> bool:
    """Whether Hydra runs the jobs of a sweep in its own process, one after the other."""
    return bool(config.hydra.runtime.choices["hydra/launcher"] == "basic")


def is_job() -> bool:
    """Whether this process runs a job of a sweep."""
    return SWEEP in os.environ


def parent() -> dict[str, Any] | None:
    """The event with which the parent run begins; None outside a sweep."""
    found: dict[str, Any] | None = json.loads(os.environ[SWEEP])["parent"] if is_job() else None
    return found


def position(config: Config, name: str) -> str:
    """Which run this is of a sweep or of the pipeline, as `run 2 of 6: `; empty otherwise."""
    if is_job():
        number, total = HydraConfig.get().job.num + 1, json.loads(os.environ[SWEEP])["jobs"]
    elif paths.is_dvc_stage():
        names = [paths.run_name(model, seed) for model in config.models for seed in config.seeds]
        if name not in names:  # it has been taken out of params.yaml since DVC began
            return ""
        number, total = names.index(name) + 1, len(names)
    else:
        return ""
    return f"run {number} of {total}: "


def swept(overrides: list[str]) -> dict[str, int]:
    """How many values each swept key has; `glob(…)` counts only while Hydra runs."""
    running = GlobalHydra.instance()
    loader = running.config_loader() if running.is_initialized() else None
    parsed = OverridesParser.create(loader).parse_overrides(overrides)
    return {
        override.key_or_group: len(list(override.sweep_string_iterator()))
        for override in parsed
        if override.is_sweep_override()
    }
