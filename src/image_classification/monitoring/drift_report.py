"""The drift report, as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from image_classification.monitoring.observations import Window
from image_classification.monitoring.shifts import (
    CLASSES,
    FEWEST_IMAGES,
    LEVEL,
    MOST_IMAGES,
    Shift,
    compare,
    smallest_distance,
)
from image_classification.monitoring.statistics import Statistics

LEAST_P = 1e-15  # smaller ones are shown as below it
WORDS = {  # its name, and how it has changed when it is lower and when it is higher
    "confidence": ("confidence", "less sure", "surer"),
    "brightness": ("brightness", "darker", "brighter"),
    "lit": ("bright pixels", "fewer", "more"),
    "off_centre": ("distance from the middle", "nearer", "further off"),
    "spread": ("size of what is bright", "smaller", "larger"),
    "slant": ("slant", "leaning more to the right", "leaning more to the left"),
    "sharpness": ("sharpness", "smoother", "sharper or noisier"),
}
HARMLESS = (
    "Drift is not harm: the images differ, but the predictions may still be right. Only images "
    "with known labels can show that: `image-classification feedback list`."
)


@dataclass(frozen=True)
class Report:
    """What a window showed.

    name, model, version: the data set, the run, and the version of its registered model.
    window: what was seen.
    validation_images: how many it was compared with.
    classes: their names.
    shifts: of all statistics; none where the window was too small to judge.
    """

    name: str
    model: str
    version: int | None
    window: Window
    validation_images: int
    classes: Sequence[str]
    shifts: list[Shift]

    @property
    def drift(self) -> bool:
        """Whether anything moved."""
        return any(shift.moved for shift in self.shifts)


def report(
    name: str,
    model: str,
    version: int | None,
    window: Window,
    reference: Statistics,
    classes: Sequence[str],
) -> Report:
    """Judge a window against the statistics of the validation images."""
    enough = len(window.statistics.classes) >= FEWEST_IMAGES
    shifts = compare(reference, window.statistics) if enough else []
    return Report(name, model, version, window, len(reference.classes), classes, shifts)


def as_json(found: Report) -> dict[str, Any]:
    """The report in JSON's types; times in ISO 8601, UTC."""
    shifts = [
        {
            **{key: value for key, value in asdict(shift).items() if key != "number"},
            "moved": shift.moved,
            **({} if shift.number is None else {"class": found.classes[shift.number]}),
        }
        for shift in found.shifts
    ]
    return {
        "name": found.name,
        "model": found.model,
        "version": found.version,
        "key": found.window.key,
        "since": _time(found.window.begin),
        "until": _time(found.window.end),
        "seen": found.window.seen,
        "compared": _compared(found),
        "validation_images": found.validation_images,
        "enough": bool(found.shifts),
        "level": LEVEL,
        "drift": found.drift,
        "shifts": shifts,
    }


def as_text(found: Report) -> str:
    """The report as lines to read."""
    return "\n".join([_head(found), "", *_verdict(found)])


def _head(found: Report) -> str:
    version = "" if found.version is None else f", version {found.version}"
    span = (found.window.begin, found.window.end)
    begin, end = (_time(time).replace("T", " ")[:16] for time in span)
    return (
        f"{found.name}: {found.window.seen:,} images classified by {found.model}{version}, "
        f"from {begin} to {end} UTC.\n"
        f"Compared: {_compared(found):,} of them, with {found.validation_images:,} validation "
        "images."
    )


def _verdict(found: Report) -> list[str]:
    compared = _compared(found)
    if not found.shifts:
        return [f"Too few to judge: {FEWEST_IMAGES} images are needed, {compared} were seen."]
    unseen = smallest_distance(found.validation_images, compared)
    limits = f"With this many images, shifts of a distance below about {unseen:.2f} go unnoticed."
    moved = [shift for shift in found.shifts if shift.moved]
    if not moved:
        return [f"No drift: no adjusted p-value is below {LEVEL:g}.", limits]
    still = [_name(shift) for shift in found.shifts if not shift.moved]
    moved.sort(key=lambda shift: -shift.distance)
    return [
        "Drift: incoming images differ from the validation images.",
        *(f"  {_line(shift, found.classes)}" for shift in moved),
        *([f"No shift detected: {', '.join(still)}."] if still else []),
        f"Chance alone would say so in fewer than 1 of {round(1 / LEVEL):,} such windows. {limits}",
        HARMLESS,
    ]


def _line(shift: Shift, classes: Sequence[str]) -> str:
    p = f"p < {LEAST_P:.0e}" if shift.p < LEAST_P else f"p = {shift.p:.0e}"
    sure = f"distance {shift.distance:.2f}, adjusted {p}"
    if shift.name == CLASSES:
        assert shift.number is not None
        more = "more often" if shift.current > shift.reference else "less often"
        name = classes[shift.number]
        shares = f"{shift.current:.1%} of the images, in validation {shift.reference:.1%}"
        return f"predictions: above all {name}, {more}: {shares} ({sure})"
    what, less, more = WORDS[shift.name]
    same = abs(shift.current - shift.reference) < 5e-4
    direction = "differently spread" if same else more if shift.current > shift.reference else less
    medians = f"median {shift.current:.3f}, in validation {shift.reference:.3f}"
    return f"{what}: {direction}: {medians} ({sure})"


def _name(shift: Shift) -> str:
    return "predictions" if shift.name == CLASSES else WORDS[shift.name][0]


def _compared(found: Report) -> int:
    return min(len(found.window.statistics.classes), MOST_IMAGES)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
