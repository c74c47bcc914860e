"""Stage `split`: the raw files become training, validation and test arrays in data/split/."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from image_classification.core import paths
from image_classification.core.config import Config, DataConfig
from image_classification.core.errors import UserError
from image_classification.core.files import atomic_folder, sha256
from image_classification.data import sheet, split_plan
from image_classification.data.arrays import Examples, StoredImages, load_split, save_split
from image_classification.data.fingerprint import origin
from image_classification.data.split_plan import Inventory, Plan
from image_classification.data.splits import hold_out
from image_classification.formats import bulk_decode
from image_classification.formats.bulk_decode import Decoded
from image_classification.formats.decode import GREY_MODES, ImageHeader
from image_classification.formats.idx import read_idx
from image_classification.formats.kinds import READERS
from image_classification.formats.listing import require_listed
from image_classification.formats.records import ImageRecord, Problem, Reading

LARGEST_SIDE = 64  # pixels, of images whose shape no setting gives
ROWS = 4096  # that are copied at once


def main(config: Config) -> None:
    """Split a data set."""
    parts = split(config)
    print("  ".join(f"{part} {len(examples.labels):,}" for part, examples in parts.items()))


def split(config: Config) -> dict[str, Examples]:
    """Write the parts of the data set to data/split/.

    For MNIST and the like, validation examples are held out of the training images, and the test
    images stay as they are. The user's own images are checked, decoded and split.

    Returns:
        `train`, `validation` and `test`, as written to data/split/.

    Raises:
        UserError: a raw file is missing or damaged, or does not fit the data set's description.
    """
    if config.data.kind == "idx":
        parts = _official(config.data)
        save_split(paths.SPLIT, parts, origin(config.data))
        return parts
    _split_user_data(config.data)
    written = load_split(paths.SPLIT)
    return {"train": written.train, "validation": written.validation, "test": written.test}


def _official(data: DataConfig) -> dict[str, Examples]:
    train = _read(data, "train")
    test = _read(data, "test")
    assert data.validation_examples is not None
    return {**hold_out(train, data.validation_examples, data.split_seed), "test": test}


def _read(data: DataConfig, part: str) -> Examples:
    image_file = paths.RAW / data.files[f"{part}_images"].name
    label_file = paths.RAW / data.files[f"{part}_labels"].name
    images, labels = read_idx(image_file), read_idx(label_file)
    assert data.image_shape is not None
    assert data.classes is not None
    if labels.shape != images.shape[:1]:
        raise UserError(f"{image_file} has {len(images)} images, {label_file} {labels.size} labels")
    height, width, channels = data.image_shape
    grey = [(height, width)] if channels == 1 else []
    # The same sizes in another order would pass as pixels in the wrong places.
    if images.shape[1:] not in ((height, width, channels), *grey):
        raise UserError(f"{image_file}: images of {images.shape[1:]}, expected {data.image_shape}")
    if labels.max(initial=0) >= len(data.classes):
        raise UserError(f"{label_file}: label {labels.max()}, but {len(data.classes)} classes")
    for file in (data.files[f"{part}_images"], data.files[f"{part}_labels"]):
        _require_contents(paths.RAW / file.name, file.sha256)
    return Examples(images.reshape(-1, height, width, channels), labels)


def _require_contents(path: Path, expected: str) -> None:
    """Check a raw file again: DVC restores corrupt files from its cache without checking.

    Raises:
        UserError: the file is not what the data set's description says.
    """
    if sha256(path) != expected:
        raise UserError(
            f"{path} does not have the SHA-256 {expected}: have DVC check its cache: "
            f"`chmod -R u+w .dvc/cache && rm -r {path.parent} && dvc repro`"
        )


def _split_user_data(data: DataConfig) -> None:
    """Read, check, decode, split and write the user's own images."""
    require_listed(data, paths.RAW)
    reading = READERS[data.kind](data)
    records, found, problems = _inspected(reading)
    shape = _shape(data, found)
    with atomic_folder(paths.SPLIT, replace=True) as folder:
        _require_space(len(records), shape, folder)
        scratch = folder / "all.npy"
        decoded = bulk_decode.decode_all(records, shape, data.resize, scratch)
        problems += [Problem(records[index].name, cause) for index, cause in decoded.causes.items()]
        inventory = _inventory(records, found, decoded)
        _print(problems)  # they may be why there is no plan
        plan, issues = split_plan.plan(inventory, data)
        _print(issues)
        problems += [Problem(*issue) for issue in issues]
        _require_none(problems, len(reading.records) + len(reading.problems), data)
        _write(plan, scratch, folder)
        scratch.unlink()
        known = sheet.of_user_data(plan, inventory, problems, reading.ignored or {})
        (folder / sheet.FILE).write_text(json.dumps(known, indent=1) + "\n")
        described = {**origin(data), "classes": plan.classes}
        (folder / "origin.json").write_text(json.dumps(described, indent=2) + "\n")
    for line in sheet.warnings(known):
        print(line, file=sys.stderr)


