from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maru.http.strict_json import MAX_INTEGER, BadJson, loads

REFUSED = {
    "empty": b"",
    "only space": b"  \n",
    "cut off": b'{"a": 1',
    "two documents": b"{} {}",
    "trailing junk": b"[1]x",
    "trailing NUL": b"[1]\0",
    "comment": b"[1] // one",
    "single quotes": b"{'a': 1}",
    "trailing comma": b"[1,]",
    "leading zero": b"[01]",
    "plus sign": b"[+1]",
    "hexadecimal": b"[0x1]",
    "bare word": b"yes",
    "control character": b'["\x01"]',
    "byte order mark": b"\xef\xbb\xbf[1]",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-16 without mark": '{"a": 1}'.encode("utf-16-le"),
    "UTF-32": '{"a": 1}'.encode("utf-32"),
    "Latin-1": '["é"]'.encode("latin-1"),
    "overlong UTF-8": b'["\xc0\xaf"]',
    "encoded surrogate": b'["\xed\xa0\x80"]',
    "NaN": b"[NaN]",
    "Infinity": b'{"a": Infinity}',
    "-Infinity": b"[-Infinity]",
    "nan": b"[nan]",
    "overflow": b"[1e999]",
    "negative overflow": b"[-1e999]",
    "overflow in digits": b"[" + b"9" * 400 + b".0]",
    "lone high surrogate": b'["\\ud800"]',
    "lone low surrogate": b'["\\udc00"]',
    "reversed surrogates": b'["\\udc00\\ud800"]',
    "high surrogate before text": b'["\\ud800x"]',
    "surrogate in a key": b'{"\\udfff": 1}',
    "same key twice": b'{"a": 1, "a": 1}',
    "same key escaped": b'{"a": 1, "\\u0061": 2}',
    "same key with space": b'{"a" : 1, "a":2}',
    "same key deep": b'[{"b": [{"a": 1, "a": 2}]}]',
    "same key hidden by a colon": b'{"x": ":", "a": 1, "a": 2}',
    "same key hidden by a quoted colon": b'{"x": "\\":", "a": 1, "a": 2}',
    "2^53": b"[9007199254740992]",
    "-2^53": b'{"a": -9007199254740992}',
    "2^63": b"[9223372036854775808]",
    "2^64": b"[18446744073709551616]",
    "-2^64": b"[-18446744073709551616]",
    "30 digits": b"[123456789012345678901234567890]",
    "5,000 digits": b"[" + b"1" * 300 + b"]",
    "large at the top": b"9007199254740992",
    "33 deep": b"[" * 33 + b"]" * 33,
    "33 objects deep": b'{"a":' * 32 + b"{}" + b"}" * 32,
    "100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "100,000 open": b"[" * 100_000,
}


@pytest.mark.parametrize("document", REFUSED.values(), ids=REFUSED)
def test_refuses(document: bytes) -> None:
    with pytest.raises(BadJson) as caught:
        loads(document)
    assert len(str(caught.value)) < 150
    shown = caught.value.__cause__ or (not caught.value.__suppress_context__ and caught.value.__context__)
    assert not shown, "the parser's own error holds the whole body"


ACCEPTED: dict[str, tuple[bytes, Any]] = {
    "null": (b"null", None),
    "text": (b' "a" ', "a"),
    "largest integer": (b"9007199254740991", MAX_INTEGER),
    "smallest integer": (b"[-9007199254740991]", [-MAX_INTEGER]),
    "large float": (b"[1e300, -1E+30]", [1e300, -1e30]),
    "large whole float": (b"[9007199254740992.0]", [2.0**53]),
    "tiny float": (b"[1e-999]", [0.0]),
    "surrogate pair": (b'["\\ud83d\\ude00"]', ["😀"]),
    "colons in text": (b'{"a": "x: y", "b": "https://c:1"}', {"a": "x: y", "b": "https://c:1"}),
    "same key in two objects": (b'[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
    "keys that differ in case": (b'{"a": 1, "A": 2}', {"a": 1, "A": 2}),
    "32 deep": (b"[" * 32 + b"]" * 32, json.loads("[" * 32 + "]" * 32)),
    "brackets in text": (b'"' + b"[" * 100 + b'"', "[" * 100),
    "true is not 1": (b"[true, 1, 1.0]", [True, 1, 1.0]),
}


@pytest.mark.parametrize(("document", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(document: bytes, value: Any) -> None:
    read = loads(document)
    assert read == value
    assert repr(read) == repr(value)


def test_depth_can_be_set() -> None:
    assert loads(b"[[[]]]", max_depth=3) == [[[]]]
    with pytest.raises(BadJson):
        loads(b"[[[]]]", max_depth=2)


def test_message_quotes_nothing_of_the_document() -> None:
    for document in (
        b'{"password": hunter2}',
        b'{"hunter2": 1, "hunter2": 2}',
        b'["hunter2\x01"]',
        b"hunter2",
    ):
        with pytest.raises(BadJson) as caught:
            loads(document)
        assert "hunter" not in str(caught.value)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_reads_what_json_writes(value: Any, ascii_only: bool, indent: int | None) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()) == value


PIECES = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", " ", '"a"', '"b"', '"\\u0061"', '":"', '"\\":"', '"\\ud800"', "1", "-0",
     "1e5", "1e999", "9007199254740992", "1" * 25, "NaN", "true", "null", '"', "\\", "\ufeff", "é"]
)  # fmt: skip


@settings(max_examples=1000, deadline=None)
@example(['{"a"', " ", ":1,", '"a"', ":1}"])
@given(st.lists(PIECES, max_size=14))
def test_never_takes_what_a_careful_reading_refuses(pieces: list[str]) -> None:
    document = "".join(pieces).encode()
    expected = careful(document)
    try:
        value = loads(document)
    except BadJson:
        assert expected is REFUSAL
    else:
        assert expected is not REFUSAL
        assert value == expected


REFUSAL = object()


def careful(document: bytes) -> Any:
    """The same rules, slowly: the standard parser with a hook for each."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    def integer(digits: str) -> int:
        if abs(int(digits)) > MAX_INTEGER:
            raise ValueError
        return int(digits)

    def number(digits: str) -> float:
        if not math.isfinite(float(digits)):
            raise ValueError
        return float(digits)

    def constant(word: str) -> None:
        raise ValueError

    try:
        value = json.loads(
            document.decode(),
            object_pairs_hook=unique,
            parse_int=integer,
            parse_float=number,
            parse_constant=constant,
        )
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return REFUSAL
    return value
