from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from maru.engine.errors import InputError, InputTooLong, ModelFailed, ModelLoadFailed, OutOfMemory
from maru.engine.model import Prepared
from maru.engine.types import Limits
from maru.runtimes.packaged import packaged
from maru.services.embedding.model import (
    Embedding,
    EmbeddingCodec,
    Precision,
    SentenceEncoder,
    Text,
    canonical,
)


def load(folder: Path, cache: Path, precision: Precision = "int8", window: int | None = None) -> SentenceEncoder:
    spec = SentenceEncoder.spec("m", folder, precision=precision, max_seq_length=window, cache=cache, limits=Limits())
    model = spec.load()
    assert isinstance(model, SentenceEncoder)
    return model


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def minilm() -> Path:
    folder = packaged("all-MiniLM-L6-v2")
    assert folder
    return folder


@pytest.fixture(scope="module")
def model(minilm: Path, cache: Path) -> SentenceEncoder:
    return load(minilm, cache)


@pytest.fixture(scope="module")
def with_prompts(minilm: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> SentenceEncoder:
    """MiniLM with prompts and shorter vectors declared, as EmbeddingGemma has."""
    folder = tmp_path_factory.mktemp("prompted")
    for file in minilm.rglob("*"):
        if file.is_file():
            place = folder / file.relative_to(minilm)
            place.parent.mkdir(exist_ok=True)
            place.symlink_to(file)
    general = folder / "config_sentence_transformers.json"
    general.unlink()
    prompts = {"query": "search query: ", "passage": "passage: ", "Clustering": "cluster: "}
    general.write_text(json.dumps({"prompts": prompts, "matryoshka_dimensions": [128, 256, 384]}))
    return load(folder, cache)


def embedded(model: SentenceEncoder, texts: Sequence[Text]) -> list[Any]:
    """What the engine would answer: an embedding, or an error in its place."""
    prepared = model.prepare(texts)
    ready = [item.value for item in prepared if isinstance(item, Prepared)]
    made = iter(model.predict(ready)) if ready else iter(())
    return [next(made) if isinstance(item, Prepared) else item for item in prepared]


def vector(model: SentenceEncoder, content: str | tuple[int, ...], **options: Any) -> np.ndarray[Any, Any]:
    (output,) = embedded(model, [Text(content, **options)])
    if isinstance(output, Exception):
        raise output
    found: np.ndarray[Any, Any] = output.vector
    return found


def test_a_text_and_what_is_like_it(model: SentenceEncoder) -> None:
    query = vector(model, "How do I reset my password?")
    near = vector(model, "I forgot my login and need a new password.")
    far = vector(model, "Basalt is a fine-grained volcanic rock.")
    assert query @ near > 0.5 > 0.2 > query @ far


def test_what_an_embedding_is(model: SentenceEncoder) -> None:
    (output,) = embedded(model, [Text("Hello, world")])
    assert isinstance(output, Embedding)
    assert output.vector.dtype == np.float32 and output.vector.shape == (384,) and output.tokens == 5
    assert not output.vector.flags.writeable
    assert np.linalg.norm(output.vector) == pytest.approx(1, abs=1e-6)


def test_the_cost_is_the_number_of_tokens(model: SentenceEncoder) -> None:
    short, long = model.prepare([Text("Hello, world"), Text("word " * 1000)])
    assert isinstance(short, Prepared) and isinstance(long, Prepared)
    assert (short.cost, long.cost) == (5, 256)


def test_one_bad_text_fails_alone(model: SentenceEncoder) -> None:
    given = [
        Text("one"),
        Text("  \n"),
        Text("two", task="nonsense"),
        Text("\ud800"),
        Text("three"),
        Text((1, 99999)),
    ]
    outputs = embedded(model, given)
    assert [isinstance(output, Embedding) for output in outputs] == [True, False, False, False, True, False]
    assert all(isinstance(output, InputError) for output in outputs if not isinstance(output, Embedding))
    np.testing.assert_allclose(outputs[4].vector, vector(model, "three"), atol=1e-5)


def test_messages_say_what_is_allowed_and_not_what_was_sent(with_prompts: SentenceEncoder) -> None:
    task, size = embedded(with_prompts, [Text("secret", task="secret"), Text("secret", dimensions=300)])
    assert str(task) == "unknown task; this model knows: Clustering, document, passage, query"
    assert str(size) == "dimensions must be one of: 128, 256, 384"
    assert not any("secret" in str(error) for error in (task, size))


def test_a_text_that_is_too_long_is_cut_or_refused(model: SentenceEncoder) -> None:
    long = "word " * 300
    cut, refused = embedded(model, [Text(long), Text(long, truncate=False)])
    assert cut.tokens == 256
    assert isinstance(refused, InputTooLong) and str(refused) == "the text has 302 tokens, and the model takes 256"
    exactly = "word " * 254
    np.testing.assert_allclose(cut.vector, vector(model, exactly, truncate=False), atol=1e-5)


def test_a_smaller_window_can_be_set_and_a_larger_one_not(minilm: Path, cache: Path) -> None:
    small, large = load(minilm, cache, window=16), load(minilm, cache, window=4000)
    assert small.metadata["max_seq_length"] == 16 and large.metadata["max_seq_length"] == 256
    assert embedded(small, [Text("word " * 50)])[0].tokens == 16


def test_tasks(with_prompts: SentenceEncoder, model: SentenceEncoder) -> None:
    plain = vector(with_prompts, "what is a transistor")
    asked = vector(with_prompts, "what is a transistor", task="query")
    np.testing.assert_allclose(asked, vector(with_prompts, "search query: what is a transistor"), atol=1e-5)
    assert np.abs(asked - plain).max() > 0.01
    as_document = vector(with_prompts, "a transistor", task="document")
    np.testing.assert_allclose(as_document, vector(with_prompts, "passage: a transistor"), atol=1e-5)
    for task in ("query", "document"):
        np.testing.assert_allclose(vector(model, "as it is", task=task), vector(model, "as it is"), atol=1e-5)


def test_shorter_vectors(with_prompts: SentenceEncoder, model: SentenceEncoder) -> None:
    whole = vector(with_prompts, "a text")
    short = vector(with_prompts, "a text", dimensions=128)
    assert short.shape == (128,) and np.linalg.norm(short) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(short, whole[:128] / np.linalg.norm(whole[:128]), atol=1e-5)
    assert vector(model, "a text", dimensions=384).shape == (384,)
    with pytest.raises(InputError, match="384"):
        vector(model, "a text", dimensions=128)
    with pytest.raises(InputError, match="384"):
        vector(model, "a text", dimensions=0)


def test_vectors_that_are_not_normalised(with_prompts: SentenceEncoder) -> None:
    whole = vector(with_prompts, "a text")
    raw = vector(with_prompts, "a text", normalize=False)
    length = np.linalg.norm(raw)
    assert length != pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(raw / length, whole, atol=1e-5)
    short = vector(with_prompts, "a text", normalize=False, dimensions=128)
    np.testing.assert_allclose(short, raw[:128], atol=1e-5)


def test_options_of_one_text_do_not_touch_another(with_prompts: SentenceEncoder) -> None:
    kinds = itertools.product((None, "query"), (None, 128, 256), (True, False))
    texts = [Text(f"text {number}", *kind) for number, kind in enumerate(kinds)]
    together = embedded(with_prompts, texts)
    for text, output in zip(texts, together, strict=True):
        (alone,) = embedded(with_prompts, [text])
        np.testing.assert_allclose(output.vector, alone.vector, atol=1e-5)


def test_token_ids_are_taken_as_they_are(model: SentenceEncoder, with_prompts: SentenceEncoder) -> None:
    (ids,) = model.tokenize(["Hello, world"])
    np.testing.assert_allclose(vector(model, tuple(ids)), vector(model, "Hello, world"), atol=1e-5)
    assert embedded(model, [Text(tuple(ids[1:-1]))])[0].tokens == len(ids) - 2
    assert embedded(model, [Text((7,) * 1000)])[0].tokens == 256
    for wrong in ((), (30522,), (-1,), (2**31 - 1,)):
        with pytest.raises(InputError, match="vocabulary"):
            vector(model, wrong)
    with pytest.raises(InputError, match="task"):
        vector(with_prompts, tuple(ids), task="query")


def test_tokenize_is_whole_and_without_a_prompt(model: SentenceEncoder) -> None:
    short, long = model.tokenize(["Hello, world", "word " * 1000])
    assert short == [101, 7592, 1010, 2088, 102] and len(long) == 1002
    with pytest.raises(InputError, match="Unicode"):
        model.tokenize(["fine", "\udc00"])


def test_what_is_quick(model: SentenceEncoder) -> None:
    assert model.quick([Text("Hello, world")] * 4)
    assert model.quick([Text("안녕하세요, 반갑습니다!")])
    assert not model.quick([Text("a" * 2000)])
    assert not model.quick([Text("가" * 400)])
    assert not model.quick([Text("a")] * 40)


def test_the_description(model: SentenceEncoder, minilm: Path) -> None:
    described = model.metadata
    assert described["dimension"] == 384 and described["dimensions"] == [384]
    assert described["max_seq_length"] == 256 and described["tasks"] == ["document", "query"]
    assert (described["architecture"], described["precision"], described["pooling"]) == (
        "bert",
        "int8",
        "mean",
    )
    assert described["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]
    json.dumps(described)
    assert 20 << 20 < model.memory_bytes < 30 << 20


def test_what_computes_alike_has_one_digest_and_what_does_not_has_another(minilm: Path, tmp_path: Path) -> None:
    def digest(precision: Precision, window: int | None) -> str:
        spec = SentenceEncoder.spec(
            "m", minilm, precision=precision, max_seq_length=window, cache=tmp_path, limits=Limits()
        )
        assert spec.ref.version and spec.memory_bytes > 10 << 20
        return spec.ref.digest

    settings: list[tuple[Precision, int | None]] = [
        ("int8", None),
        ("fp16", None),
        ("fp32", None),
        ("int8", 64),
    ]
    assert digest("int8", None) == digest("int8", None)
    assert len({digest(*setting) for setting in settings}) == 4


def test_warming_needs_nothing(model: SentenceEncoder) -> None:
    model.warm()


def test_weights_that_overflow_give_an_error_and_no_vector_of_nan(minilm: Path, tmp_path: Path, cache: Path) -> None:
    for file in minilm.rglob("*"):
        if file.is_file() and file.suffix in (".json", ".safetensors"):
            place = tmp_path / file.relative_to(minilm)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["encoder.layer.5.output.LayerNorm.weight"][:] = np.finfo(np.float32).max
    save_file(tensors, tmp_path / "model.safetensors")
    outputs = embedded(load(tmp_path, cache, "fp32"), [Text("hello"), Text("goodbye")])
    assert [type(output) for output in outputs] == [ModelFailed, ModelFailed]


def test_no_memory_is_said_to_be_that(model: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any) -> Any:
        raise MemoryError

    (ready,) = model.prepare([Text("a")])
    assert isinstance(ready, Prepared)
    monkeypatch.setattr(model._encoder._session, "_session", type("Full", (), {"run": no_memory})())
    with pytest.raises(OutOfMemory):
        model.predict([ready.value])


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40), st.integers(0, 2**31))
def test_an_embedding_survives_the_cache(values: list[float], tokens: int) -> None:
    codec = EmbeddingCodec()
    found = codec.decode(codec.encode(Embedding(np.asarray(values, np.float32), tokens)))
    assert found.tokens == tokens and found.vector.tolist() == np.float32(values).tolist()
    assert found.vector.dtype == np.float32 and not found.vector.flags.writeable


