"""The data set on disk: IDX files as they are published, NumPy arrays as the split keeps them."""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_classification import readers
from image_classification.config import DataConfig
from image_classification.errors import UserError
from image_classification.files import written_whole

UNSIGNED_BYTE = 0x08  # the element type in an IDX header
# The header of a .npy file is a Python literal, and NumPy lets these through.
HEADER_ERRORS = (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError)


class Examples(NamedTuple):
    """Images and their labels.

    images: uint8 (n, height, width, channels), 0 to 255.
    labels: uint8 (n,), indices into the data set's classes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class Split:
    """What stage `split` made; the arrays stay on disk until they are read.

    `origin` is what the function of that name said of the configuration it was made from.
    """

    train: Examples
    validation: Examples
    test: Examples
    origin: dict[str, object]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes.

    The format: two zero bytes, the element type, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the elements, the last dimension varying fastest.

    Raises:
        UserError: the file is missing, or is not exactly what its header says.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run `dvc repro download`")
    way_out = f"remove it and run `dvc repro --force --single-item download`: {path}"
    with path.open("rb") as stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:3] != bytes([0, 0, UNSIGNED_BYTE]) or magic[3] == 0:
            raise UserError(f"not an IDX file of unsigned bytes, {way_out}")
        header = stream.read(4 * magic[3])
        if len(header) < 4 * magic[3]:
            raise UserError(f"the header is cut short, {way_out}")
        shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
        # Compared before anything is allocated: a false header may promise any size.
        expected = math.prod(shape)
        found = path.stat().st_size - stream.tell()
        if found != expected:
            raise UserError(f"the header promises {expected} bytes, {found} follow, {way_out}")
        try:
            return np.fromfile(stream, np.uint8).reshape(shape)
        except ValueError as error:  # more dimensions than NumPy has
            raise UserError(f"{error}, {way_out}") from error


def save_split(folder: Path, parts: dict[str, Examples], origin: dict[str, object]) -> None:
    """Write `{part}_images.npy` and `{part}_labels.npy` for each part, and where they come from.

    Raises:
        UserError: the folder can't be written, or the disk is full.
    """
    with written_whole(folder) as fresh:
        for part, examples in parts.items():
            np.save(fresh / f"{part}_images.npy", examples.images, allow_pickle=False)
            np.save(fresh / f"{part}_labels.npy", examples.labels, allow_pickle=False)
        (fresh / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")


def load_split(folder: Path) -> Split:
    """Open what `save_split` wrote, memory-mapped and read-only.

    Raises:
        UserError: a file is missing, or is not what `save_split` writes.
    """
    way_out = "run `dvc repro --force split`"
    parts = {
        part: Examples(
            _open_array(folder / f"{part}_images.npy", 4),
            _open_array(folder / f"{part}_labels.npy", 1),
        )
        for part in ("train", "validation", "test")
    }
    for part, (images, labels) in parts.items():
        if not 0 < len(images) == len(labels):
            counts = f"{len(images)} images, {len(labels)} labels"
            raise UserError(f"{folder} is damaged ({part}: {counts}): {way_out}")
    return Split(**parts, origin=readers.read_mapping(folder / "origin.json", way_out))


def _open_array(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Map a .npy file into memory; a false header promises what it likes and allocates nothing."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        assert array.offset is not None
        if array.dtype != np.uint8 or array.ndim != dimensions:
            raise ValueError(f"{array.dtype} {array.shape}")
        if array.offset + array.nbytes != path.stat().st_size:
            raise ValueError("more bytes than the header promises")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run `dvc repro split`") from error
    except (*HEADER_ERRORS, EOFError, OverflowError) as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({cause}): run `dvc repro --force split`") from error
    return array


def split_of_training(folder: Path, data: DataConfig, seed: int) -> Split:
    """The split that a training with this seed uses.

    It is the one on disk or, with `data.split_per_seed`, another draw of as many validation
    examples from what is not test, from both seeds.

    Raises:
        UserError: a file is missing or damaged, or was made from another configuration.
    """
    split = load_split(folder)
    require_origin(split, data)
    if not data.split_per_seed:
        return split
    both = Examples(
        np.concatenate([split.train.images, split.validation.images]),
        np.concatenate([split.train.labels, split.validation.labels]),
    )
    (drawn,) = np.random.SeedSequence([data.split_seed, seed]).generate_state(1)
    parts = set_aside(both, data, int(drawn))
    return replace(split, train=parts["train"], validation=parts["validation"])


def set_aside(examples: Examples, data: DataConfig, seed: int) -> dict[str, Examples]:
    """Part a shuffle of the examples, drawn from the seed, into `train` and `validation`.

    Raises:
        UserError: there would be none to train with.
    """
    from sklearn.model_selection import train_test_split

    if data.validation_examples >= len(examples.labels):
        raise UserError(
            f"data.validation_examples: {data.validation_examples} of "
            f"{len(examples.labels)} training images leave none to train with"
        )
    train, validation = train_test_split(
        np.arange(len(examples.labels)), test_size=data.validation_examples, random_state=seed
    )
    return {
        "train": Examples(examples.images[train], examples.labels[train]),
        "validation": Examples(examples.images[validation], examples.labels[validation]),
    }


def origin(data: DataConfig) -> dict[str, object]:
    """What a split is made from: the same configuration gives the same split."""
    return {
        "name": data.name,
        "classes": data.classes,
        "validation_examples": data.validation_examples,
        "split_seed": data.split_seed,
        "sha256": {role: file.sha256 for role, file in data.files.items()},
    }


def require_origin(split: Split, data: DataConfig) -> None:
    """Refuse a split that was made from another configuration than this one, or does not fit it.

    Raises:
        UserError: names what differs.
    """
    way_out = "set it in params.yaml or conf/data/ and run `dvc repro split`"
    for key, value in origin(data).items():
        if split.origin.get(key) != value:
            raise UserError(
                f"data.{key}: the split on disk was made with {split.origin.get(key)}, "
                f"not {value}: {way_out}"
            )
    for images, labels in (split.train, split.validation, split.test):
        if list(images.shape[1:]) != data.image_shape:
            raise UserError(
                f"data.image_shape: the split on disk has images of {list(images.shape[1:])}, "
                f"not {data.image_shape}: {way_out}"
            )
        if labels.max() >= len(data.classes):
            raise UserError(
                f"data.classes: the split on disk has the label {labels.max()}, but there are "
                f"{len(data.classes)} classes: {way_out}"
            )


def dvc_hash(folder: Path) -> str:
    """The hash under which DVC knows a folder of files: the MD5 of the list of its files' MD5s."""
    entries = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "md5").hexdigest()
        entries.append({"md5": digest, "relpath": path.name})
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"
