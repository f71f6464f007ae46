from __future__ import annotations

import random

import pytest

from maru.auth.bearer import MAX_CREDENTIAL_BYTES, bearer
from maru.auth.principal import Unauthorized


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER   abc", " Bearer abc \t"])
def test_credential_is_what_follows_the_scheme(header: str) -> None:
    assert bearer(header) == "abc"


def test_longest_credential_passes() -> None:
    assert len(bearer("Bearer " + "a" * MAX_CREDENTIAL_BYTES)) == MAX_CREDENTIAL_BYTES


@pytest.mark.parametrize("header", [None, ""])
def test_nothing_sent_is_told_apart_from_something_bad(header: str | None) -> None:
    with pytest.raises(Unauthorized) as refusal:
        bearer(header)
    assert refusal.value.error is None


BAD = [
    "abc",
    "Bearer",
    "Bearer ",
    "Bearer\tabc",
    "Bearer\nabc",
    "Bearer abc def",
    "Bearer abc\n",
    "Bearer a\x00c",
    "Bearer \u00e9t\u00e9",
    "Bearer \uff41\uff42\uff43",
    "Bearer \ud800",
    "Basic YTpi",
    "Basic YTpi, Bearer abc",
    "Bearer abc, Bearer abc",
    "Bearer, abc",
    "Bearer: abc",
    "Token abc",
    " ",
    "Bearer " + "a" * (MAX_CREDENTIAL_BYTES + 1),
    "Bearer " + "a" * 1_000_000,
    "Bearer" + " " * 1_000_000 + "a",
    "\u0130earer abc",
]


@pytest.mark.parametrize("header", BAD, ids=lambda header: repr(header[:24]))
def test_malformed_headers_are_refused_in_the_same_words(header: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        bearer(header)
    assert str(refusal.value) == "the credentials are not valid"
    assert refusal.value.error == "invalid_token"


def test_noise_is_refused_or_is_one_visible_word() -> None:
    noise = random.Random(1)
    letters = [chr(code) for code in (0, 9, 10, 32, 34, 39, 44, 65, 97, 127, 160, 255, 0x3000)]
    for _ in range(3000):
        length = noise.choice((1, 5, 60, 9000))
        header = noise.choice(("", "Bearer ", "bearer", "Basic ")) + "".join(
            noise.choice(letters) for _ in range(length)
        )
        try:
            credential = bearer(header)
        except Unauthorized:
            continue
        assert credential and all("\x21" <= letter <= "\x7e" for letter in credential)