def _inspected(reading: Reading) -> tuple[list[ImageRecord], list[ImageHeader], list[Problem]]:
    """The images that have a header, what it says, and the problems so far."""
    problems = list(reading.problems)
    records, found = [], []
    answers = bulk_decode.inspect_all(reading.records)
    for record, answer in zip(reading.records, answers, strict=True):
        if isinstance(answer, str):
            problems.append(Problem(record.name, answer))
        else:
            records.append(record)
            found.append(answer)
    return records, found, problems


def _inventory(records: list[ImageRecord], found: list[ImageHeader], decoded: Decoded) -> Inventory:
    return Inventory(
        names=[record.name for record in records],
        labels=[record.label for record in records],
        parts=[record.part for record in records],
        groups=[record.group for record in records],
        hashes=decoded.hashes,
        perceptual_hashes=decoded.perceptual_hashes,
        sizes=[(image.width, image.height) for image in found],
        modes=[image.mode for image in found],
    )


def _shape(data: DataConfig, found: list[ImageHeader]) -> tuple[int, int, int]:
    """The shape that is set, or else that of the images: their size if all share a small one."""
    if data.image_shape:
        height, width, channels = data.image_shape
        return height, width, channels
    sizes = {(image.height, image.width) for image in found}
    height, width = next(iter(sizes)) if len(sizes) == 1 else (LARGEST_SIDE, LARGEST_SIDE)
    if max(height, width) > LARGEST_SIDE:
        height = width = LARGEST_SIDE
    return height, width, 1 if all(image.mode in GREY_MODES for image in found) else 3


def _require_space(count: int, shape: tuple[int, int, int], folder: Path) -> None:
    """Say how much disk the arrays take, and refuse what does not fit.

    Raises:
        UserError: there is not enough.
    """
    needed = 2 * count * int(np.prod(shape))  # all images at first, then the parts
    free = shutil.disk_usage(folder).free
    height, width, channels = shape
    print(
        f"{count:,} images of {height} x {width} x {channels}: {needed / 2e6:,.1f} MB in "
        f"{paths.SPLIT}, twice that while it is made"
    )
    if needed > free:
        raise UserError(
            f"{paths.SPLIT}: needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free: make "
            "room, or images smaller with data.image_shape"
        )


def _print(problems: Sequence[tuple[str, str]]) -> None:
    for name, cause in problems:
        print(f"{name}: {cause}", file=sys.stderr)


def _require_none(problems: Sequence[Problem], count: int, data: DataConfig) -> None:
    """Check that nothing is bad.

    Raises:
        UserError: there is something, and it is not to be skipped.
    """
    if problems and data.bad_files == "stop":
        raise UserError(
            f"data.path: {len(problems)} bad of {count} in {data.path}, listed above: fix them, "
            "or leave them out with data.bad_files=skip"
        )


def _write(plan: Plan, scratch: Path, folder: Path) -> None:
    """Copy the images of each part out of the file of all, and what belongs to them."""
    images = StoredImages([np.lib.format.open_memmap(scratch, "r")])
    for part, rows in plan.parts.items():
        if part == "unlabelled" and not len(rows):
            continue
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), *images.shape[1:])}
        # Not through memory maps: what is read and written that way counts as memory.
        with (folder / f"{part}_images.npy").open("wb") as target:
            np.lib.format.write_array_header_1_0(target, header)
            for start in range(0, len(rows), ROWS):
                target.write(images[rows[start : start + ROWS]].data)
        # As JSON, since a file's name may hold line breaks.
        lines = [json.dumps(plan.names[row]) + "\n" for row in rows]
        (folder / f"{part}_names.jsonl").write_text("".join(lines))
        if part != "unlabelled":
            labels = plan.labels[rows].astype(plan.label_type())
            np.save(folder / f"{part}_labels.npy", labels, allow_pickle=False)
            np.save(folder / f"{part}_units.npy", plan.units[rows], allow_pickle=False)
