"""What a split was made from, and the hash that DVC knows it by."""

import hashlib
import json
from pathlib import Path

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.data.arrays import Split, load_split


def origin(data: DataConfig) -> dict[str, object]:
    """What a split is made from: the same configuration, and files, give the same split."""
    if data.kind != "idx":
        keys = (
            *("table", "image_shape", "resize", "validation_examples", "validation_share"),
            *("test_share", "stratify", "split_seed"),
        )
        chosen = {key: getattr(data, key) for key in keys}
        classes = {"classes": data.classes} if data.classes else {}
        return {"name": data.dataset, "kind": data.kind, **classes, **chosen}
    return {
        "name": data.name,
        "classes": data.classes,
        "validation_examples": data.validation_examples,
        "split_seed": data.split_seed,
        "sha256": {role: file.sha256 for role, file in data.files.items()},
    }


def require_split(folder: Path, data: DataConfig) -> Split:
    """Open the split on disk, which must have been made from this configuration.

    Raises:
        UserError: a file is missing or damaged; or names the key that differs.
    """
    split = load_split(folder)
    hint = "set it in params.yaml or conf/data/ and run `dvc repro split`"
    for key, value in origin(data).items():
        if split.origin.get(key) != value:
            raise UserError(
                f"data.{key}: the split on disk was made with {split.origin.get(key)}, "
                f"not {value}: {hint}"
            )
    for images, labels in (split.train, split.validation, split.test):
        if data.image_shape and list(images.shape[1:]) != data.image_shape:
            raise UserError(
                f"data.image_shape: the split on disk has images of {list(images.shape[1:])}, "
                f"not {data.image_shape}: {hint}"
            )
        if labels.max() >= len(split.classes):
            raise UserError(
                f"data.classes: the split on disk has the label {labels.max()}, but there are "
                f"{len(split.classes)} classes: {hint}"
            )
    return split


def dvc_hash(folder: Path) -> str:
    """The hash under which DVC knows a folder of files: the MD5 of the list of its files' MD5s."""
    entries = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "md5").hexdigest()
        entries.append({"md5": digest, "relpath": path.name})
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"
