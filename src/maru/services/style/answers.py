"""What was found, in the document's words."""

from __future__ import annotations

from typing import Any

from maru.services.style.model import Seen
from maru.services.style.reading import Reading
from maru.services.style.schemas import ImageOptions

DIGITS = 4


def scored(reading: Reading) -> dict[str, Any]:
    """`maru.services.style.schemas.Scored`."""
    return {
        "score": round(reading.score, DIGITS),
        "confidence": round(reading.confidence, DIGITS),
        "style": reading.style,
        "matches": [
            {"style": m.style, "score": round(m.score, DIGITS), "confidence": round(m.confidence, DIGITS)}
            for m in reading.matches
        ],
    }


def seen(found: Seen, options: ImageOptions) -> dict[str, Any]:
    """What `/infer/image` answers, but for the time it took and the version."""
    analysis = found.analysis
    told = {"colors": analysis.colors, **scored(found.reading)}
    if options.extract_features:
        told["features"] = {
            "brightness": analysis.brightness,
            "contrast": analysis.contrast,
            "saturation": analysis.saturation,
        }
    if options.return_embeddings:
        told["embedding"] = found.reading.embedding
    return told
