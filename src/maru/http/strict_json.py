"""JSON as RFC 7493 (I-JSON) has it: one meaning, whoever reads it.

Everyday parsers take more: `NaN`, a key twice, half of a surrogate pair, integers that a JavaScript client
can't hold. Each has been a 500, or two readers seeing two different requests.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader holds exactly."""

_SURELY_FLOAT = 9e18
"""orjson turns integers beyond 64 bits into floats; below this no float can have been one."""


class BadJson(ValueError):
    """Not acceptable JSON. The message is for the caller and quotes nothing of the document."""


def loads(data: bytes, *, max_depth: int = 32) -> Any:
    """The value of a JSON document in UTF-8. Raises BadJson.

    Refused beside what is not JSON: a byte order mark, numbers that are not finite, integers beyond
    ±(2^53 - 1), duplicate keys, lone surrogates, and arrays and objects nested deeper than `max_depth`.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        # Position and kind are the parser's words; exc.doc, the document, goes no further.
        raise BadJson(f"not valid JSON: {exc}") from None
    if type(value) is dict or type(value) is list:
        members, exact = _inspect(value, max_depth)
        # Every member has one colon outside strings: as many colons as keys means that no key was dropped.
        if not exact or data.count(b":") != members:
            _prove(data)
    elif type(value) is int or type(value) is float:
        _prove(data)
    return value


def _inspect(value: dict[str, Any] | list[Any], levels: int) -> tuple[int, bool]:
    """How many members the objects in here have, and whether every number surely is what was written."""
    if levels < 1:
        raise BadJson("not acceptable JSON: nested too deeply")
    if type(value) is dict:
        members = len(value)
        items: Any = value.values()
    else:
        members = 0
        items = value
    exact = True
    for item in items:
        kind = type(item)
        if kind is str:
            continue
        if kind is float:
            if not -_SURELY_FLOAT < item < _SURELY_FLOAT:
                exact = False
        elif kind is int:
            if not -MAX_INTEGER <= item <= MAX_INTEGER:
                raise _too_large()
        elif kind is dict or kind is list:
            more, surely = _inspect(item, levels - 1)
            members += more
            exact = exact and surely
    return members, exact


def _prove(data: bytes) -> None:
    """Read the document again with a parser that shows every key and every integer as written."""
    try:
        _WITNESS.decode(data.decode())
    except json.JSONDecodeError:
        raise BadJson("not valid JSON") from None


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise BadJson("not acceptable JSON: an object has the same key twice")


def _integer(digits: str) -> None:
    if len(digits) > 17 or not -MAX_INTEGER <= int(digits) <= MAX_INTEGER:
        raise _too_large()


def _too_large() -> BadJson:
    return BadJson("not acceptable JSON: an integer is beyond 2^53 - 1")


_WITNESS = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer)
