"""Files that are not what they say they are: each is refused with a reason, quickly, and never read beyond itself."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maru.engine.errors import ModelLoadFailed
from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.generation import gguf_header
from maru.runtimes.generation.gguf_file import GgufFile
from maru.runtimes.generation.gguf_header import GgufHeader

U32, F32, STRING, ARRAY, U64 = 4, 6, 8, 9, 10


def text(value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def field(key: str, kind: int, content: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + content


def number(key: str, value: int) -> bytes:
    return field(key, U32, struct.pack("<I", value))


def words(key: str, *values: str) -> bytes:
    return field(key, ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values)))


def tensor(name: str, shape: tuple[int, ...], offset: int, dtype: int = 0, dimensions: int | None = None) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", dimensions or len(shape)) + sizes + struct.pack("<IQ", dtype, offset)


LLAMA = [
    field("general.architecture", STRING, text("llama")),
    number("llama.context_length", 128),
    number("llama.embedding_length", 8),
    number("llama.block_count", 1),
    number("llama.attention.head_count", 2),
    words("tokenizer.ggml.tokens", "a", "b"),
]
TENSORS = [tensor("a", (8, 2), 0), tensor("b", (4,), 64)]


def gguf(
    fields: list[bytes] = LLAMA,
    tensors: list[bytes] = TENSORS,
    data: bytes = bytes(128),
    *,
    alignment: int = 32,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(fields))))
    head += b"".join(fields) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


SOUND = gguf()


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], GgufHeader]:
    def read_(content: bytes) -> GgufHeader:
        path = tmp_path / "file.gguf"
        path.write_bytes(content)
        return GgufHeader.read(path)

    return read_


def test_a_sound_file_is_read(read: Callable[[bytes], GgufHeader]) -> None:
    header = read(SOUND)
    assert header.fields["llama.context_length"] == 128
    assert header.fields["tokenizer.ggml.tokens"].values == ("a", "b")
    assert [(name, t.shape, t.size) for name, t in header.tensors.items()] == [("a", (8, 2), 64), ("b", (4,), 16)]


def test_a_long_list_is_walked_through_and_not_kept(read: Callable[[bytes], GgufHeader]) -> None:
    many = [str(i) for i in range(gguf_header.KEPT_ELEMENTS + 1)]
    header = read(gguf([*LLAMA[:-1], words("tokenizer.ggml.tokens", *many), number("after", 7)]))
    assert header.fields["tokenizer.ggml.tokens"].length == len(many)
    assert header.fields["tokenizer.ggml.tokens"].values is None and header.fields["after"] == 7


@pytest.mark.parametrize("cut", range(64))
def test_a_file_cut_anywhere_is_refused(read: Callable[[bytes], GgufHeader], cut: int) -> None:
    length = len(SOUND) * cut // 64
    needed = len(SOUND) - 128 + 64 + 16
    if length < needed:
        with pytest.raises(BadModelFile):
            read(SOUND[:length])


def huge(count: int) -> bytes:
    return struct.pack("<Q", count)


HOSTILE = {
    "another magic": b"GGML" + SOUND[4:],
    "a pickle": b"\x80\x04\x95" + SOUND,
    "a zip": b"PK\x03\x04" + SOUND[4:],
    "2**63 tensors": gguf(counts=(2**63, 6)),
    "2**63 fields": gguf(counts=(2, 2**63)),
    "more tensors than a model has": gguf(counts=(gguf_header.MAX_TENSORS + 1, 6)),
    "more fields than a model has": gguf(counts=(2, gguf_header.MAX_FIELDS + 1)),
    "one tensor more than there is": gguf(counts=(3, 6)),
    "a key of 2**63 bytes": gguf([huge(2**63) + b"x"]),
    "a key of 2**64-1 bytes": gguf([huge(2**64 - 1) + b"x"]),
    "a text longer than the file": gguf([field("a", STRING, huge(1 << 20))]),
    "a text longer than a text may be": gguf([field("a", STRING, text(bytes((1 << 20) + 1)))]),
    "an unknown type": gguf([field("a", 13, b"")]),
    "a list of an unknown type": gguf([field("a", ARRAY, struct.pack("<IQ", 99, 1))]),
    "a list of lists": gguf([field("a", ARRAY, struct.pack("<IQIQ", ARRAY, 1, ARRAY, 1))]),
    "a list of 2**63 numbers": gguf([field("a", ARRAY, struct.pack("<IQ", F32, 2**63))]),
    "a list of 2**62 numbers, 2**64 bytes": gguf([field("a", ARRAY, struct.pack("<IQ", F32, 2**62))]),
    "a list of 2**63 texts": gguf([field("a", ARRAY, struct.pack("<IQ", STRING, 2**63))]),
    "more texts than all models have": gguf(
        [field("a", ARRAY, struct.pack("<IQ", STRING, gguf_header.MAX_STRINGS + 1) + bytes(1 << 20))]
    ),
    "a field twice": gguf([*LLAMA, LLAMA[0]]),
    "an alignment of 0": gguf([*LLAMA, number("general.alignment", 0)]),
    "an alignment of 48": gguf([*LLAMA, number("general.alignment", 48)]),
    "an alignment of 2**31": gguf([*LLAMA, number("general.alignment", 2**31)]),
    "an alignment that is a text": gguf([*LLAMA, field("general.alignment", STRING, text("32"))]),
    "an alignment that is true": gguf([*LLAMA, field("general.alignment", 7, b"\1")], alignment=1),
    "a tensor twice": gguf(tensors=[tensor("a", (8, 2), 0), tensor("a", (4,), 64)]),
    "a tensor's name that is too long": gguf(tensors=[tensor("a" * 200, (8,), 0)]),
    "no dimensions": gguf(tensors=[text("a") + struct.pack("<I", 0) + struct.pack("<IQ", 0, 0)]),
    "five dimensions": gguf(tensors=[tensor("a", (1, 1, 1, 1, 1), 0)]),
    "2**31 dimensions": gguf(tensors=[tensor("a", (1,), 0, dimensions=2**31)]),
    "an unknown dtype": gguf(tensors=[tensor("a", (8,), 0, dtype=4)]),
    "a dtype of 2**32-1": gguf(tensors=[tensor("a", (8,), 0, dtype=2**32 - 1)]),
    "a dimension of nothing": gguf(tensors=[tensor("a", (8, 0), 0)]),
    "a dimension below zero": gguf(tensors=[tensor("a", (2**64 - 1,), 0)]),
    "a product that wraps to something small": gguf(tensors=[tensor("a", (4194305, 4194305, 211106198978564), 0)]),
    "a product that wraps to nothing": gguf(tensors=[tensor("a", (2**16, 2**16, 2**16, 2**16), 0)]),
    "a row that is no whole number of blocks": gguf(tensors=[tensor("a", (8, 32), 0, dtype=8)]),
    "tensors that overlap": gguf(tensors=[tensor("a", (8, 2), 0), tensor("b", (4,), 32)]),
    "tensors in the same place": gguf(tensors=[tensor("a", (8, 2), 0), tensor("b", (4,), 0)]),
    "tensors with a gap": gguf(tensors=[tensor("a", (8, 2), 0), tensor("b", (4,), 96)]),
    "a tensor that is not aligned": gguf(tensors=[tensor("a", (8, 2), 0), tensor("b", (4,), 65)]),
    "an offset of 2**64-32": gguf(tensors=[tensor("a", (8, 2), 2**64 - 32)]),
    "a tensor that ends after the file": gguf(data=bytes(64)),
    "a tensor of a terabyte": gguf(tensors=[tensor("a", (2**20, 2**18), 0)]),
    "no data at all": gguf(data=b""),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_is_refused_at_once(read: Callable[[bytes], GgufHeader], content: bytes) -> None:
    began = time.monotonic()
    with pytest.raises(BadModelFile, match=r"file\.gguf"):
        read(content)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("version", [0, 1, 4, 2**24 * 3])
def test_another_version_or_byte_order_is_said_to_be_that(read: Callable[[bytes], GgufHeader], version: int) -> None:
    with pytest.raises(UnsupportedModel, match="version"):
        read(gguf(version=version))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_spoilt_in_a_file_the_only_error_is_the_typed_one(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    path = tmp_path / "file.gguf"
    path.write_bytes(content)
    try:
        GgufFile.read(path)
    except ModelLoadFailed as error:
        assert "file.gguf" in str(error)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    for name in ("pipe.gguf", "folder.gguf", "nothing.gguf"):
        with pytest.raises(BadModelFile, match=name):
            GgufHeader.read(tmp_path / name)


def test_a_message_never_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile) as refused:
        GgufHeader.read(tmp_path / "nothing.gguf")
    assert str(tmp_path) not in str(refused.value)
