"""A text as the set of short pieces that its words have, by which inflected and misspelt words are alike."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 4
"""Characters of a piece, the end of a word counted as one: 모던한 and 모던하게 share ' 모던'."""
WORDS = re.compile(r"\w+")


def ngrams(text: str) -> set[str]:
    """Of each word every one to `LONGEST` characters in a row, case and Unicode's compatible forms made one."""
    found: set[str] = set()
    for word in WORDS.findall(unicodedata.normalize("NFKC", text).lower()):
        marked = f" {word} "
        for length in range(1, LONGEST + 1):
            found.update(marked[at : at + length] for at in range(len(marked) - length + 1))
    found.discard(" ")
    return found
