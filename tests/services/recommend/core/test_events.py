"""Events as they come, and as the index wants them."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.recommend.core.events import UNKNOWN, Events, codes_of


def shuffled() -> Events:
    return Events.of(
        session=[9, 4, 9, 4, 9],
        aid=[70, 30, 50, 30, 90],
        ts=[20, 5, 10, 7, 20],
        type=[0, 1, 2, 0, 0],
        categories=([90, 30, 30, 12], [3, 1, 2, 7]),
    )


def test_sessions_are_together_and_in_the_order_of_time():
    events = shuffled()
    assert events.session.tolist() == [4, 4, 9, 9, 9]
    assert events.ts.tolist() == [5, 7, 10, 20, 20]
    assert events.catalogue[events.aid].tolist() == [30, 30, 50, 70, 90]
    assert events.type.tolist() == [1, 0, 2, 0, 0]
    assert events.starts().tolist() == [0, 2, 5]
    kinds = [events.session, events.aid, events.ts, events.type, events.catalogue, events.categories]
    assert [str(column.dtype) for column in kinds] == ["int64", "int32", "int64", "int8", "int64", "int32"]


def test_events_of_one_second_keep_their_order():
    events = Events.of([1] * 50, np.arange(50)[::-1], [7] * 50, [0] * 50)
    assert events.catalogue[events.aid].tolist() == list(range(50))[::-1]


def test_the_last_word_on_a_category_holds_and_an_item_without_one_has_none():
    assert shuffled().categories.tolist() == [2, UNKNOWN, UNKNOWN, 3]


def test_what_was_known_before_a_moment_has_no_item_of_later():
    known = shuffled().before(20)
    assert known.catalogue.tolist() == [30, 50]
    assert known.aid.tolist() == [0, 0, 1]
    assert known.categories.tolist() == [2, UNKNOWN]
    assert len(shuffled().before(0)) == 0
    assert shuffled().before(0).starts().tolist() == [0]


def test_items_that_are_not_there_have_no_code():
    catalogue = np.array([30, 50, 70])
    assert codes_of(catalogue, [50, 31, 70, -1, 2**60, 29]).tolist() == [1, -1, 2, -1, -1, -1]
    assert codes_of(catalogue[:0], [50]).tolist() == [-1]
    assert codes_of(catalogue, []).tolist() == []


@pytest.mark.parametrize("type", [3, -1, 250])
def test_a_type_that_is_none(type):
    with pytest.raises(ValueError, match="type"):
        Events.of([1], [2], [3], [type])


def test_columns_that_do_not_fit():
    with pytest.raises(ValueError, match="length"):
        Events.of([1, 1], [2], [3], [0])
    with pytest.raises(ValueError, match="length"):
        Events.of([1], [2], [3], [0], categories=([2, 3], [1]))
    with pytest.raises(ValueError, match="category"):
        Events.of([1], [2], [3], [0], categories=([2], [-5]))
