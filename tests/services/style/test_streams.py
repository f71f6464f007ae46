"""How a text is cut into steps."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from maru.services.style.streams import MAX_STEPS, steps


def test_words() -> None:
    assert steps("하나 둘 셋") == [("하나", 0.3333), ("하나 둘", 0.6667), ("하나 둘 셋", 1.0)]
    assert steps(" 하나 ") == [(" 하나 ", 1.0)]


@given(st.text(min_size=1, max_size=300).filter(str.strip))
def test_whatever_the_text(text: str) -> None:
    found = steps(text)
    parts, progress = [part for part, _ in found], [share for _, share in found]
    words = len(text.split())
    assert len(found) == min(words, MAX_STEPS)
    assert parts[-1] == text and progress[-1] == 1.0
    assert all(text.startswith(part) and part.strip() for part in parts)
    assert [len(part) for part in parts] == sorted({len(part) for part in parts})
    assert progress == sorted(set(progress)) and progress[0] > 0
    for part, after in pairwise(parts):
        assert text[len(part)].isspace() and len(part.split()) < len(after.split())  # no word is cut
