"""One line for one log record, which nothing in the record can break out of."""

from __future__ import annotations

import errno
import logging
import re
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

Fields = Mapping[str, str | int | float | None]
"""What a record says beside its message: `log.info("lifecycle", extra={"fields": {"state": "ready"}})`."""

_LONGEST = 1000
_FRAMES = 12
_CAUSES = 4

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators, and marks that turn the direction of text."""


def _escape(text: str) -> str:
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class JsonLines(logging.Formatter):
    """A JSON object a line: `ts`, `level`, `event`, the record's fields, and `exception` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {"logger": record.name})
        return self.line(record.created, record.levelname, _message(record), fields, _raised(record))

    def line(self, at: float, level: str, event: str, fields: Fields, error: BaseException | None = None) -> str:
        """One line, said at that time (seconds since 1970)."""
        line: dict[str, Any] = {"ts": _timestamp(at), "level": level, "event": event, **fields}
        if error is not None:
            line["exception"] = describe(error)
        try:
            text = orjson.dumps(line).decode()
        except TypeError:  # a lone surrogate, or an integer of more than 64 bits
            text = orjson.dumps(_plain(line)).decode()
        return text if text.isascii() and "\x7f" not in text else _escape(text)


class TextLines(logging.Formatter):
    """The same for a person at a terminal: time, level, event, and the fields that have a value."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        return self.line(record.created, record.levelname, _message(record), fields, _raised(record))

    def line(self, at: float, level: str, event: str, fields: Fields, error: BaseException | None = None) -> str:
        """One line, said at that time (seconds since 1970)."""
        said = [f"{name}={value}" for name, value in fields.items() if value is not None]
        if error is not None:
            told = describe(error)
            said.append(f"exception={told['type']} at {' < '.join(reversed(told['frames']))}")
        line = f"{_timestamp(at)[11:23]} {level:<7} {event} {' '.join(said)}".rstrip()
        return _escape(line.encode("utf-8", "backslashreplace").decode())


def describe(error: BaseException, causes: int = _CAUSES) -> dict[str, Any]:
    """An exception without its message, which may hold what a person wrote: its type, where it was raised,
    what caused it, and the name of the system's error number where it is one."""
    frames = [
        f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_qualname}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    told: dict[str, Any] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "frames": frames[-_FRAMES:],
    }
    if isinstance(error, OSError) and error.errno is not None:
        told["errno"] = errno.errorcode.get(error.errno)
    if causes and isinstance(error, BaseExceptionGroup):
        told["group"] = [describe(one, causes - 1) for one in error.exceptions[:causes]]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if causes and cause is not None:
        told["cause"] = describe(cause, causes - 1)
    return told


def _timestamp(at: float) -> str:
    second, part = divmod(at, 1)
    return f"{_until(int(second))}.{int(part * 1000):03d}Z"


@lru_cache(maxsize=4)
def _until(second: int) -> str:
    """The date and time up to the second, which many lines have in common."""
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def _raised(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _message(record: logging.LogRecord) -> str:
    """The first line of what was logged. An exception in it is named by its type: libraries log
    "failed: %s", and asyncio appends the repr of a failed task in further lines."""
    if isinstance(record.msg, BaseException):
        return type(record.msg).__name__
    text = str(record.msg)
    if record.args:
        with suppress(TypeError, ValueError, KeyError):
            text %= _args(record.args)
    return text.partition("\n")[0][:_LONGEST]


def _args(args: tuple[object, ...] | Mapping[str, object]) -> Any:
    if isinstance(args, Mapping):
        return {key: _named(value) for key, value in args.items()}
    return tuple(map(_named, args))


def _named(value: object) -> object:
    return type(value).__name__ if isinstance(value, BaseException) else value


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(_plain(key)): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case None | bool() | float():
            return value
        case _:
            return str(value).encode("utf-8", "backslashreplace").decode()
