from __future__ import annotations

from maru.services.style.matching.ngrams import ngrams


def test_words_by_their_pieces():
    assert ngrams("모던한") == {
        "모", "던", "한", " 모", "모던", "던한", "한 ", " 모던", "모던한", "던한 ", " 모던한", "모던한 ",
    }  # fmt: skip


def test_inflected_and_misspelt_words_share_pieces():
    assert {" 모던", "모던"} <= ngrams("모던하게") & ngrams("모던한") & ngrams("모던하지만")
    assert len(ngrams("contemporay") & ngrams("contemporary")) > 15


def test_case_width_and_order_do_not_matter():
    assert ngrams("Modern CHAIR") == ngrams("chair, modern!") == ngrams("ＭＯＤＥＲＮ chair")
    assert ngrams("모던") == ngrams("\u1106\u1169\u1103\u1165\u11ab"), "decomposed, as macOS writes it"


def test_what_has_no_words_has_no_pieces():
    assert ngrams("") == ngrams(" \n") == ngrams("!?… 🙂") == set()
