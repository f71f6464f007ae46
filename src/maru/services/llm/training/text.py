"""The text that a model learns from."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from maru.services.llm.training.errors import TrainingError

HELD_OUT = 0.05
"""The share of each file, its end, that teaches nothing."""
LEAST = 50_000
"""Characters that there have to be."""


@dataclass(frozen=True, slots=True)
class Text:
    """What is learnt from and what is held out, a string a file. `sha256` is of the files as they are."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    sha256: str
    files: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Text:
        """A UTF-8 file, or a folder of `*.txt`, in the order of their names. TrainingError."""
        files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not files:
            raise TrainingError(f"there is no .txt file in {path}")
        digest = hashlib.sha256()
        train, held_out = [], []
        for file in files:
            try:
                content = file.read_bytes()
                flowing = unwrapped(content.decode("utf-8-sig"))
            except OSError as error:
                raise TrainingError(f"{file} can't be read: {error.strerror}") from None
            except UnicodeDecodeError as error:
                raise TrainingError(f"{file} is not UTF-8: byte {error.start}") from None
            digest.update(content)
            paragraphs = flowing.split("\n\n")
            kept = _cut(paragraphs)
            train.append("\n\n".join(paragraphs[:kept]))
            held_out.append("\n\n".join(paragraphs[kept:]))
        if sum(map(len, train)) < LEAST or not any(held_out):
            raise TrainingError(f"{path} has too little text to learn from: some {LEAST:,} characters at least")
        return cls(tuple(train), tuple(held_out), digest.hexdigest(), tuple(file.name for file in files))


def unwrapped(text: str) -> str:
    """Each paragraph on one line, an empty line between two."""
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text.replace("\r\n", "\n")))
    return "\n\n".join(part for part in paragraphs if part)


def _cut(paragraphs: list[str]) -> int:
    """How many of them are learnt from."""
    total = sum(map(len, paragraphs))
    seen = 0
    for number, paragraph in enumerate(paragraphs):
        seen += len(paragraph)
        if seen > total * (1 - HELD_OUT):
            return number
    return len(paragraphs)
