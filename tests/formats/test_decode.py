"""Decoding one image: orientation, transparency, modes, sizes, and what is no image."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_classification.formats.decode import DecodeError, decode, inspect

GREEN, WHITE = [0, 200, 0], [255, 255, 255]


def half_green(width: int = 40, height: int = 20) -> Image.Image:
    """Green on the left, black on the right."""
    image = Image.new("RGB", (width, height))
    image.paste(tuple(GREEN), (0, 0, width // 2, height))
    return image


def test_the_orientation_in_exif_is_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = tmp_path / "x.png"
    half_green().save(path, exif=exif)

    found, pixels = inspect(path), decode(path, (40, 20, 3), "stretch")

    assert (found.width, found.height) == (20, 40)
    assert (pixels[:20] == GREEN).all()
    assert (pixels[20:] == 0).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    path = tmp_path / "x.png"
    if mode == "P":
        palette = Image.new("P", (8, 8), 1)
        palette.putpalette([0, 0, 0, 9, 9, 9])
        palette.paste(0, (0, 0, 4, 8))
        palette.save(path, transparency=1)
    else:
        image.convert(mode).save(path)

    for channels in (1, 3):
        pixels = decode(path, (8, 8, channels), "pad")
        assert (pixels[:, :4] == 0).all()
        assert (pixels[:, 4:] == 255).all()


def test_each_way_to_fit_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    half_green().save(path)

    padded, cropped, stretched = (
        decode(path, (20, 20, 3), how) for how in ("pad", "crop", "stretch")
    )

    assert (padded[:4] == WHITE).all()
    assert (padded[-4:] == WHITE).all()
    assert (padded[10, :8] == GREEN).all()
    for filled in (cropped, stretched):
        assert (filled[:, :8] == GREEN).all()
        assert (filled[:, 12:] == 0).all()


def test_pixels_of_the_right_size_are_kept_and_16_bits_become_8(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 1), dtype=np.uint8)
    for name, values in (("8", pixels[..., 0]), ("16", pixels[..., 0].astype(np.uint16) << 8)):
        path = tmp_path / f"{name}.png"
        Image.fromarray(values).save(path)
        assert np.array_equal(decode(path, (9, 7, 1), "pad"), pixels)
    assert np.array_equal(decode(pixels, (9, 7, 1), "pad"), pixels)


def test_the_shrinking_is_antialiased() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255

    pixels = decode(board.astype(np.uint8), (8, 8, 1), "stretch")

    assert np.abs(pixels.astype(int) - 127).max() < 12


def bomb() -> bytes:
    """A PNG that promises 65,000 x 65,000 pixels."""
    header = struct.pack(">IIBBBBB", 65_000, 65_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def truncated() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()[:5000]


@pytest.mark.parametrize(
    ("contents", "cause"),
    [
        (b"", "empty"),
        (b"<svg></svg>", "not an image"),
        (truncated(), "damaged"),
        (bomb(), "pixels"),
    ],
)
def test_what_is_no_image_is_refused_with_the_cause(
    tmp_path: Path, contents: bytes, cause: str
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(contents)

    with pytest.raises(DecodeError, match=cause):
        decode(path, (8, 8, 3), "pad")


@pytest.mark.parametrize(
    "array",
    [np.zeros(784, np.uint8), np.zeros((2, 3, 4, 5)), np.zeros((8, 8, 2)), np.full((4, 4), "a")],
)
def test_an_array_that_cannot_be_an_image_is_refused_before_its_size_is_asked(array: Any) -> None:
    for read in (inspect, lambda source: decode(source, (8, 8, 1), "pad")):
        with pytest.raises(DecodeError, match="is not an image"):
            read(array)


@pytest.mark.parametrize("wrong", [256, -1, 0.5, float("nan")])
def test_an_array_of_anything_but_bytes_is_refused(wrong: float) -> None:
    array = np.full((4, 4), 7.0)
    assert decode(array, (4, 4, 1), "pad").max() == 7
    array[1, 1] = wrong

    with pytest.raises(DecodeError, match="pixel"):
        decode(array, (4, 4, 1), "pad")


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 64), (0, 0, 1)])
@pytest.mark.parametrize("how", ["pad", "crop", "stretch"])
def test_an_array_without_pixels_is_empty(shape: tuple[int, ...], how: str) -> None:
    for read in (inspect, lambda source: decode(source, (64, 64, 1), how)):
        with pytest.raises(DecodeError, match="empty"):
            read(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(400, 2), (2, 400)])
def test_what_padding_would_leave_nothing_of_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(DecodeError, match="too narrow"):
        decode(np.zeros(shape, np.uint8), (64, 64, 1), "pad")

    kept = decode(np.zeros((shape[0] + 2, shape[1] + 2), np.uint8), (64, 64, 1), "pad")
    assert (kept == 0).any(axis=(0, 2)).sum() in (1, 64)
    assert (decode(np.zeros(shape, np.uint8), (64, 64, 1), "stretch") == 0).all()
