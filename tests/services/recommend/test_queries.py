"""What the recommender is asked: the same for the same, whatever the caller's way of saying it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from maru.services.recommend.model import Asked
from maru.services.recommend.queries import ask_for, choice
from maru.services.recommend.schemas import RecommendRequest

EVENTS = [
    {"aid": 1001, "ts": 1659304800, "type": "clicks"},
    {"aid": 1002, "ts": 1659304900, "type": "carts"},
    {"aid": 1001, "ts": 1659304900, "type": "orders"},
]


def asked(events: Any = EVENTS, **options: Any) -> Asked:
    request = RecommendRequest.model_validate({"session_id": 1, "events": events, **options})
    return ask_for(choice(request), request.events)


def key(*arguments: Any, **options: Any) -> bytes:
    return asked(*arguments, **options).key


def test_columns() -> None:
    made = asked()
    assert made.aids.tolist() == [1001, 1002, 1001]
    assert made.ts.tolist() == [1659304800, 1659304900, 1659304900]
    assert made.types.tolist() == [0, 1, 2]
    chosen = made.choice
    assert (chosen.top_k, chosen.weights, chosen.explain) == (20, pytest.approx((0.1, 0.3, 0.6)), False)
    assert chosen.exclude.tolist() == [] and chosen.include is chosen.categories is None


def test_events_are_put_in_order_and_those_of_a_second_are_left_in_theirs() -> None:
    assert key(EVENTS[1:] + EVENTS[:1]) == key()
    assert key([EVENTS[0], EVENTS[2], EVENTS[1]]) != key()


def test_an_event_sent_twice_counts_once() -> None:
    assert key(EVENTS + EVENTS) == key()
    assert key([*EVENTS, {**EVENTS[0], "type": "orders"}]) != key()


def test_milliseconds_are_recognised() -> None:
    assert key([{**event, "ts": event["ts"] * 1000 + 999} for event in EVENTS]) == key()
    assert asked([{**EVENTS[0], "ts": 99_999_999_999}]).ts.tolist() == [99_999_999_999]
    assert asked([{**EVENTS[0], "ts": 100_000_000_000}]).ts.tolist() == [100_000_000]
    assert asked([{**EVENTS[0], "ts": 0}]).ts.tolist() == [0]


def test_weights_are_proportions() -> None:
    assert key(weights={"clicks": 1, "carts": 3, "orders": 6}) == key(weights={"clicks": 2, "carts": 6, "orders": 12})
    assert asked(weights={"orders": 5}).choice.weights == (0, 0, 1)
    assert asked(weights={"clicks": 1e-300, "orders": 1e-300}).choice.weights == (0.5, 0, 0.5)


def test_lists_are_sets() -> None:
    assert key(exclude=[3, 1, 2, 3]) == key(exclude=[1, 2, 3])
    assert key(include=[3, 1]) == key(include=[1, 3, 3])
    assert key(categories=[3, 1]) == key(categories=[1, 3, 3])


def test_whatever_changes_the_answer_changes_the_key() -> None:
    keys = [
        key(),
        key([]),
        key(EVENTS[:1]),
        key(top_k=21),
        key(explain=True),
        key(weights={"clicks": 1}),
        key(exclude=[1]),
        key(include=[1]),
        key(categories=[1]),
        key(exclude=[1], include=[2]),
        key(exclude=[1, 2]),
        key([{**EVENTS[0], "aid": 1}]),
        key([{**EVENTS[0], "ts": 1}]),
        key([{**EVENTS[0], "type": "carts"}]),
    ]
    assert len(set(keys)) == len(keys)


def test_an_empty_session() -> None:
    made = asked([])
    assert (made.aids.shape, made.ts.shape, made.types.shape) == ((0,), (0,), (0,))


@pytest.mark.parametrize(
    "weights",
    [
        {}, {"clicks": 0}, {"clicks": -1}, {"views": 1}, {"clicks": "1"}, {"clicks": True}, {"clicks": None}, None, [],
        {"clicks": 1e7}, {"clicks": float("nan")}, {"clicks": float("inf")},
    ],
)  # fmt: skip
def test_weights_that_are_none(weights: Any) -> None:
    with pytest.raises(ValidationError):
        asked(weights=weights)
