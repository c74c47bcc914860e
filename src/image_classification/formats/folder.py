"""Images in folders named after their classes, which may lie in folders named after the parts."""

from collections import Counter, defaultdict
from pathlib import Path

from image_classification.core.config import DataConfig
from image_classification.core.errors import UserError
from image_classification.formats.decode import SUFFIXES
from image_classification.formats.listing import visible_files
from image_classification.formats.records import ImageRecord, Problem, Reading, part_named


def read(data: DataConfig) -> Reading:
    """Find the images below `data.path`: `CLASS/…/image`, or `train/CLASS/…/image`.

    The top folders that hold images are the parts only if all of them have the whole name of a
    part, and one is `train`; a file's name never counts. Classes are the same in all parts.

    Raises:
        UserError: images lie beside `train` and another part.
    """
    root = Path(data.path)
    files = [path.relative_to(root) for path in visible_files(root)]
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    parts = {file.parts[0]: part_named(file.parts[0]) for file in images if len(file.parts) > 1}
    others = sorted(top for top, part in parts.items() if part is None)
    if others and {"train"} < set(parts.values()) - {None}:
        given = ", ".join(sorted(parts.keys() - set(others)))
        raise UserError(
            f"data.path: {root} holds {given}, and beside these parts also images in "
            f"{', '.join(others)[:200]}: move that out of {root}"
        )
    has_parts = "train" in parts.values() and not others
    depth = 1 if has_parts else 0  # of the class folders
    records, problems = [], []
    ignored: Counter[str] = Counter()
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            ignored[file.suffix.lower() or "no suffix"] += 1
        elif len(file.parts) < depth + 2:
            problems.append(Problem(str(file), "is not in a class folder"))
        else:
            part = parts[file.parts[0]] if has_parts else None
            records.append(ImageRecord(str(file), file.parts[depth], root / file, part))
    return Reading(records, [*problems, *_alike([r.label or "" for r in records])], dict(ignored))


def _alike(labels: list[str]) -> list[Problem]:
    """Classes that differ only by case: elsewhere they are one folder."""
    spellings = defaultdict(set)
    for label in labels:
        spellings[label.casefold()].add(label)
    return [
        Problem(name, f"differs from {', '.join(sorted(names - {name}))} only by case")
        for names in spellings.values()
        if len(names) > 1
        for name in sorted(names)
    ]
