"""Reading a model's JSON files, which are not trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from maru.runtimes.errors import BadModelFile

MAX_BYTES = 16 << 20

T = TypeVar("T")


class JsonFile:
    """An object in a JSON file, whose fields are read with their types checked."""

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.name = name
        self._fields = fields

    @classmethod
    def read(cls, path: Path) -> JsonFile:
        """BadModelFile when it is missing, too large or no object."""
        fields = read_json(path)
        if not isinstance(fields, dict):
            raise BadModelFile(f"{path.name} is not a JSON object")
        return cls(path.name, fields)

    @classmethod
    def read_if_there(cls, path: Path) -> JsonFile:
        """An absent file is an empty object."""
        return cls.read(path) if path.exists() else cls(path.name, {})

    def __bool__(self) -> bool:
        return bool(self._fields)

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """One field; null is as good as absent.

        BadModelFile when it is of another type, or absent with no default.
        """
        value = self._fields.get(key)
        if value is None:
            value = default
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BadModelFile(f"{self.name}: {key} is missing or of the wrong type")
        return value

    def find(self, key: str, kind: type[T]) -> T | None:
        """One field, None when it is absent or null."""
        return None if self._fields.get(key) is None else self.get(key, kind)

    def size(self, key: str) -> int:
        """A field that is a count of at least one."""
        value = self.get(key, int)
        if not 0 < value < 2**31:
            raise BadModelFile(f"{self.name}: {key} is not a possible size")
        return value

    def child(self, key: str) -> JsonFile:
        """An object within this one, empty when absent."""
        return JsonFile(f"{self.name}: {key}", self.get(key, dict, {}))

    def texts(self, key: str) -> dict[str, str]:
        """An object of texts, empty when absent. Entries that are null are left out."""
        found = {name: text for name, text in self.get(key, dict, {}).items() if text is not None}
        if not all(isinstance(text, str) for text in found.values()):
            raise BadModelFile(f"{self.name}: {key} holds something other than text")
        return found


def read_json(path: Path) -> Any:
    """What is in a JSON file. BadModelFile when it is missing, too large, or not JSON."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadModelFile(f"{path.name} is too large")
        return json.loads(path.read_bytes())
    except OSError:
        raise BadModelFile(f"{path.name} is missing or can't be read") from None
    except (ValueError, RecursionError):
        raise BadModelFile(f"{path.name} is not JSON") from None
