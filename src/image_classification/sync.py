"""Command `image-classification sync`: what MLflow has not been told of the runs, it is told now.

After an outage that is what waits in the outbox. After the loss of the database, or in another
clone after `dvc pull`, it is every run whose folder is there.
"""

import argparse
import os
import sys
from pathlib import Path

from image_classification import checkpoint, delivery, paths, records
from image_classification.command import one_line_errors
from image_classification.errors import UserError


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="image-classification")
    parser.add_argument("command", choices=["sync"], help="tell MLflow what it has not been told")
    parser.parse_args()
    with one_line_errors():
        os.chdir(paths.project_root())
        sys.exit(sync())


def sync() -> int:
    """Tell MLflow all that the folders of the project hold; the exit code of delivery.publish."""
    folders = [*_unfinished(), *paths.recorded_folders()]
    code = delivery.publish(*folders, keep=False)
    if code == 0:
        print(f"MLflow holds all that {len(folders)} folders tell")
    return code


def _unfinished() -> list[Path]:
    """The folders of trainings that no process goes on with, their runs ended as KILLED."""
    found = []
    for path in sorted((paths.home() / paths.CHECKPOINTS).glob(f"*/{paths.RECORDS_FILE}")):
        try:
            with checkpoint.claimed(path.parent):
                file = records.Records(path)
                if file.all and not checkpoint.is_finished(path.parent):
                    last = file.all[-1]
                    if last["type"] != "end":
                        file.append("end", status="KILLED", time=last.get("time", records.now()))
                    found.append(path.parent)
                file.close()
        except UserError as error:
            print(f"{path.parent}: {error}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
