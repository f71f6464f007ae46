"""The style model in the engine's hands: what runs where, what is kept, and what fails alone."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image
from tests.contracts.style.toy import Toy

from maru.engine.engine import Engine
from maru.engine.errors import ModelFailed, OutOfMemory
from maru.engine.model import Prepared
from maru.engine.types import Limits, ModelRef, Request, Result
from maru.services.style.image.decoding import DecodedImage
from maru.services.style.model import (
    NAME,
    QUICK_TEXTS,
    Picture,
    Seen,
    StyleCodec,
    StyleReader,
    Texts,
    UnreadableImage,
    canonical,
    in_batches,
    readings_of,
)
from maru.services.style.reading import Reading


@dataclass
class Noting(Toy):
    """A toy that notes the thread it is read in."""

    where: list[str] = field(default_factory=list)

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        self.where.append(threading.current_thread().name)
        return super().read_texts(texts)

    def read_images(self, images: Sequence[DecodedImage]) -> list[Reading]:
        self.where.append(threading.current_thread().name)
        return super().read_images(images)


def picture() -> Picture:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "#808080").save(file, "PNG")
    return Picture.of(file.getvalue())


def infer(bundle: Toy, *inputs: Texts | Picture, inline: bool | None = None, partial: bool = False) -> Result:
    """What a real engine answers, with `inputs` in one request."""

    async def main() -> Result:
        engine = Engine()
        spec = StyleReader.spec(None, lambda _: bundle, Limits(running=2, waiting=10, max_batch_size=1, workers=2))  # type: ignore[arg-type]
        engine.repository.add(spec)
        resident = await engine.manager.load(spec)
        if inline is not None:
            assert resident.model.inline is inline
        engine.lifecycle.advance("ready")
        request = Request(
            NAME, inputs, engine.clock() + 30, keys=[canonical(each) for each in inputs], partial=partial
        )  # fmt: skip
        try:
            return await engine.infer(request)
        finally:
            await engine.close()

    return asyncio.run(main())


def test_few_texts_are_read_on_the_loop_by_a_quick_bundle() -> None:
    bundle = Noting()
    (output,) = infer(bundle, Texts(("모던", "클래식")), inline=True).outputs
    assert [reading.style for reading in output] == ["모던", "클래식"]
    assert bundle.where[-1] == "MainThread"


@pytest.mark.parametrize("texts", [("모던",) * 17, ("모" * 401,)])
def test_many_texts_and_long_ones_are_read_in_a_thread(texts) -> None:
    bundle = Noting()
    (output,) = infer(bundle, Texts(texts), inline=True).outputs
    assert len(output) == len(texts) and bundle.where[-1] != "MainThread"


def test_a_slow_bundle_reads_nothing_on_the_loop() -> None:
    bundle = Noting(texts_s=0.02)
    result = infer(bundle, Texts(("모던",)), picture(), inline=False)
    assert len(result.outputs) == 2 and "MainThread" not in bundle.where


def test_pictures_are_never_read_on_the_loop() -> None:
    bundle = Noting()
    (found,) = infer(bundle, picture(), inline=True).outputs
    assert isinstance(found, Seen) and found.analysis.colors[0] == "#808080" and bundle.where[-1] != "MainThread"


def test_bytes_that_are_no_image_are_the_callers_fault() -> None:
    (output,) = infer(Toy(), Picture.of(b"hello"), partial=True).outputs
    assert isinstance(output, UnreadableImage) and "hello" not in str(output)


def test_a_text_that_fails_among_others_fails_alone() -> None:
    batches = in_batches([*(f"모던 {n}" for n in range(7)), "고장", "기억", "클래식"], 10)
    found = readings_of(batches, infer(Toy(), *batches))
    assert [type(each) for each in found] == [Reading] * 7 + [ModelFailed, OutOfMemory, Reading]
    assert found[9].style == "클래식"  # type: ignore[union-attr]


def test_batches_are_no_larger_than_asked() -> None:
    bundle = Toy(texts_s=0.02)
    batches = in_batches([str(n) for n in range(25)], 10)
    assert [len(batch.texts) for batch in batches] == [10, 10, 5]
    result = infer(bundle, *batches)
    assert sorted(size for size in bundle.given if size != QUICK_TEXTS) == [5, 10, 10]  # beside those it is warmed with
    assert len(readings_of(batches, result)) == 25


def test_what_is_kept_is_what_was_found() -> None:
    codec = StyleCodec()
    (texts,) = infer(Toy(), Texts(("모던", "클래식"))).outputs
    again = codec.decode(codec.encode(texts))
    assert [(each.style, each.score, each.confidence, each.matches) for each in again] == [
        (each.style, each.score, each.confidence, each.matches) for each in texts
    ]
    (seen,) = infer(Toy(), picture()).outputs
    kept = codec.decode(codec.encode(seen))
    assert isinstance(kept, Seen) and kept.analysis == seen.analysis
    assert kept.reading.matches == seen.reading.matches
    np.testing.assert_array_equal(kept.reading.embedding, seen.reading.embedding)


def test_failures_are_not_kept() -> None:
    codec = StyleCodec()
    (texts,) = infer(Toy(), Texts(("모던", "고장"))).outputs
    with pytest.raises(ValueError, match="not a style"):
        codec.decode(codec.encode(texts))


@pytest.mark.parametrize(
    "data",
    [b"", b"sty1", b"sty1{}", b"sty1[[],[]]", b"sty1[[[1]],null]", b"sty2[[],null]", b"sty1[[],{}]", b"\xff" * 99],
)
def test_other_bytes_are_not_what_was_kept(data) -> None:
    with pytest.raises(ValueError):
        StyleCodec().decode(data)


def test_keys_differ_where_inputs_do() -> None:
    inputs = [
        Texts(("ab",)), Texts(("a", "b")), Texts(("a\0b",)), Texts(("b", "a")), Texts(("a",)), Texts(("a", "")),
        Texts(("\ud800",)), Picture.of(b"a"), Picture.of(b"b"), Picture.of(canonical(Texts(("a",)))),
    ]  # fmt: skip
    assert len({canonical(each) for each in inputs}) == len(inputs)
    assert canonical(Picture.of(b"a")) == canonical(Picture.of(b"a"))


def test_the_cost_of_an_input_is_its_texts() -> None:
    model = StyleReader(Toy())
    ready = model.prepare([Texts(("a", "b", "c"))])[0]
    assert isinstance(ready, Prepared) and ready.cost == 3
    assert StyleReader.spec(None, lambda _: Toy(), Limits()).ref == ModelRef(NAME, "v1.2.0", "toy")  # type: ignore[arg-type]
