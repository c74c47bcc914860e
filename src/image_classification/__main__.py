"""The entry point of every command: `python -m image_classification STAGE`, `image-classification`.

It composes and checks the configuration first, and only then imports the stage: the libraries of
a stage take seconds to import, too long to wait for `--help` or for an error about a typo.
"""

import os
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from image_classification.core import paths
from image_classification.core.backend import backend, require_backend, require_one_worker
from image_classification.core.command import run_command
from image_classification.core.config import Config
from image_classification.core.tensorflow_log import leave_out_advice_on_tracing, quiet_start

STAGES = ("download", "split", "train", "evaluate", "compare")
NEED_SPLIT = ("train", "evaluate", "compare")
NEED_TENSORFLOW = ("train", "evaluate", "export")
COMMANDS = (
    *("repro", "sync", "links", "export", "predict", "promote", "rollback", "history"),
    *("serve", "feedback", "drift"),
)
USAGE = f"""usage: image-classification STAGE [SETTING=VALUE ...]   run one stage
       image-classification STAGE --help                its settings
       image-classification repro --jobs N              the pipeline, up to N runs at once
       image-classification sync                        upload to MLflow what it lacks
       image-classification links                       addresses of the runs in MLflow
       image-classification export [NAME ...]           convert models for serving
       image-classification predict FILE|FOLDER|- ...   classify images; see its --help
       image-classification promote [MODEL|VERSION]     make it champion if it passes the gate
       image-classification rollback [--to N]           make an earlier champion champion again
       image-classification history                     every decision about the champion
       image-classification serve [--port N]            serve the champion over HTTP
       image-classification feedback list|accept|discard  review users' corrections
       image-classification drift                       whether images differ from validation
stages: {", ".join(STAGES)}"""


def main() -> None:
    """Run the command that the first argument names."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in STAGES:
        # MLflow's pages show the program that made a run.
        sys.argv[:2] = [str(Path(__file__).with_name(f"{name}.py"))]
        run_command(name, partial(_run, name))
    if name in COMMANDS:
        if name != "repro":  # which starts stages
            os.environ["KERAS_BACKEND"] = "tensorflow"  # saved models are the same for both
        if name in NEED_TENSORFLOW:
            _start_tensorflow()
        import_module(f"image_classification.commands.{name}").main(words)
    elif name in ("-h", "--help"):
        print(USAGE)
    else:
        print(f"error: {' '.join(sys.argv[1:])}: no such command\n{USAGE}", file=sys.stderr)
        sys.exit(2)


def train() -> NoReturn:
    """Run the command `hydra`: train, or sweep with `-m`."""
    run_command("train", partial(_run, "train"))


def _run(stage: str, config: Config) -> int | None:
    require_backend()
    if stage == "train":
        require_one_worker()
    if stage in NEED_SPLIT:
        fingerprint = import_module("image_classification.data.fingerprint")
        fingerprint.require_split(paths.SPLIT, config.data)
    if stage in NEED_TENSORFLOW:
        _start_tensorflow()
    module = import_module(f"image_classification.{stage}")
    if config.search and stage == "train":
        job = import_module("image_classification.search.job")
        found: int = job.main(config, module.train)
        return found
    code: int | None = module.main(config)
    return code


def _start_tensorflow() -> None:
    leave_out_advice_on_tracing()
    with quiet_start():
        config = import_module("tensorflow").config
        config.list_physical_devices()  # it looks for a GPU once
    if backend() == "jax":  # TensorFlow only reads batches, and would take the GPU's memory
        config.set_visible_devices([], "GPU")


if __name__ == "__main__":
    main()
