"""The bundle that comes with Maru, as it is committed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.services.style.bundle import MANIFEST, StyleBundle
from maru.services.style.image.decoding import DecodedImage
from maru.services.style.starter import starter

STYLE = {
    "모던한 거실에 어울리는 의자": "modern",
    "모던한 거실": "modern",
    "모던하게 꾸민 서재": "modern",
    "contemporary sofa": "modern",
    "미니멀한 소파": "minimal",
    "MINIMALIST desk": "minimal",
    "클래식한 책상": "classic",
    "고풍스럽고 웅장한 샹들리에 크리스탈": "classic",
    "북유럽풍 조명": "scandinavian",
    "scandi chair": "scandinavian",
    "재팬디 침실": "japandi",
    "노출 콘크리트 카페": "industrial",
    "인더스트리얼안 선반": "industrial",
    "임스 라운지 체어": "midcentury",
    "빈티쥐 조명": "vintage",
    "레트로한 감성의 테이블": "vintage",
    "프로방스풍 화장대": "provence",
    "boho rug with tassels": "bohemian",
    "라탄 의자": "natural",
    "한옥에 어울리는 자개장": "hanok",
}
NOTHING = (
    "실시간으로 분석할 텍스트",
    "오늘 점심 뭐 먹지",
    "배송은 언제 되나요",
    "소파",
    "I love you",
    "the meeting starts at three",
    "asdf qwer zxcv",
    "12345",
    "",
    "   ",
    "!!!",
    "🙂",
    "ㅋㅋㅋㅋ",
    "x" * 3000,
    "Grüße aus Köln",
    "코드 리뷰 부탁드립니다",
)


@pytest.fixture(scope="module")
def bundle() -> StyleBundle:
    return StyleBundle.open(starter())


@pytest.fixture
def copied(tmp_path) -> Path:
    return Path(shutil.copytree(starter(), tmp_path / "bundle"))


def test_it_says_what_it_is(bundle):
    assert bundle.stand_in and "stand-in" in bundle.quality and "starter" in bundle.version
    assert len(bundle.styles) >= 12 and "none" not in bundle.styles


@pytest.mark.parametrize(("text", "style"), STYLE.items())
def test_texts_of_a_style(bundle, text, style):
    (found,) = bundle.read_texts([text])
    assert found.style == style and found.score > 0.8 and found.confidence > 0.7, found.matches


@pytest.mark.parametrize("text", NOTHING)
def test_texts_with_nothing_of_style(bundle, text):
    (found,) = bundle.read_texts([text])
    assert found.score < 0.35 and found.confidence < 0.25, found.matches


def test_two_styles_in_one_text(bundle):
    (found,) = bundle.read_texts(["모던하면서도 빈티지한 소파"])
    assert {match.style for match in found.matches[:2]} == {"modern", "vintage"}
    assert all(match.score > 0.7 for match in found.matches[:2]) and found.matches[2].score < 0.3


def test_a_batch_is_read_as_one_by_one(bundle):
    texts = [*STYLE, *NOTHING]
    for text, found in zip(texts, bundle.read_texts(texts), strict=True):
        assert found.matches == bundle.read_texts([text])[0].matches
    assert bundle.read_texts([]) == bundle.read_images([]) == []


def test_images_are_never_believed_much(bundle):
    chance = np.random.default_rng(0)
    for _ in range(20):
        base = chance.integers(0, 256, 3)
        pixels = np.clip(chance.normal(base, 40, (64, 64, 3)), 0, 255).astype(np.uint8)
        (found,) = bundle.read_images([DecodedImage(pixels, pixels, 64, 64, "PNG")])
        assert found.confidence <= 0.25 + 1e-9 and len(found.matches) == 3
        assert found.embedding is not None and found.embedding.dtype == np.float32


def test_several_threads(bundle):
    texts, wrong = [*STYLE], []

    def read() -> None:
        wrong.extend(text for text in texts * 5 if bundle.read_texts([text])[0].style != STYLE[text])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", ["text.safetensors", "vocabulary.json", "palettes.json"])
def test_a_file_that_was_changed(copied, name):
    with (copied / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(BadModelFile, match=f"^{name} does not match its checksum"):
        StyleBundle.open(copied)
    (copied / name).unlink()
    with pytest.raises(BadModelFile, match=f"^{name} is missing"):
        StyleBundle.open(copied)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "not of format 1"),
        ({"format": None}, "not of format 1"),
        ({"files": {}}, "no checksum"),
        ({"files": {"../secret": {"sha256": ""}}}, "not in the bundle's folder"),
        ({"files": {"palettes.json": {}}}, "sha256 is missing"),
        ({"files": ["palettes.json"]}, "wrong type"),
        ({"styles": ["modern"]}, "list of two names"),
        ({"styles": "modern"}, "wrong type"),
        ({"text": {"kind": "telepathy"}}, "one of: ngrams, siglip"),
        ({"image": {"kind": "telepathy"}}, "one of: palettes, siglip"),
        ({"text": {"kind": "ngrams", "calibration": {}}}, "offset for each style"),
        ({"version": None}, "version is missing"),
        ({"stand_in": "yes"}, "wrong type"),
    ],
)
def test_a_manifest_that_is_none(copied, change, said):
    told = json.loads((copied / MANIFEST).read_text())
    (copied / MANIFEST).write_text(json.dumps({**told, **change}))
    with pytest.raises((BadModelFile, UnsupportedModel), match=said):
        StyleBundle.open(copied)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"null"])
def test_no_manifest(copied, content):
    (copied / MANIFEST).write_bytes(content)
    with pytest.raises(BadModelFile):
        StyleBundle.open(copied)
    (copied / MANIFEST).unlink()
    with pytest.raises(BadModelFile, match="missing"):
        StyleBundle.open(copied)


def test_nothing_of_the_training_is_needed_to_serve():
    script = (
        "import sys\n"
        "from maru.services.style.bundle import StyleBundle\n"
        "from maru.services.style.starter import starter\n"
        "StyleBundle.open(starter()).read_texts(['모던']); "
        "print([name for name in ('sklearn', 'scipy', 'torch', 'transformers', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
