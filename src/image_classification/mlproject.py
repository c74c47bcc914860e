"""The commands of MLproject: the settings of `mlflow run -P` become overrides for Hydra or DVC."""

import os
import sys

from image_classification.core.compose import GROUPS


def main() -> None:
    """Become the command that `mlflow run` was asked for."""
    entry_point, *arguments = sys.argv[1:]
    command = pipeline(arguments) if entry_point == "pipeline" else train(arguments)
    if entry_point == "pipeline":
        # Otherwise all runs of the pipeline would log to the one run that `mlflow run` opened.
        os.environ.pop("MLFLOW_RUN_ID", None)
    os.execv(sys.executable, [sys.executable, "-m", *command])


def train(arguments: list[str]) -> list[str]:
    """The module and arguments for one run.

    Args:
        arguments: `--key value` pairs, as MLflow appends them.
    """
    return [
        "image_classification",
        "train",
        *(f"{key}={value}" for key, value in _pairs(arguments)),
    ]


def pipeline(arguments: list[str]) -> list[str]:
    """The module and arguments for the pipeline; with other settings, in a copy of the project.

    Args:
        arguments: `--key value` pairs, as MLflow appends them.
    """
    settings = []
    for key, value in _pairs(arguments):
        name = f"{key}.name" if key in GROUPS else key  # where params.yaml keeps a group's choice
        settings += ["--set-param", f"{name}={value}"]
    return ["dvc", "exp", "run", "--temp", *settings] if settings else ["dvc", "repro"]


def _pairs(arguments: list[str]) -> list[tuple[str, str]]:
    keys, values = arguments[::2], arguments[1::2]
    return [(key.removeprefix("--"), value) for key, value in zip(keys, values, strict=True)]


if __name__ == "__main__":
    main()
