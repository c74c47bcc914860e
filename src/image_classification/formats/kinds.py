"""The readers of users' own data, by the value of `data.kind`."""

from collections.abc import Callable

from image_classification.core.config import DataConfig
from image_classification.formats import cifar, folder, npz, python_file, table
from image_classification.formats.records import Reading

READERS: dict[str, Callable[[DataConfig], Reading]] = {
    "folder": folder.read,
    "table": table.read,
    "npz": npz.read,
    "cifar": cifar.read,
    "python": python_file.read,
}
