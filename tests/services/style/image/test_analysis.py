"""What a caller is told of a picture."""

from __future__ import annotations

from PIL import Image

from maru.services.style.image.analysis import analyse
from maru.services.style.image.decoding import decode

from .pictures import quarters, written


def test_three_colors_whatever_the_picture():
    found = analyse(decode(written(quarters(), "PNG")))
    assert len(set(found.colors)) == 3 and all(color == color.upper() and len(color) == 7 for color in found.colors)
    plain = analyse(decode(written(Image.new("RGB", (50, 50), (18, 52, 86)), "PNG")))
    assert plain.colors == ("#123456",) * 3 and plain.shares == (1.0, 0.0, 0.0)


def test_two_colors_repeat_the_first():
    image = Image.new("RGB", (90, 30), "#FFFFFF")
    image.paste(Image.new("RGB", (30, 30), "#000000"), (0, 0))
    found = analyse(decode(written(image, "PNG")))
    assert found.colors == ("#FFFFFF", "#000000", "#FFFFFF") and found.shares == (0.6667, 0.3333, 0.0)
    assert 0.6 < found.brightness < 0.7 and found.contrast > 0.9 and found.saturation == 0
