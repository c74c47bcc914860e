"""Texts that have to fit into a figure: names in, captions out."""

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

LINE = 22  # characters that fit above an image of a sheet


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters, the middle of a longer one left out."""
    if len(text) <= most:
        return text
    kept = max(most - 1, 2)
    return f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"


def caption_line(start: str, name: str) -> str:
    """A line of a caption that fits above an image of a sheet, the name shortened if need be."""
    return start + shortened(name, max(LINE - len(start), LINE // 2))


def mistake_captions(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    files: Sequence[str] = (),
) -> list[str]:
    """The label of each image, the class that it is taken for, and the model's confidence.

    Args:
        labels: (n,), the true classes.
        probabilities: (n, classes).
        classes: their names.
        files: (n,), the files' names, shown as well; or empty.
    """
    captions = []
    for label, row in zip(labels, probabilities, strict=True):
        actual, predicted = classes[label], classes[row.argmax()]
        mistake = f"{actual} taken for {predicted}"
        if len(mistake) > LINE:
            mistake = caption_line("", actual) + "\n" + caption_line("taken for ", predicted)
        captions.append(f"{mistake}\n{row.max():.1%} confident")
    return with_files(captions, files)


def with_files(captions: Sequence[str], files: Sequence[str]) -> list[str]:
    """Each caption with the name of its file, without the folders, in a line of its own.

    Args:
        captions: (n,).
        files: (n,), or empty for data without files.
    """
    if not files:
        return list(captions)
    return [
        f"{caption}\n{caption_line('', PurePath(file).name)}"
        for caption, file in zip(captions, files, strict=True)
    ]
