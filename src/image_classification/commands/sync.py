"""Command `image-classification sync`: upload to MLflow what it does not have.

After an outage that is what waits in the outbox, and decisions about the champion. After the loss
of the database, or in another clone after `dvc pull`, it is every run whose folder is there.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from image_classification.core import paths
from image_classification.core.command import one_line_errors
from image_classification.core.errors import UserError
from image_classification.promotion import records, registry_state
from image_classification.tracking import event_log, mlflow_promotions, run_folder
from image_classification.tracking.outbox import upload


def main(arguments: Sequence[str]) -> NoReturn:
    """Run the command, which takes no arguments."""
    argparse.ArgumentParser("image-classification sync", description=__doc__).parse_args(arguments)
    with one_line_errors():
        os.chdir(paths.project_root())
        sys.exit(sync())


def sync() -> int:
    """Upload the event logs of all folders, and all promotions; the exit code of outbox.upload."""
    folders = [*_unfinished(), *paths.logged_folders()]
    code = upload(*folders, keep=False)
    for name in records.names():
        state = registry_state.of_records(records.read(name))
        updated = mlflow_promotions.update_registry(name, state.champion, state.tags, state.texts)
        code = max(code, updated)
    if code == 0:
        print(f"MLflow is up to date with the event logs of {len(folders)} folders")
    return code


def _unfinished() -> list[Path]:
    """The folders of runs that no process works on, which are marked as KILLED."""
    found = []
    for folder in run_folder.run_folders():
        try:
            with run_folder.locked_folder(folder):
                log = event_log.EventLog(folder / paths.EVENTS_FILE)
                if log.all and not run_folder.is_finished(folder):
                    last = log.all[-1]
                    if last["type"] != "end":
                        time = last.get("time", event_log.now())
                        log.append("end", status="KILLED", time=time)
                    found.append(folder)
                log.close()
        except UserError as error:
            print(f"{folder}: {error}", file=sys.stderr)
    return found
