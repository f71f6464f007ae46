"""Score, confidence and matches, which have one definition."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.style.reading import readings

STYLES = ("modern", "minimal", "vintage", "hanok")


def test_by_the_definition():
    (found,) = readings(STYLES, np.log([[4.0, 1.0, 0.25, 0.01]]))
    assert (found.style, found.score) == ("modern", pytest.approx(4 / 5))
    assert found.confidence == pytest.approx(4 / (1 + 4 + 1 + 0.25 + 0.01))
    assert [match.style for match in found.matches] == ["modern", "minimal", "vintage"]
    assert found.matches[1].score == pytest.approx(0.5)
    assert (found.matches[0].score, found.matches[0].confidence) == (found.score, found.confidence)


def test_nothing_of_style():
    (found,) = readings(STYLES, np.full((1, 4), -4.0))
    assert found.score < 0.02 and found.confidence < 0.02


def test_two_styles_at_once_are_both_matched_and_neither_is_sure():
    (found,) = readings(STYLES, np.array([[5.0, 5.0, -5, -5]]))
    assert found.matches[0].score > 0.99 and found.matches[1].score > 0.99
    assert found.confidence < 0.5


def test_confidences_are_probabilities():
    evidence = np.random.default_rng(0).normal(0, 4, (50, 4))
    for found in readings(STYLES, evidence):
        assert 0 < found.score < 1 and sum(match.confidence for match in found.matches) < 1
        assert [match.confidence for match in found.matches] == sorted(
            (m.confidence for m in found.matches), reverse=True
        )
        assert [match.score for match in found.matches] == sorted((m.score for m in found.matches), reverse=True)


def test_a_cap_lowers_all_in_proportion():
    evidence = np.array([[3.0, 2.0, 0, -2]])
    (free,), (capped,) = readings(STYLES, evidence), readings(STYLES, evidence, cap=0.25)
    assert capped.confidence == pytest.approx(0.25) and capped.score == free.score
    for one, other in zip(free.matches, capped.matches, strict=True):
        assert one.style == other.style and other.confidence == pytest.approx(one.confidence * 0.25 / free.confidence)
    (low,) = readings(STYLES, np.full((1, 4), -3.0), cap=0.25)
    assert low.confidence == readings(STYLES, np.full((1, 4), -3.0))[0].confidence


@pytest.mark.parametrize("evidence", [1e6, -1e6])
def test_evidence_without_end_gives_numbers(evidence):
    (found,) = readings(STYLES, np.full((1, 4), evidence))
    assert all(np.isfinite([match.score, match.confidence]).all() for match in found.matches)
