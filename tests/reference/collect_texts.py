"""Writes texts.json: real texts of 5 to 256 MiniLM tokens and a few longer ones, and Korean sentences.

    python tests/reference/collect_texts.py

The English is from the reference that Python carries for its own help(), cut at words; the interpreter that
made the committed file was 3.11. Equal seeds and equal interpreters give equal files.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from pydoc_data import topics

HERE = Path(__file__).parent
COUNT = 560
WORDS = (3, 4, 5, 6, 8, 10, 12, 16, 20, 28, 40, 60, 90, 130, 180)


def paragraphs() -> list[str]:
    found = [" ".join(part.split()) for topic in topics.topics.values() for part in topic.split("\n\n")]
    return sorted({text for text in found if len(text.split()) >= 8})


def english() -> list[str]:
    chance = random.Random(3)
    texts: list[str] = []
    for text in chance.sample(paragraphs(), len(paragraphs())):
        words = text.split()
        texts.append(" ".join(words[: chance.choice(WORDS)]))
    whole = " ".join(paragraphs()[:40]).split()
    long = [" ".join(whole[start : start + size]) for start in range(0, 600, 60) for size in (150, 175, 400)]
    return (long + [text for text in dict.fromkeys(texts) if len(text) > 12])[:COUNT]


def main() -> None:
    korean = (HERE / "korean.txt").read_text().splitlines()
    mixed = [f"{a} {b}" for a, b in zip(korean[::3], english()[100:], strict=False)]
    texts = [*english(), *korean, *mixed]
    (HERE / "texts.json").write_text(json.dumps(texts, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main()
