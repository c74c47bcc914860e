"""Stage `split`: the raw files become training, validation and test arrays in data/split/."""

from pathlib import Path

from image_classification.core import paths
from image_classification.core.config import Config, DataConfig
from image_classification.core.errors import UserError
from image_classification.core.files import sha256
from image_classification.data.arrays import Examples, save_split
from image_classification.data.fingerprint import origin
from image_classification.data.splits import hold_out
from image_classification.formats.idx import read_idx


def main(config: Config) -> None:
    """Split a data set."""
    parts = split(config)
    print("  ".join(f"{part} {len(examples.labels):,}" for part, examples in parts.items()))


def split(config: Config) -> dict[str, Examples]:
    """Hold out validation examples from the training images; the test images stay as they are.

    Returns:
        `train`, `validation` and `test`, as written to data/split/.

    Raises:
        UserError: a raw file is missing or damaged, or does not fit the data set's description.
    """
    train = _read(config.data, "train")
    test = _read(config.data, "test")
    parts = {**hold_out(train, config.data, config.data.split_seed), "test": test}
    save_split(paths.SPLIT, parts, origin(config.data))
    return parts


def _read(data: DataConfig, part: str) -> Examples:
    image_file = paths.RAW / data.files[f"{part}_images"].name
    label_file = paths.RAW / data.files[f"{part}_labels"].name
    images, labels = read_idx(image_file), read_idx(label_file)
    if labels.shape != images.shape[:1]:
        raise UserError(f"{image_file} has {len(images)} images, {label_file} {labels.size} labels")
    height, width, channels = data.image_shape
    if images[:1].size != min(1, len(images)) * height * width * channels:
        raise UserError(f"{image_file}: images of {images.shape[1:]}, expected {data.image_shape}")
    if labels.max(initial=0) >= len(data.classes):
        raise UserError(f"{label_file}: label {labels.max()}, but {len(data.classes)} classes")
    for file in (data.files[f"{part}_images"], data.files[f"{part}_labels"]):
        _require_contents(paths.RAW / file.name, file.sha256)
    return Examples(images.reshape(-1, height, width, channels), labels)


def _require_contents(path: Path, expected: str) -> None:
    """Check a raw file again: DVC restores what has gone bad in its cache without looking.

    Raises:
        UserError: the file is not what the data set's description says.
    """
    if sha256(path) != expected:
        raise UserError(
            f"{path} has another SHA-256 than {expected}: have DVC check its cache: "
            f"`chmod -R u+w .dvc/cache && rm -r {path.parent} && dvc repro`"
        )