@given(st.binary(max_size=64))
def test_foreign_bytes_are_no_embedding(data: bytes) -> None:
    if not data.startswith(b"emb1"):
        with pytest.raises(ValueError, match="not an embedding"):
            EmbeddingCodec().decode(data)


def test_a_cut_embedding_is_none() -> None:
    whole = EmbeddingCodec().encode(Embedding(np.ones(8, np.float32), 3))
    for size in range(len(whole)):
        if size > 8 and size % 4 == 0:
            continue  # a shorter vector: the cache knows nothing of dimensions
        with pytest.raises(ValueError, match="not an embedding"):
            EmbeddingCodec().decode(whole[:size])


TEXTS = st.builds(
    Text,
    st.one_of(st.text(st.characters(), max_size=6), st.lists(st.integers(0, 2**31), max_size=3).map(tuple)),
    st.one_of(st.none(), st.text(max_size=4)),
    st.one_of(st.none(), st.integers(0, 2048)),
    st.booleans(),
    st.booleans(),
)


@given(TEXTS, TEXTS)
def test_keys_are_equal_for_equal_texts_only(one: Text, other: Text) -> None:
    assert (canonical(one) == canonical(other)) == (one == other)


def test_keys_that_could_be_mistaken_for_one_another() -> None:
    texts = [
        Text("a"), Text("a", ""), Text("a", "q"), Text("qa"), Text("", "qa"), Text("a", dimensions=0),
        Text("a", dimensions=1), Text("a", normalize=False), Text("a", truncate=False), Text((97,)), Text(()),
        Text(""), Text((97, 0)), Text("é"), Text("e\u0301"), Text("a", "\0"), Text("\0", "a"), Text("\0a"),
    ]  # fmt: skip
    assert len({canonical(text) for text in texts}) == len(texts)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed):
        SentenceEncoder.spec("m", tmp_path, precision="int8", max_seq_length=None, cache=tmp_path, limits=Limits())
