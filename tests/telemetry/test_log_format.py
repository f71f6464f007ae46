from __future__ import annotations

import logging
import re
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from maru.telemetry.log_format import JsonLines, TextLines

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

hostile = st.text(st.characters(), max_size=40) | st.sampled_from(
    [
        "\ud800",
        "\x1b]0;title\x07",
        "a\nb",
        "\u2028",
        "\x85",
        "\x9b31m",
        "\u202e",
        "\x7f",
        "%s %d %(x)s %",
        "\0",
    ]
)
values = (
    hostile
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.just(2**200)
)


def record(message: Any, args: Any, fields: dict[str, Any] | None, error: BaseException | None) -> logging.LogRecord:
    exc_info = (type(error), error, None) if error else None
    made = logging.LogRecord("maru.test", logging.INFO, "", 0, message, args, exc_info)
    if fields is not None:
        made.fields = fields
    return made


messages = hostile | st.binary(max_size=10) | st.builds(ValueError, hostile) | st.integers()
records = st.builds(
    record,
    messages,
    st.lists(values | st.builds(ValueError, hostile), max_size=3).map(tuple),
    st.none() | st.dictionaries(st.sampled_from(["principal", "model", "items", "total_ms"]), values),
    st.none() | st.builds(ValueError, hostile) | st.builds(OSError, st.integers(-5, 200), hostile),
)


@settings(max_examples=1500, deadline=None)
@given(records)
def test_every_record_is_one_line_of_json(made: logging.LogRecord) -> None:
    line = JsonLines().format(made)
    assert not CONTROL.search(line)
    line.encode("utf-8")
    told = orjson.loads(line)
    assert told["level"] == "INFO"
    for name, value in getattr(made, "fields", {}).items():
        if isinstance(value, str) and value.isprintable():
            assert told[name] == value


@settings(max_examples=1500, deadline=None)
@given(records)
def test_every_record_is_one_line_of_text(made: logging.LogRecord) -> None:
    line = TextLines().format(made)
    assert not CONTROL.search(line)
    line.encode("utf-8")


def test_words_of_any_language_are_kept() -> None:
    line = JsonLines().format(record("모델", (), {"principal": "김철수 😀"}, None))
    assert "김철수 😀" in line
    assert orjson.loads(line)["event"] == "모델"


def test_a_long_message_is_cut() -> None:
    assert len(JsonLines().format(record("x" * 10**6, (), None, None))) < 2000
