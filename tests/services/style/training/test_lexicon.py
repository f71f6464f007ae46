from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from maru.services.style.starter import materials
from maru.services.style.training.errors import BadLexicon
from maru.services.style.training.lexicon import LEXICON, NONE, TEMPLATES, Lexicon, sentences

KINDS = {"names", "materials", "colors", "shapes", "moods", "brands", "misspellings"}


def test_the_projects_own_is_as_rich_as_promised():
    """Twelve styles, sixty descriptors each, Korean and English, of every kind."""
    lexicon = Lexicon.read(materials())
    assert len(lexicon.styles) >= 12
    for style in lexicon.styles:
        found = [descriptor for descriptor in lexicon.descriptors if descriptor.style == style]
        korean = sum(descriptor.korean for descriptor in found)
        assert len(found) >= 60 and korean >= 25 and len(found) - korean >= 25, style
        assert {descriptor.kind for descriptor in found} == KINDS, style


def test_what_is_held_out_is_never_taught(lexicon):
    seen: Counter[str] = Counter()
    for fold in range(5):
        kept, held = lexicon.split(fold, 5)
        assert not {found.words for found in kept} & {found.words for found in held}
        assert len(kept) + len(held) == len(lexicon.descriptors)
        seen.update(found.words for found in held)
        ours, theirs = lexicon.templates.split(fold, 5)
        for language in ("ko", "en", "mixed"):
            assert not set(ours.filled[language]) & set(theirs.filled[language]) and theirs.filled[language]
        for language in ("ko", "en"):
            assert not set(ours.plain[language]) & set(theirs.plain[language]) and theirs.plain[language]
    assert set(seen.values()) == {1} and len(seen) == len(lexicon.descriptors)


def test_sentences_are_the_same_every_time_and_of_the_words_language(lexicon):
    made = sentences(lexicon.descriptors, lexicon.templates, 3, seed=1)
    assert made == sentences(lexicon.descriptors, lexicon.templates, 3, seed=1)
    assert made != sentences(lexicon.descriptors, lexicon.templates, 3, seed=2)
    assert not any(re.search(r"[{}]", text) for text in made.texts)
    counts = Counter(made.styles)
    for style in lexicon.styles:
        assert counts[style] == 3 * sum(found.style == style for found in lexicon.descriptors)
    assert counts[NONE] > 6 * sum(found.style == NONE for found in lexicon.descriptors)


@pytest.mark.parametrize(
    ("name", "find", "put", "said"),
    [
        (LEXICON, "none:", "nothing:", "must have two styles or more, and none"),
        (LEXICON, "names:", "names: 3\n  named:", "is not a list of texts"),
        (LEXICON, "modern:", "modern: {", "can't be read as YAML"),
        (TEMPLATES, "{d} {n}", "{d} {0}", "field that is not known"),
        (TEMPLATES, "{n} 추천해 주세요", "{d} 추천해 주세요 {", "field that is not known"),
        (TEMPLATES, "plain:", "plains:", "no mapping"),
        (TEMPLATES, "mixed:", "mixture:", "not a list of texts"),
    ],
)
def test_what_is_wrong_is_named(small, tmp_path, name, find, put, said):
    for file in (LEXICON, TEMPLATES):
        (tmp_path / file).write_text((small / file).read_text("utf-8"), "utf-8")
    text = (tmp_path / name).read_text("utf-8")
    assert find in text
    (tmp_path / name).write_text(text.replace(find, put, 1), "utf-8")
    with pytest.raises(BadLexicon, match=said):
        Lexicon.read(tmp_path)


def test_words_in_two_styles(small, tmp_path):
    (tmp_path / TEMPLATES).write_text((small / TEMPLATES).read_text("utf-8"), "utf-8")
    (tmp_path / LEXICON).write_text("a: {names: [Same, x]}\nb: {names: [y, same]}\nnone: {words: [z]}\n", "utf-8")
    with pytest.raises(BadLexicon, match="'same' twice"):
        Lexicon.read(tmp_path)


def test_files_that_are_missing(tmp_path: Path):
    with pytest.raises(BadLexicon, match=r"lexicon\.yaml can't be read"):
        Lexicon.read(tmp_path)
