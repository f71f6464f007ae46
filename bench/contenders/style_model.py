"""The starter's text matcher, as every contender has it: none of our servers is imported."""

from __future__ import annotations

from typing import Any

from maru.services.style.bundle import StyleBundle
from maru.services.style.reading import Reading
from maru.services.style.starter import starter


class Matcher:
    """Texts to what the document answers."""

    def __init__(self) -> None:
        self._bundle = StyleBundle.open(starter())
        self.version = self._bundle.version

    def one(self, text: str) -> dict[str, Any]:
        (reading,) = self._bundle.read_texts([text])
        return {**_told(reading), "model_version": self.version}

    def many(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """All that one request holds, together."""
        readings = self._bundle.read_texts([item["text"] for item in items])
        results = [{"id": item["id"], **_told(reading)} for item, reading in zip(items, readings, strict=True)]
        return {"results": results, "total_processed": len(results)}


def _told(reading: Reading) -> dict[str, Any]:
    matches = [{"style": m.style, "score": m.score, "confidence": m.confidence} for m in reading.matches]
    return {
        "score": reading.score,
        "confidence": reading.confidence,
        "style": reading.style,
        "matches": matches,
    }
