"""The YAML files that a lexicon is written in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from maru.services.style.training.errors import BadLexicon


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file. BadLexicon when it is none."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        raise BadLexicon(f"{path.name} can't be read as YAML") from None
    return mapping(found, path.name)


def mapping(found: Any, place: str) -> dict[str, Any]:
    """What was found, if it is a mapping with something in it."""
    if not isinstance(found, dict) or not found:
        raise BadLexicon(f"{place} is no mapping")
    return found


def texts(found: Any, place: str) -> list[str]:
    """What was found, if it is a list of texts with something in it."""
    if not isinstance(found, list) or not found or not all(isinstance(text, str) and text.strip() for text in found):
        raise BadLexicon(f"{place} is not a list of texts")
    return found
