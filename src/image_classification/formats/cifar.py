"""CIFAR's binary format: a label, or two, and the planes of red, green and blue, one byte each."""

from pathlib import Path

import numpy as np

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.formats.npz import class_name
from image_classification.formats.records import ImageRecord, Reading

PIXELS = 3 * 32 * 32
FORMS = (  # glob of the training files, test file, bytes of labels, file of the names
    ("data_batch_*.bin", "test_batch.bin", 1, "batches.meta.txt"),
    ("train.bin", "test.bin", 2, "fine_label_names.txt"),
)


def read(data: DataConfig) -> Reading:
    """Read the files of CIFAR-10 or CIFAR-100 (fine labels) in the folder `data.path`.

    Raises:
        UserError: they are missing, or not a whole number of images.
    """
    folder = Path(data.path)
    forms = [form for form in FORMS if any(folder.glob(form[0]))]
    if not forms:
        wanted = " or ".join(form[0] for form in FORMS)
        raise UserError(f"data.path: {folder} does not hold {wanted}: set it to CIFAR's folder")
    pattern, test, labels, names = forms[0]
    batches = sorted(folder.glob(pattern))
    classes = _names(folder / names)
    records: list[ImageRecord] = []
    files = [(path, "train") for path in batches]
    for path, part in [*files, *([(folder / test, "test")] if (folder / test).is_file() else [])]:
        raw = np.fromfile(path, np.uint8)
        if not len(raw) or len(raw) % (labels + PIXELS):
            raise UserError(f"{path}: {len(raw)} bytes are not a whole number of images: fix it")
        rows = raw.reshape(-1, labels + PIXELS)
        images = rows[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for index, (label, image) in enumerate(zip(rows[:, labels - 1], images, strict=True)):
            known = not data.classes and label < len(classes)
            name = classes[label] if known else class_name(int(label), data)
            records.append(ImageRecord(f"{path.name}[{index}]", name, image, part))
    return Reading(records)


def _names(path: Path) -> list[str]:
    return path.read_text().split() if path.is_file() else []
