from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from maru.runtimes.errors import BadModelFile
from maru.runtimes.json_file import JsonFile
from maru.services.style.image.decoding import DecodedImage
from maru.services.style.palettes import Palette, PaletteMatcher

WHITE = {"colors": {"#FFFFFF": 8, "#E0E0E0": 2}, "brightness": 0.97, "contrast": 0.1, "saturation": 0.0}
DARK = {"colors": {"#303030": 5, "#804020": 5}, "brightness": 0.28, "contrast": 0.2, "saturation": 0.3}


def matcher() -> PaletteMatcher:
    return PaletteMatcher([Palette.read(JsonFile("palettes.json", fields)) for fields in (WHITE, DARK)])


def picture(*colors: str) -> DecodedImage:
    rows = [np.full((20, 40, 3), [*bytes.fromhex(color[1:])], np.uint8) for color in colors]
    pixels = np.concatenate(rows)
    return DecodedImage(pixels, pixels, 40, len(pixels), "PNG")


def test_a_picture_of_its_colors_speaks_for_a_style_and_not_for_the_other():
    (light, dark), _ = matcher().answers([picture("#FFFFFF", "#FFFFFF", "#E0E0E0"), picture("#303030", "#804020")])
    assert light[0] > 1 > -3 > light[1] and dark[1] > 1 > -3 > dark[0]


def test_palettes_are_as_far_from_each_other_either_way():
    one, other = (Palette.read(JsonFile("", fields)) for fields in (WHITE, DARK))
    assert one.distance(other) == pytest.approx(other.distance(one))
    assert one.distance(other) > 40 and one.distance(one) == 0


def test_pictures_of_like_colors_are_near_each_other():
    found = matcher().answers(
        [picture("#FFFFFF", "#E8E8E8"), picture("#F0F0F0", "#FAFAFA"), picture("#303030", "#804020")]
    )[1]
    assert all(vector.shape == (64,) and np.linalg.norm(vector) == pytest.approx(1) for vector in found)
    assert found[0] @ found[1] > 0.9 > 0.1 > found[0] @ found[2]


def test_black_and_white_and_one_pixel():
    for image in (Image.new("RGB", (1, 1)), Image.new("RGB", (300, 2), "white")):
        pixels = np.asarray(image)
        assert np.isfinite(matcher().answers([DecodedImage(pixels, pixels, 1, 1, "PNG")])[0]).all()


@pytest.mark.parametrize(
    "change",
    [{"colors": {}}, {"colors": {"white": 1}}, {"colors": {"#FFF": 1}}, {"colors": {"#FFFFFF": 0}},
     {"colors": {"#FFFFFF": "much"}}, {"colors": ["#FFFFFF"]}, {"brightness": None}],
)  # fmt: skip
def test_what_is_no_palette(change):
    with pytest.raises(BadModelFile):
        Palette.read(JsonFile("palettes.json", {**WHITE, **change}))
