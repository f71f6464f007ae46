from __future__ import annotations

import contextlib
import json
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from maru.runtimes.errors import BadModelFile
from maru.runtimes.safetensors_file import DTYPES, SafetensorsFile
from maru.runtimes.weights import Weights

WIDE = 2**62


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[Any], start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


SOUND = save({"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b.c": np.ones(5, np.float16)}, {"format": "np"})


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("pwned"),))


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "no header": struct.pack("<Q", 0),
    "header longer than the file": raw({}, length=100),
    "header of 2**63": raw({}, length=2**63),
    "header of 2**64-1": raw({}, length=2**64 - 1),
    "header of 2 MiB": raw(b"{" + b" " * (2 << 20) + b"}"),
    "a hundred thousand names": raw({f"n{i}": entry([0], 0, 0) for i in range(100_000)}),
    "twenty thousand short names": raw(b"{" + b",".join(b'"%x":0' % i for i in range(20_000)) + b"}"),
    "not UTF-8": raw(b"{\xff}"),
    "not JSON": raw(b"{not json}"),
    "an array": raw([]),
    "spaces first": raw(b"  {}"),
    "nested deeply": raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a key twice": raw(b'{"a":%s,"a":%s}' % ((json.dumps(entry([1], 0, 4)).encode(),) * 2), b"\0" * 4),
    "a field twice": raw(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
    "metadata of numbers": raw({"__metadata__": {"a": 1}}),
    "metadata of a list": raw({"__metadata__": ["a"]}),
    "a tensor of null": raw({"a": None}),
    "no shape": raw({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"\0" * 4),
    "three offsets": raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, b"\0" * 8),
    "offsets as text": raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}, b"\0" * 4),
    "offsets as floats": raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}}, b"\0" * 4),
    "an unknown dtype": raw({"a": entry([1], 0, 4, "F8_E5M2FNUZ")}, b"\0" * 4),
    "object dtype": raw({"a": entry([1], 0, 8, "O")}, b"\0" * 8),
    "negative size": raw({"a": entry([-1, -1], 0, 4)}, b"\0" * 4),
    "a size of true": raw({"a": entry([True], 0, 4)}, b"\0" * 4),
    "a size of 1e999": raw(b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}', b"\0" * 4),
    "a size of many digits": raw(b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % (b"9" * 9999), b"\0" * 4),
    "five dimensions": raw({"a": entry([1] * 5, 0, 4)}, b"\0" * 4),
    "a product that overflows": raw({"a": entry([4194305, 4194305, 211106198978564], 0, 4)}, b"\0" * 4),
    "a product that wraps to 4": raw({"a": entry([WIDE, 4, 1], 0, 4)}, b"\0" * 4),
    "a size far over the file": raw({"a": entry([WIDE], 0, WIDE * 4)}),
    "a shape smaller than its bytes": raw({"a": entry([1], 0, 8)}, b"\0" * 8),
    "offsets turned round": raw({"a": entry([1], 4, 0)}, b"\0" * 4),
    "negative offsets": raw({"a": entry([1], -4, 0)}, b"\0" * 4),
    "offsets after the end": raw({"a": entry([1], 4, 8)}, b"\0" * 4),
    "overlapping tensors": raw({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, b"\0" * 12),
    "one place twice": raw({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"\0" * 4),
    "a hole": raw({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"\0" * 12),
    "bytes before the first": raw({"a": entry([1], 4, 8)}, b"\0" * 8),
    "bytes after the last": raw({"a": entry([1], 0, 4)}, b"\0" * 8),
    "a pickle": pickle.dumps(Exploit()),
    "a long pickle": pickle.dumps([Exploit(), list(range(10_000))]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[name])
    began = time.perf_counter()
    with pytest.raises(BadModelFile, match=r"model\.safetensors"):
        SafetensorsFile(path)
    assert time.perf_counter() - began < 1


def test_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Exploit()))
    with pytest.raises(BadModelFile):
        SafetensorsFile(path)


def test_a_polyglot_of_both_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(SOUND)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data.pkl", pickle.dumps(Exploit()))
    with pytest.raises(BadModelFile):
        SafetensorsFile(path)


@pytest.mark.parametrize("part", range(64))
def test_a_truncated_file_is_refused(part: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(SOUND[: len(SOUND) * part // 64])
    with pytest.raises(BadModelFile):
        SafetensorsFile(path)


def readings(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with SafetensorsFile(path) as file:
        return {name: file.read(name) for name in file.tensors}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.integers(0, len(SOUND) * 8 - 1), min_size=1, max_size=6))
def test_flipped_bits_are_refused_or_give_a_file_of_the_same_size(flips: list[int], tmp_path: Path) -> None:
    """Nothing in between: no other exception, no tensor larger than the file."""
    spoiled = bytearray(SOUND)
    for bit in flips:
        spoiled[bit // 8] ^= 1 << bit % 8
    path = tmp_path / "model.safetensors"
    path.write_bytes(spoiled)
    try:
        found = readings(path)
    except BadModelFile:
        return
    assert sum(array.nbytes for array in found.values()) <= len(SOUND)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=200), data=st.binary(max_size=64))
def test_any_header_is_refused_or_sound(header: bytes, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw(b"{" + header, data))
    with contextlib.suppress(BadModelFile):
        readings(path)


def test_no_hostile_file_takes_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, content in enumerate(HOSTILE.values()):
        path = tmp_path / str(number)
        path.write_bytes(content)
        with pytest.raises(BadModelFile):
            SafetensorsFile(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_read(dtype: str, tmp_path: Path) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(DTYPES[dtype])
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw({"a": entry([2, 3], 0, values.nbytes, dtype)}, values.tobytes()))
    found = readings(path)["a"]
    assert found.dtype == values.dtype and (found == values).all()


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    tensors = {
        "x": np.random.default_rng(0).standard_normal((5, 7)),
        "y": np.zeros((0, 3), np.float32),
        "z": np.int8(3),
    }
    path = tmp_path / "model.safetensors"
    save_file({name: np.asarray(value) for name, value in tensors.items()}, path)
    for name, found in readings(path).items():
        np.testing.assert_array_equal(found, tensors[name])


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    values = np.float32([1.5, -2.25, 3e38]).astype(ml_dtypes.bfloat16)
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw({"model.w": entry([3], 0, 6, "BF16")}, values.tobytes()))
    with SafetensorsFile(path) as file:
        found = Weights(file, "w")("w", 3)
    assert found.dtype == np.float32 and (found == values.astype(np.float32)).all()


def spoiled_weights(change: Callable[[dict[str, Any]], None], folder: Path) -> Weights:
    tensors: dict[str, Any] = {"bert.w": np.ones((2, 3), np.float32), "bert.v": np.ones(2, np.float32)}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return Weights(SafetensorsFile(folder / "model.safetensors"), "w")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("bert.w"),
        lambda tensors: tensors.update({"other.w": tensors["bert.w"]}),
        lambda tensors: tensors.update({"bert.w": np.ones((3, 2), np.float32)}),
        lambda tensors: tensors.update({"bert.w": np.ones(6, np.float32)}),
        lambda tensors: tensors.update({"bert.w": np.ones((2, 3), np.int32)}),
        lambda tensors: tensors["bert.w"].__setitem__((0, 0), np.nan),
        lambda tensors: tensors["bert.w"].__setitem__((1, 1), -np.inf),
    ],
    ids=["missing", "ambiguous", "turned", "flat", "integers", "not a number", "infinite"],
)
def test_weights_that_are_not_what_they_should_be(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    with pytest.raises(BadModelFile):
        spoiled_weights(change, tmp_path)("w", 2, 3)


def test_weights_are_found_whatever_stands_before_their_names(tmp_path: Path) -> None:
    weights = spoiled_weights(lambda tensors: None, tmp_path)
    assert weights("w", 2, None).shape == (2, 3) and weights("v", 2).shape == (2,)
