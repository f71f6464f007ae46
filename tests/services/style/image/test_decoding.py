"""Files that people send, and what is seen of them."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from maru.services.style.image.decoding import SIDE, SMALL, ImageUnreadable, decode

from .pictures import BLUE, GREEN, RED, WHITE, chunk, flat_png, noise, png, quarters, written


def corners(pixels: np.ndarray) -> list[tuple[int, int, int]]:
    """Top left, top right, bottom left, bottom right."""
    return [tuple(pixels[y, x].tolist()) for y in (4, -5) for x in (4, -5)]


def near(found: list[tuple[int, int, int]], wanted: list[tuple[int, int, int]], off: int = 6) -> bool:
    return int(np.abs(np.array(found) - np.array(wanted)).max()) <= off


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
    ],
)
def test_formats(kind, options):
    image = decode(written(quarters(), kind, **options))
    assert (image.width, image.height, image.format) == (64, 64, kind)
    assert image.pixels.shape == image.small.shape == (64, 64, 3) and image.pixels.dtype == np.uint8
    assert near(corners(image.pixels), [RED, GREEN, BLUE, WHITE])


TURNED = {
    1: [RED, GREEN, BLUE, WHITE],
    2: [GREEN, RED, WHITE, BLUE],
    3: [WHITE, BLUE, GREEN, RED],
    4: [BLUE, WHITE, RED, GREEN],
    5: [RED, BLUE, GREEN, WHITE],
    6: [BLUE, RED, WHITE, GREEN],
    7: [WHITE, GREEN, BLUE, RED],
    8: [GREEN, WHITE, RED, BLUE],
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_turns_the_picture(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(written(quarters().crop((0, 0, 64, 60)), kind, exif=exif, quality=95))
    assert near(corners(image.pixels), TURNED[orientation])
    assert (image.width, image.height) == ((64, 60) if orientation < 5 else (60, 64))
    assert image.pixels.shape[:2] == (image.height, image.width)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_exif_that_is_damaged_leaves_the_picture_as_it_lies(exif):
    assert near(corners(decode(written(quarters(), "JPEG", exif=exif, quality=95)).pixels), TURNED[1])


def test_an_orientation_that_does_not_exist():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert near(corners(decode(written(quarters(), "PNG", exif=exif)).pixels), TURNED[1])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_lies_on_white(kind):
    image = quarters().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert (decode(written(image, kind, **({"exact": True} if kind == "WEBP" else {}))).pixels == 255).all()
    image.putalpha(Image.new("L", image.size, 128))
    halfway = [
        tuple(round(127 / 255 * 255 + value * 128 / 255) for value in color) for color in (RED, GREEN, BLUE, WHITE)
    ]
    assert near(
        corners(decode(written(image, kind, **({"lossless": True} if kind == "WEBP" else {}))).pixels), halfway, 3
    )


def test_transparency_of_palettes_and_of_one_color():
    indexed = quarters().quantize(8)
    whole = decode(written(indexed, "PNG")).pixels
    assert near(corners(whole), [RED, GREEN, BLUE, WHITE])
    hidden = indexed.getpixel((0, 0))
    seen = decode(written(indexed, "PNG", transparency=hidden)).pixels
    assert near(corners(seen), [WHITE, GREEN, BLUE, WHITE])
    seen = decode(written(quarters(), "PNG", transparency=RED)).pixels
    assert near(corners(seen), [WHITE, GREEN, BLUE, WHITE])


def test_cmyk():
    image = decode(written(quarters().convert("CMYK"), "JPEG", quality=97))
    assert near(corners(image.pixels), [RED, GREEN, BLUE, WHITE], 12)


def test_grey_of_16_8_and_1_bits():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(8, 0)
    deep = decode(written(Image.fromarray(ramp), "PNG")).pixels
    plain = decode(written(Image.fromarray((ramp >> 8).astype(np.uint8)), "PNG")).pixels
    assert (deep == plain).all() and deep[0, 0, 0] == 0 and deep[0, -1, 0] == 255
    bits = decode(written(Image.new("1", (9, 9), 1), "PNG")).pixels
    assert (bits == 255).all()


def test_color_of_16_bits():
    row = b"\0" + struct.pack(">3H", 0xFFFF, 0x8000, 0x0000) * 20
    image = decode(png(20, 20, zlib.compress(row * 20), depth=16))
    assert image.pixels[5, 5].tolist() == [255, 128, 0]


def test_the_first_of_several_pictures():
    frames = [Image.new("RGB", (40, 40), color) for color in (GREEN, RED)]
    for kind in ("WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        moving = written(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
        assert near(corners(decode(moving).pixels), [GREEN] * 4, 2)


@pytest.mark.parametrize("shape", [(3000, 2000), (2000, 3001), (1025, 1023), (512, 300), (5000, 7), (1, 3000), (1, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_sizes(shape, kind):
    image = decode(written(noise(*shape), kind, **({"compress_level": 1} if kind == "PNG" else {})))
    assert (image.width, image.height) == shape
    for pixels, side in ((image.pixels, SIDE), (image.small, SMALL)):
        height, width, _ = pixels.shape
        assert max(height, width) <= side and height >= 1 and width >= 1
        if min(shape) > 500:
            assert width / height == pytest.approx(shape[0] / shape[1], rel=0.01)
    if min(shape) > 500:
        assert max(image.pixels.shape) == SIDE


def test_made_small_it_is_the_same_picture():
    given = noise(2200, 1500)
    found = decode(written(given, "PNG", compress_level=1)).pixels
    wanted = np.asarray(given.resize((found.shape[1], found.shape[0]), Image.Resampling.BOX))
    assert np.abs(found.astype(int) - wanted).mean() < 2


def test_pixels_are_counted_before_any_is_decoded():
    with pytest.raises(ImageUnreadable, match="more than 40 million pixels"):
        decode(png(10_000, 4_001, b"not even data"))
    with pytest.raises(ImageUnreadable, match="more than 40 million pixels"):
        decode(png(60_000, 60_000, b"not even data"))
    with pytest.raises(ImageUnreadable, match="damaged"):
        decode(png(10_000, 4_000, b"not even data"))
    with pytest.raises(ImageUnreadable, match="more than 1 million"):
        decode(flat_png(1001, 1000), max_pixels=1_000_000)


def test_a_jpeg_of_endless_scans():
    """Each scan is a pass over all of the picture; a file of kilobytes can have thousands."""
    data = written(Image.new("L", (6000, 6000)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    with pytest.raises(ImageUnreadable, match="too many scans"):
        decode(data[:-2] + scan * 40 + data[-2:])


OTHERS = ("GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "PDF", "EPS")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n",
     b"RIFF\0\0\0\0WEBP", *(written(quarters(), kind) for kind in OTHERS)],
)  # fmt: skip
def test_what_is_no_image_that_is_taken(data):
    with pytest.raises(ImageUnreadable, match=r"not a JPEG, PNG or WebP|damaged"):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_was_cut_off(kind):
    data = written(noise(300, 200), kind)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(ImageUnreadable, match=r"damaged or incomplete|not a JPEG"):
            decode(data[: int(len(data) * share)])


def test_nothing_of_the_file_is_told():
    secret = b"tEXtComment\0my secret place"
    with pytest.raises(ImageUnreadable) as caught:
        decode(png(10, 10, b"rubbish", extra=chunk(b"tEXt", secret)))
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_jpeg_of_several_pictures():
    """As some cameras write them (MPO): the same limits hold."""
    data = written(quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))], quality=95)
    image = decode(data)
    assert image.format == "JPEG" and near(corners(image.pixels), TURNED[1])
    large = written(Image.new("L", (6000, 6000)), "MPO", save_all=True, append_images=[Image.new("L", (6000, 6000))])
    with pytest.raises(ImageUnreadable, match="too many scans"):
        decode(large + b"\xff\xda" * 20)


def test_no_other_decoder_is_even_loaded():
    script = (
        "import sys, io\n"
        "from PIL import Image\n"
        "from maru.services.style.image.decoding import ImageUnreadable, decode\n"
        "file = io.BytesIO(); Image.new('RGB', (9, 9)).save(file, 'WEBP'); decode(file.getvalue())\n"
        "try: decode(b'GIF89a' + bytes(99))\n"
        "except ImageUnreadable: pass\n"
        "print([name for name in ('PsdImagePlugin', 'EpsImagePlugin') if 'PIL.' + name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
