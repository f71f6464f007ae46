from __future__ import annotations

import pytest

from maru.services.llm.training.vocabulary import LEAST, SPECIAL, Vocabulary

TEXTS = ["the cat and the hat and the cat"] * 3


@pytest.mark.parametrize("text", ["the cat", "ünïcödé 한국어 🙂\n\ttab", "a\x00b", "  two  spaces "])
def test_any_text_is_spelt_and_read_again(text: str) -> None:
    vocabulary = Vocabulary.learn(TEXTS, LEAST + 10)
    assert vocabulary.text(vocabulary.ids(text)) == text


def test_it_is_as_large_as_asked_or_as_the_text_allows() -> None:
    assert len(Vocabulary.learn(TEXTS, LEAST)) == LEAST
    assert len(Vocabulary.learn(TEXTS, LEAST + 5)) == LEAST + 5
    assert LEAST < len(Vocabulary.learn(TEXTS, 100_000)) < LEAST + 100


def test_tokens_and_merges_are_in_their_order() -> None:
    vocabulary = Vocabulary.learn(TEXTS, LEAST + 10)
    assert tuple(vocabulary.tokens[: len(SPECIAL)]) == SPECIAL
    assert all(vocabulary.id(token) == number for number, token in enumerate(vocabulary.tokens))
    learnt = ["".join(merge.split(" ")) for merge in vocabulary.merges]
    assert learnt == vocabulary.tokens[LEAST:]
    with pytest.raises(KeyError):
        vocabulary.id("no such token")
