"""Pictures for tests, as files."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (200, 30, 30), (20, 160, 40), (30, 60, 190), (255, 255, 255)


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def quarters(size: int = 64) -> Image.Image:
    """Four colours, one in each quarter, so that every turn is another picture."""
    pixels = np.empty((size, size, 3), np.uint8)
    half = size // 2
    pixels[:half, :half], pixels[:half, half:] = RED, GREEN
    pixels[half:, :half], pixels[half:, half:] = BLUE, WHITE
    return Image.fromarray(pixels)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth, as photographs are."""
    chance = np.random.default_rng(seed)
    small = chance.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def png(width: int, height: int, data: bytes, depth: int = 8, kind: int = 2, extra: bytes = b"") -> bytes:
    """A PNG of these parts, sound or not; `data` is what its IDAT holds, as it is."""
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def flat_png(width: int, height: int, channels: int = 3, depth: int = 8) -> bytes:
    """All zeros: a small file of any size."""
    row = bytes(1 + width * channels * depth // 8)
    packed = zlib.compressobj(9)
    data = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    return png(width, height, data, depth, {1: 0, 3: 2, 4: 6}[channels])
