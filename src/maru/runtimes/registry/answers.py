"""Reading what an MLflow server answers, which is not trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from maru.runtimes.registry.names import checked_version, shown_source
from maru.runtimes.registry.types import RegisteredModel, RegisteredVersion, RegistryUnavailable, VersionNotFound

READY = "READY"


class Nonsense(RegistryUnavailable):
    """An answer that no MLflow server gives."""

    def __init__(self) -> None:
        super().__init__("what answers at the registry's address does not answer as an MLflow server does")


class Answer:
    """A JSON object whose fields are read with their types checked. Anything unexpected is `Nonsense`."""

    def __init__(self, fields: Any) -> None:
        if not isinstance(fields, dict):
            raise Nonsense
        self._fields: dict[str, Any] = fields

    @classmethod
    def read(cls, body: bytes) -> Answer:
        try:
            return cls(json.loads(body))
        except (ValueError, RecursionError):
            raise Nonsense from None

    def text(self, key: str, default: str | None = None) -> str:
        value = self._fields.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise Nonsense
        return value

    def number(self, key: str) -> float | None:
        """None when it is absent. JSON has no 64-bit integers, so MLflow writes those as text."""
        value = self._fields.get(key)
        try:
            return None if value is None or isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            raise Nonsense from None

    def flag(self, key: str) -> bool:
        return self._fields.get(key) is True

    def child(self, key: str) -> Answer:
        return Answer(self._fields.get(key, {}))

    def children(self, key: str) -> Iterator[Answer]:
        items = self._fields.get(key, [])
        if not isinstance(items, list):
            raise Nonsense
        return map(Answer, items)

    def texts(self, key: str, name: str = "key", value: str = "value") -> dict[str, str]:
        """A list of pairs as a dictionary."""
        return {pair.text(name): pair.text(value, "") for pair in self.children(key)}

    def words(self, key: str) -> tuple[str, ...]:
        items = self._fields.get(key, [])
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise Nonsense
        return tuple(items)


def registered_version(
    found: Answer, name: str, *, aliases: tuple[str, ...] | None = None, metrics: Mapping[str, float] | None = None
) -> RegisteredVersion:
    """A version of the model that was asked for."""
    created = found.number("creation_timestamp")
    if found.text("name") != name:
        raise Nonsense
    try:
        version = checked_version(found.text("version"))
    except VersionNotFound:
        raise Nonsense from None
    if found.text("status", READY) != READY:
        raise RegistryUnavailable(f"version {version} is not ready in the registry")
    return RegisteredVersion(
        name,
        version,
        shown_source(found.text("source", "")),
        tuple(sorted(found.words("aliases") if aliases is None else aliases)),
        found.text("run_id", "") or None,
        None if created is None else created / 1e3,
        found.texts("tags"),
        metrics or {},
    )


def registered_model(found: Answer) -> RegisteredModel:
    created = found.number("creation_timestamp")
    return RegisteredModel(
        found.text("name"),
        found.texts("aliases", "alias", "version"),
        None if created is None else created / 1e3,
        found.text("description", ""),
    )


def measured(run: Answer) -> dict[str, float]:
    """The latest value of each metric of a run."""
    metrics = {pair.text("key"): pair.number("value") for pair in run.child("run").child("data").children("metrics")}
    return {key: value for key, value in metrics.items() if value is not None and math.isfinite(value)}
