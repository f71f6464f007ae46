"""Deterministic texts that never repeat, so that no server's cache can answer for its model.

The same (kind, stream) gives the same texts on every machine. Words are common English ones, nearly all of
them one token of BERT's vocabulary, so a text of n words has about n + 2 tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Kind = Literal["short", "mixed", "long"]

_WORDS = Path(__file__).with_name("words.txt").read_text().split()

_BLOCK = 64
_WORD_RANGE: dict[Kind, tuple[int, int]] = {"short": (5, 14), "mixed": (3, 240), "long": (230, 245)}
"""Fewest and most words. Mixed lengths are log-uniform: most texts are short, and the long ones weigh."""


def texts(kind: Kind, stream: str) -> Iterator[str]:
    """An endless series of texts of one kind. Different streams share no text."""
    rng = random.Random(f"{kind}/{stream}")
    low, high = _WORD_RANGE[kind]
    seen: set[int] = set()
    while True:
        for share in _even_shares(rng):
            count = round(low * (high / low) ** share) if kind == "mixed" else round(low + share * (high - low))
            text = " ".join(rng.choices(_WORDS, k=count))
            if (mark := hash(text)) not in seen:
                seen.add(mark)
                yield text


def _even_shares(rng: random.Random) -> list[float]:
    """Numbers in [0, 1), one from each 64th of it, shuffled: however few texts a slow server gets to, their
    lengths are spread as a fast server's are."""
    shares = [(i + rng.random()) / _BLOCK for i in range(_BLOCK)]
    rng.shuffle(shares)
    return shares
