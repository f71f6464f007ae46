"""From the bytes of a file that somebody sent to a small picture in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, WebPImagePlugin

FORMATS = tuple(
    str(plugin.format)
    for plugin in (JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile)
)
"""Named by their plugins, which are loaded here: else Pillow would load all it has when it meets the first WebP."""
MAX_PIXELS = 40_000_000
MAX_SCANNED = 16 * MAX_PIXELS
"""Pixels times scans of a JPEG. Each scan of a progressive one goes over the whole picture, and a small file can
have thousands; those that programs write have about ten."""
SIDE = 512
"""The longer side of what is kept, in pixels: the most that a model looks at."""
SMALL = 256
"""The longer side of what is measured: a palette is that of surfaces, not of grain."""
STRIP_PIXELS = 1 << 20
ORIENTATION = 0x0112
DEEP = "I;16"
"""Grey of 16 bits. Colours of 16 bits are read as 8 by the decoder."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF's orientation, what puts a picture upright."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class ImageUnreadable(ValueError):
    """The bytes are no image that is taken. The message is short, is for the caller, and quotes nothing of them."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """The first picture of a file, upright, opaque on white: sRGB, [height, width, 3].

    `pixels` are no larger than `SIDE`, `small` no larger than `SMALL`; `width` and `height` are those of the file's
    picture, upright.
    """

    pixels: Pixels
    small: Pixels
    width: int
    height: int
    format: str


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Read a JPEG, PNG or WebP file; what its name or its sender says of it does not count.

    The size is checked before any pixel is decoded. Five bytes a pixel are held for a time, sixteen for a WebP, and the
    largest take a second: for a worker. Colour profiles are not applied. ImageUnreadable for whatever else the bytes
    are.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image, data, max_pixels)
            return _read(image)
    except ImageUnreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(max_pixels) from None
    except UnidentifiedImageError:
        raise ImageUnreadable("the image is not a JPEG, PNG or WebP file") from None
    except Exception:  # of decoders, which share no base; their messages may quote the file
        raise ImageUnreadable("the image is damaged or incomplete") from None


def _check(image: Image.Image, data: bytes, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(max_pixels)
    if isinstance(image, JpegImagePlugin.JpegImageFile) and width * height * data.count(b"\xff\xda") > MAX_SCANNED:
        raise ImageUnreadable("the image is written in too many scans")


def _too_large(max_pixels: int) -> ImageUnreadable:
    return ImageUnreadable(f"the image has more than {max_pixels // 1_000_000} million pixels")


def _read(image: Image.Image) -> DecodedImage:
    width, height = image.size
    kind = "JPEG" if isinstance(image, JpegImagePlugin.JpegImageFile) else str(image.format)
    image.draft("RGB", (SIDE, SIDE))
    image.load()
    turn = _turn(image)  # after loading: to look for it in a PNG would load, and its failure would be taken for EXIF's
    small = _shrunk(image)
    if turn is not None:
        small = small.transpose(turn)
        if turn in (TURNS[5], TURNS[6], TURNS[7], TURNS[8]):
            width, height = height, width
    smaller = small.reduce(max(1, -(-max(small.size) // SMALL)))
    return DecodedImage(np.asarray(small), np.asarray(smaller), width, height, kind)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What puts the picture upright; one whose EXIF can't be read is taken as it lies."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # EXIF is a file format of its own, with damages of its own
        return None


def _shrunk(image: Image.Image) -> Image.Image:
    """Opaque and small, made strip by strip: only the decoded picture is ever in memory whole."""
    factor = max(1, max(image.size) // SIDE)
    width, height = image.size
    small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = factor * max(1, STRIP_PIXELS // (width * factor))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        small.paste(_reduced(strip, factor), (0, top // factor))
    small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    return small


def _reduced(strip: Image.Image, factor: int) -> Image.Image:
    if strip.mode.startswith(DEEP):
        strip = Image.fromarray((np.asarray(strip) >> 8).astype(np.uint8))
    if not strip.has_transparency_data:
        return strip.convert("RGB").reduce(factor)
    above = strip.convert("RGBA").reduce(factor)
    return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
