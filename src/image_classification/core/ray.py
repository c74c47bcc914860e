"""What Ray needs before it runs jobs of a sweep."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import DictConfig, read_write

from image_classification.core.errors import UserError

# Log lines are neither deduplicated nor coloured, usage is not reported, and workers run at the
# priority of the command, not at Ray's lower one.
VARIABLES = {
    **{"RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0", "RAY_USAGE_STATS_ENABLED": "0"},
    "RAY_worker_niceness": "0",
}
INSTALL = "uv pip install -c requirements.lock -r pyproject.toml --extra ray"
PASSED_ON = ("MLFLOW_", "KERAS_")  # beginnings of the variables that a job on Ray needs as well


def prepare(config: DictConfig) -> dict[str, str]:
    """Get ready for Ray, whose workers have neither the working folder nor the variables from here.

    Args:
        config: of the sweep; its folder becomes an absolute one for all jobs.

    Returns:
        The variables that a job has to set.

    Raises:
        UserError: the plugin is not installed.
    """
    try:
        version("hydra-ray-launcher")
    except PackageNotFoundError:
        raise UserError(f"hydra/launcher=ray: needs the extra ray: {INSTALL}") from None
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    folder = str(Path(config.hydra.sweep.dir).resolve()).replace("'", r"\'")
    with read_write(config.hydra.overrides):
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{folder}'")
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
