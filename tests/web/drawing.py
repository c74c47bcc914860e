"""Digits as a person draws them: strokes in a box of 1 by 1, drawn by mouse or by finger."""

import math
from collections.abc import Iterator

from playwright.sync_api import CDPSession, Page, expect

Point = tuple[float, float]
Stroke = list[Point]


def arc(x: float, y: float, width: float, height: float, start: float, end: float) -> Stroke:
    """Part of an ellipse; angles in degrees, 0 to the right, clockwise."""
    angles = [math.radians(start + (end - start) * step / 14) for step in range(15)]
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


DIGITS: dict[str, list[Stroke]] = {
    "0": [arc(0.5, 0.5, 0.3, 0.48, -90, 275)],
    "1": [[(0.5, 0.02), (0.5, 0.98)]],
    "2": [[*arc(0.5, 0.28, 0.3, 0.26, 190, 400), (0.2, 0.97), (0.85, 0.97)]],
    "3": [[*arc(0.45, 0.27, 0.3, 0.25, 200, 450), *arc(0.45, 0.74, 0.33, 0.24, -90, 160)]],
    "4": [[(0.3, 0.03), (0.18, 0.55), (0.85, 0.55)], [(0.68, 0.1), (0.64, 0.98)]],
    "5": [[(0.78, 0.04), (0.3, 0.04), (0.27, 0.42), *arc(0.46, 0.68, 0.33, 0.28, -110, 150)]],
    "6": [[(0.66, 0.03), (0.4, 0.3), *arc(0.5, 0.72, 0.28, 0.25, 180, 540)]],
    "7": [[(0.18, 0.06), (0.82, 0.06), (0.42, 0.98)]],
    "8": [
        [
            *arc(0.5, 0.26, 0.22, 0.22, 60, -240),
            *arc(0.5, 0.73, 0.27, 0.25, -60, 240),
            (0.4, 0.46),
            (0.61, 0.45),
        ]
    ],
    "9": [[*arc(0.48, 0.29, 0.25, 0.25, 0, -360), (0.73, 0.29), (0.7, 0.62), (0.62, 0.98)]],
}
# Where in the paper, how large, how slanted: a share of the paper's side.
PLACES = (
    (0.2, 0.12, 0.6, 0.0),
    (0.08, 0.1, 0.5, 0.15),
    (0.4, 0.38, 0.45, -0.1),
    (0.25, 0.2, 0.65, 0.1),
)


def strokes(digit: str, place: tuple[float, float, float, float]) -> list[Stroke]:
    """A digit's strokes on a paper of 1 by 1."""
    left, top, size, slant = place
    return [
        [(left + size * (0.8 * x + slant * (0.5 - y)), top + size * y) for x, y in stroke]
        for stroke in DIGITS[digit]
    ]


def on_page(page: Page, digit: str, place: tuple[float, float, float, float]) -> Iterator[Stroke]:
    """The strokes in the page's own coordinates."""
    box = page.locator("#paper").bounding_box()
    assert box
    for stroke in strokes(digit, place):
        yield [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def by_mouse(page: Page, digit: str, place: tuple[float, float, float, float]) -> None:
    for stroke in on_page(page, digit, place):
        page.mouse.move(*stroke[0])
        page.mouse.down()
        for point in stroke[1:]:
            page.mouse.move(*point)
        page.mouse.up()


def by_touch(
    page: Page, session: CDPSession, digit: str, place: tuple[float, float, float, float]
) -> None:
    def touch(kind: str, *points: Point) -> None:
        touches = [{"x": x, "y": y} for x, y in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    for stroke in on_page(page, digit, place):
        touch("touchStart", stroke[0])
        for point in stroke[1:]:
            touch("touchMove", point)
        touch("touchEnd")


def answered(page: Page) -> str:
    """The answer to all that is drawn, once it is there."""
    drawn = page.locator("body").get_attribute("data-drawn")
    assert drawn
    expect(page.locator("body")).to_have_attribute("data-answered", drawn, timeout=30_000)
    return page.locator("#answer").inner_text()
