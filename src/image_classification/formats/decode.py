"""One image file or array becomes pixels: the same way for the split and for predictions."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I;16L")
DRAFT = 2  # a JPEG is decoded at no less than so many times its final size, then resampled
WHITE = 255
ORIENTATION, TURNED = 0x0112, 5  # EXIF's tag, and its least value with width and height swapped


class DecodeError(Exception):
    """This is not a usable image; the text says why."""


@dataclass(frozen=True)
class ImageHeader:
    """What an image is before it is decoded: width and height as seen, and Pillow's mode."""

    width: int
    height: int
    mode: str


def inspect(source: Path | IO[bytes] | NDArray[Any]) -> ImageHeader:
    """Read the header of an image.

    Raises:
        DecodeError: it has none, or declares more pixels than Pillow considers safe.
    """
    if isinstance(source, np.ndarray):
        _require_image(source)
        grey = source.ndim == 2 or source.shape[2] == 1
        return ImageHeader(source.shape[1], source.shape[0], "L" if grey else "RGB")
    with _opened(source) as image:
        # PNG's own getexif() decodes all pixels, since EXIF may stand after them.
        turned = Image.Image.getexif(image).get(ORIENTATION, 1) >= TURNED
        width, height = image.size[::-1] if turned else image.size
        return ImageHeader(width, height, image.mode)


def decode(
    source: Path | IO[bytes] | NDArray[Any], shape: tuple[int, int, int], resize: str
) -> NDArray[np.uint8]:
    """Decode one image to the shape that a model takes.

    It is turned as its EXIF orientation says; transparent pixels become white; of several frames it
    is the first; 16 bits a pixel become 8. An image that has the size already keeps its pixels.

    Args:
        source: a file, an open one, or an array of whole numbers from 0 to 255, (height, width) or
            (height, width, channels) with 1, 3 or 4 channels.
        shape: height, width, and 1 (grey) or 3 (colour) channels.
        resize: `pad` keeps the aspect ratio and pads with white, `crop` keeps it and cuts off the
            excess, `stretch` does not keep it. All resample with antialiasing.

    Returns:
        uint8, of that shape.

    Raises:
        DecodeError: the image is damaged, empty, cut short, too large to be safe, or too narrow to
            be padded.
    """
    height, width, channels = shape
    if isinstance(source, np.ndarray):
        image = _of_array(source)
        return _pixels(image, height, width, channels, resize)
    with _opened(source) as image:
        side = DRAFT * max(height, width)
        image.draft(None, (side, side))
        return _pixels(image, height, width, channels, resize)


def decode_grey(source: Path | IO[bytes] | NDArray[Any], largest: int) -> NDArray[np.uint8]:
    """Decode one image in grey, in its own size; a larger one keeps its aspect ratio.

    Args:
        source: see `decode`.
        largest: pixels of the longer side, at most.

    Returns:
        uint8 (height, width).

    Raises:
        DecodeError: see `decode`.
    """
    if isinstance(source, np.ndarray):
        image = _of_array(source)
        return _within(image, image.size, largest)
    with _opened(source) as image:
        size = image.size  # before `draft` changes it
        image.draft(None, (DRAFT * largest, DRAFT * largest))
        turned = image.getexif().get(ORIENTATION, 1) >= TURNED
        return _within(image, size[::-1] if turned else size, largest)


def _within(image: Image.Image, size: tuple[int, int], largest: int) -> NDArray[np.uint8]:
    scale = min(1.0, largest / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    return _pixels(image, height, width, 1, "stretch")[..., 0]


@contextmanager
def _opened(source: Path | IO[bytes]) -> Iterator[Image.Image]:
    """Open an image, and turn whatever Pillow raises into a DecodeError."""
    if isinstance(source, Path) and source.stat().st_size == 0:
        raise DecodeError("empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # of odd but readable metadata
            with Image.open(source, formats=FORMATS) as image:
                yield image
    except DecodeError:
        raise
    except Exception as error:  # Pillow's readers raise anything
        raise DecodeError(_cause(error)) from error


def _cause(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return "not an image in one of the formats " + ", ".join(FORMATS)
    text = " ".join(str(error).split())[:150]
    return f"damaged: {text}" if text else f"damaged: {type(error).__name__}"


def _pixels(
    image: Image.Image, height: int, width: int, channels: int, resize: str
) -> NDArray[np.uint8]:
    ImageOps.exif_transpose(image, in_place=True)  # without a copy
    image = _plain(image).convert("L" if channels == 1 else "RGB")
    size, method = (width, height), Image.Resampling.BICUBIC
    if image.size != size:
        if resize == "pad":
            white = WHITE if channels == 1 else (WHITE,) * 3
            image = ImageOps.contain(image, size, method=method)
            if 0 in image.size:
                raise DecodeError("too narrow: nothing is left of it when it is padded")
            image = ImageOps.pad(image, size, method=method, color=white)
        elif resize == "crop":
            image = ImageOps.fit(image, size, method=method)
        else:
            image = image.resize(size, method)
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def _plain(image: Image.Image) -> Image.Image:
    """Without transparency, in 8 bits."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DecodeError(f"pixels of mode {image.mode} have no known range")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (WHITE,) * 4)
        return Image.alpha_composite(white, image)
    return image


def _require_image(array: NDArray[Any]) -> None:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise DecodeError(f"an array of shape {array.shape} is not an image")
    if array.dtype.kind not in "buif":
        raise DecodeError(f"an array of type {array.dtype} is not an image")
    if 0 in array.shape:
        raise DecodeError("empty")


def _of_array(array: NDArray[Any]) -> Image.Image:
    _require_image(array)
    if array.dtype != np.uint8:
        if not np.isfinite(array).all():
            raise DecodeError("has a pixel that is not a number")
        if array.min(initial=0) < 0 or array.max(initial=0) > 255 or (array != array.round()).any():
            raise DecodeError("has a pixel that is not a whole number from 0 to 255")
    return Image.fromarray(
        np.squeeze(array.astype(np.uint8), 2) if array.shape[2:] == (1,) else array.astype(np.uint8)
    )
