"""The file of pretrained weights: found or fetched, and checked before it is read."""

import os
from pathlib import Path

from image_classification.core import paths
from image_classification.core.config import BackboneConfig, FileConfig
from image_classification.core.errors import UserError, without_login
from image_classification.core.files import sha256
from image_classification.core.locks import locked
from image_classification.sources.mirrors import (
    READING_ERRORS,
    MirrorError,
    fetch_file,
    open_mirror,
)


def find(backbone: BackboneConfig, name: str, mirror: str | None) -> Path:
    """The file of a backbone's weights, fetched if it is not here yet, with the right SHA-256.

    Args:
        backbone: says which weights.
        name: of the file that the mirror or the package has.
        mirror: that has the weights called `imagenet`, if there are any.

    Raises:
        UserError: there is no such file, or it has other contents; names the setting.
    """
    source = backbone.weights
    if source.startswith("pypi:"):
        path, mirror = paths.home() / paths.WEIGHTS / name, source
    elif source != "imagenet":
        path, mirror = paths.home() / source, None
    elif mirror is None:
        raise UserError(f"backbone.weights: Keras has none for {backbone.name}: give another place")
    else:
        path = _keras_home() / "models" / name  # where Keras itself looks first
    if mirror and not path.is_file():
        _fetch(mirror, FileConfig(name, backbone.sha256), path.parent)
    if not path.is_file():
        raise UserError(f"backbone.weights: there is no file {path}")
    found = sha256(path)
    if found != backbone.sha256:
        raise UserError(
            f"backbone.sha256: {path} has {found}, expected {backbone.sha256 or 'one'}: "
            "remove the file, or write down its SHA-256 if you trust it"
        )
    return path


def _keras_home() -> Path:
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def _fetch(mirror: str, file: FileConfig, folder: Path) -> None:
    with locked(folder / f"{file.name}.lock", work=f"is fetching {file.name}"):
        if (folder / file.name).is_file():  # another run has just done it
            return
        try:
            with open_mirror(mirror) as fetch:
                fetch_file(fetch, file, folder)
        except (MirrorError, *READING_ERRORS) as error:
            cause = " ".join(without_login(str(error)).split())[:200]
            raise UserError(
                f"backbone.weights: {mirror} does not give {file.name}: {cause}; put the file "
                f"into {folder}"
            ) from error
