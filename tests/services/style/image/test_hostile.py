"""Files made to hurt: each is read or refused with ImageUnreadable, soon, and in little memory."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator

import pytest
from PIL import Image

from maru.services.style.image.analysis import analyse
from maru.services.style.image.decoding import ImageUnreadable, decode

from .pictures import chunk, flat_png, noise, png, quarters, written

SECONDS = 2.0
"""Of a processor, so that what else the machine does is left out."""


def sound() -> dict[str, bytes]:
    picture = noise(160, 120)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": written(picture, "JPEG", exif=exif),
        "progressive": written(picture, "JPEG", progressive=True),
        "png": written(picture, "PNG"),
        "palette": written(picture.quantize(64), "PNG"),
        "webp": written(picture, "WEBP"),
        "lossless": written(clear, "WEBP", lossless=True),
        "moving": written(picture, "WEBP", save_all=True, append_images=[noise(160, 120, 1)]),
    }


def damaged() -> Iterator[tuple[str, bytes]]:
    chance = random.Random(0)
    for name, data in sound().items():
        for part in range(1, 16):
            yield f"{name} cut at {part}/16", data[: len(data) * part // 16]
        for number in range(15):
            spoilt = bytearray(data)
            for _ in range(1 + number):
                spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
            yield f"{name} flipped {number}", bytes(spoilt)


def swollen(side: int) -> bytes:
    """A moving WebP of small frames on a canvas of that size."""
    data = bytearray(sound()["moving"])
    assert data[12:16] == b"VP8X"
    data[24:30] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


def bombs() -> Iterator[tuple[str, bytes]]:
    nothing = zlib.compress(bytes(50_000_000), 9)
    yield "40 megapixels of one color", flat_png(8000, 5000)
    yield "40 megapixels with alpha", flat_png(8000, 5000, channels=4)
    yield "40 megapixels of 16 bits", flat_png(8000, 5000, channels=1, depth=16)
    progressive = written(Image.new("RGB", (7000, 5500)), "JPEG", progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield "38 megapixels in as many scans as may be", progressive[:-2] + last * 6 + progressive[-2:]
    yield "one row", flat_png(40_000_000, 1, channels=1)
    yield "one column", flat_png(1, 1_000_000, channels=1)
    yield "more data than rows", png(10, 10, nothing)
    yield "a text that grows", png(10, 10, zlib.compress(bytes(310)), extra=chunk(b"zTXt", b"a\0\0" + nothing))
    yield "an international text that grows", png(10, 10, b"", extra=chunk(b"iTXt", b"a\0\1\0\0\0" + nothing))
    yield "a profile that grows", png(10, 10, zlib.compress(bytes(310)), extra=chunk(b"iCCP", b"a\0\0" + nothing))
    yield "many texts", png(10, 10, zlib.compress(bytes(310)), extra=chunk(b"tEXt", b"a\0b") * 20_000)
    yield "a canvas of 36 megapixels", swollen(6000)
    yield "a canvas of 268 megapixels", swollen(16383)
    yield "no width", png(0, 10, b"")
    yield "a depth that is none", png(10, 10, b"", depth=7)
    yield "a huge width", png(2**31 - 1, 2**31 - 1, b"")
    yield "a chunk longer than the file", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31 - 1) + b"IHDR"
    yield (
        "exif that points to itself",
        written(quarters(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0" + bytes(4)),
    )
    yield "two files in one", written(quarters(), "JPEG") + written(quarters(), "PNG")
    yield "a zip behind it", written(quarters(), "PNG") + b"PK\3\4" + bytes(100)


@pytest.fixture(scope="module")
def corpus() -> list[tuple[str, bytes]]:
    return [*damaged(), *bombs()]


def test_every_one_is_read_or_refused_soon(corpus):
    assert len(corpus) >= 200
    refused = 0
    for name, data in corpus:
        began = time.thread_time()
        try:
            analyse(decode(data))
        except ImageUnreadable as error:
            refused += 1
            assert len(str(error)) < 80 and str(error).startswith("the image"), name
        took = time.thread_time() - began
        assert took < SECONDS, f"{name} took {took:.1f} s"
    assert 0.3 < refused / len(corpus) < 0.95


CHILD = """
import resource, sys
from maru.services.style.image.decoding import ImageUnreadable, decode
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
decode(open(sys.argv[1], "rb").read())
before = peak()
for name in sys.argv[2:]:
    try:
        decode(open(name, "rb").read())
    except ImageUnreadable:
        pass
print(peak() - before)
"""


@pytest.mark.parametrize(("canvas", "most"), [(False, 300), (True, 700)])
def test_memory_is_bounded(tmp_path, canvas, most):
    """40 million pixels at five bytes are 191 MiB, and four copies of a picture would be 600. A WebP takes sixteen."""
    (tmp_path / "first").write_bytes(written(quarters(), "PNG"))
    names = []
    for number, (name, data) in enumerate(bombs()):
        if ("canvas" in name) == canvas:
            (tmp_path / str(number)).write_bytes(data)
            names.append(str(tmp_path / str(number)))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "first"), *names], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < most
