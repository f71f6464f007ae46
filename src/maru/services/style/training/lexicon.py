"""What the text matcher is taught: words that speak of styles, and sentences to put them into."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maru.services.style.training.errors import BadLexicon
from maru.services.style.training.yaml_file import mapping, read_yaml, texts

LEXICON, TEMPLATES = "lexicon.yaml", "templates.yaml"
NONE = "none"
LANGUAGES = ("ko", "en")
HANGUL = re.compile("[가-힣]")
THINGS = 4
"""How many things are put into each plain sentence."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Words that speak of one style, or of `NONE`. `kind` is what sort: names, materials, colors, misspellings, …"""

    style: str
    kind: str
    words: str

    @property
    def korean(self) -> bool:
        return HANGUL.search(self.words) is not None


@dataclass(frozen=True, slots=True)
class Templates:
    """`filled` take a descriptor, by language and `mixed` for either; `plain` speak of no style. `things` are what a
    sentence is about."""

    filled: Mapping[str, tuple[str, ...]]
    plain: Mapping[str, tuple[str, ...]]
    things: Mapping[str, tuple[str, ...]]

    def split(self, fold: int, folds: int) -> tuple[Templates, Templates]:
        """All but one part of so many, and that part. A bare word is no sentence, and is in the first only."""
        parts = [
            replace(
                self,
                filled={key: _part(self.filled[key], fold, folds, held, "{d}") for key in self.filled},
                plain={key: _part(self.plain[key], fold, folds, held, "{n}") for key in self.plain},
            )
            for held in (False, True)
        ]
        return parts[0], parts[1]


@dataclass(frozen=True, slots=True)
class Sentences:
    """Texts, and the style that each speaks of."""

    texts: list[str]
    styles: list[str]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """`styles` are in the order of the file, without `NONE`; no words are in it twice."""

    descriptors: tuple[Descriptor, ...]
    templates: Templates

    @property
    def styles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(found.style for found in self.descriptors if found.style != NONE))

    @classmethod
    def read(cls, folder: Path) -> Lexicon:
        """`lexicon.yaml` and `templates.yaml`. BadLexicon."""
        written = read_yaml(folder / LEXICON)
        found = [
            Descriptor(str(style), str(kind), words)
            for style, kinds in written.items()
            for kind, listed in mapping(kinds, f"{LEXICON}: {style}").items()
            for words in texts(listed, f"{LEXICON}: {style}: {kind}")
        ]
        if twice := _twice([descriptor.words.casefold() for descriptor in found]):
            raise BadLexicon(f"{LEXICON} has {twice!r} twice")
        lexicon = cls(tuple(found), _templates(folder))
        if NONE not in written or len(lexicon.styles) < 2:
            raise BadLexicon(f"{LEXICON} must have two styles or more, and {NONE}")
        return lexicon

    def split(self, fold: int, folds: int) -> tuple[list[Descriptor], list[Descriptor]]:
        """All but one part of so many of each style's words, and that part."""
        kept: list[Descriptor] = []
        held: list[Descriptor] = []
        for style in (*self.styles, NONE):
            for place, found in enumerate(_shuffled([found for found in self.descriptors if found.style == style])):
                (held if place % folds == fold else kept).append(found)
        return kept, held


def sentences(descriptors: Sequence[Descriptor], templates: Templates, each: int, seed: int) -> Sentences:
    """`each` sentences with every descriptor, about things that chance chooses, and the plain ones; words of no style
    are put into twice as many."""
    chance = random.Random(seed)  # noqa: S311
    made: list[tuple[str, str]] = []
    for found in descriptors:
        language = "ko" if found.korean else "en"
        usable = (*templates.filled[language], *templates.filled["mixed"])
        wanted = min(len(usable), each * (2 if found.style == NONE else 1))
        for template in chance.sample(usable, wanted):
            made.append((template.format(d=found.words, n=chance.choice(templates.things[language])), found.style))
    for language, plain in templates.plain.items():
        for template in plain:
            for thing in chance.sample(templates.things[language], min(THINGS, len(templates.things[language]))):
                made.append((template.format(n=thing), NONE))
    return Sentences([text for text, _ in made], [style for _, style in made])


def _templates(folder: Path) -> Templates:
    written = read_yaml(folder / TEMPLATES)
    filled = {key: _sayings(written, key, {"d", "n"}) for key in (*LANGUAGES, "mixed")}
    plain, things = mapping(written.get("plain"), "plain"), mapping(written.get("things"), "things")
    return Templates(
        filled,
        plain={language: _sayings(plain, language, {"n"}) for language in LANGUAGES},
        things={language: _sayings(things, language, set()) for language in LANGUAGES},
    )


def _sayings(written: Mapping[str, Any], key: str, fields: set[str]) -> tuple[str, ...]:
    listed = texts(written.get(key), f"{TEMPLATES}: {key}")
    for text in listed:
        if not set(re.findall(r"\{(.*?)\}", text)) <= fields or text.count("{") != text.count("}"):
            raise BadLexicon(f"{TEMPLATES}: {text!r} has a field that is not known")
    return tuple(listed)


def _part(all_of: tuple[str, ...], fold: int, folds: int, held: bool, bare: str) -> tuple[str, ...]:
    sayings = _shuffled([text for text in all_of if text != bare])
    part = tuple(text for place, text in enumerate(sayings) if (place % folds == fold) == held)
    return part if held or bare not in all_of else (bare, *part)


def _shuffled(items: list[Any]) -> list[Any]:
    """In an order of its own that is always the same."""
    random.Random(len(items)).shuffle(items)  # noqa: S311
    return items


def _twice(words: list[str]) -> str | None:
    return next((text for text in words if words.count(text) > 1), None)
