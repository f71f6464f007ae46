"""Co-visitation, beside the plain counting of pairs."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest

from maru.services.recommend.core.covisitation import (
    BOUGHT,
    NEXT,
    REACH,
    TYPED,
    VIEWED,
    Occurrences,
    in_threads,
    partners,
)
from maru.services.recommend.core.events import Events
from maru.services.recommend.core.features import TYPE_WEIGHTS

KEEP = 50


def counted(events: Events, kind: int) -> list[dict[int, float]]:
    """For each item, the weight of each partner: by looking at all pairs of each session."""
    found: list[dict[int, float]] = [defaultdict(float) for _ in events.catalogue]
    first, span = int(events.ts.min()), int(events.ts.max() - events.ts.min())
    starts, reach = events.starts(), REACH[kind]
    for start, stop in itertools.pairwise(starts):
        for e in range(start, stop):
            for q in range(start, stop):
                late = (int(events.ts[e]) - first) / span
                near = abs(q - e) <= reach.events and abs(int(events.ts[q] - events.ts[e])) <= reach.seconds
                if not near or events.aid[q] == events.aid[e]:
                    continue
                if kind == BOUGHT and not (events.type[e] and events.type[q]):
                    continue
                if kind == NEXT and q < e:
                    continue
                weight = {
                    VIEWED: 1 + 3 * late,
                    TYPED: TYPE_WEIGHTS[events.type[q]],
                    BOUGHT: 1.0,
                    NEXT: (1 + late) / max(1, q - e),
                }[kind]
                found[events.aid[e]][int(events.aid[q])] += weight
    return found


@pytest.mark.parametrize("kind", [VIEWED, TYPED, BOUGHT, NEXT])
def test_like_counting_all_pairs(events, kind):
    ids, weights = partners(Occurrences.of(events), kind, 0, len(events.catalogue), KEEP)
    wanted = counted(events, kind)
    assert max(len(met) for met in wanted) > KEEP or kind == BOUGHT
    for item, met in enumerate(wanted):
        kept = ids[item] >= 0
        assert kept.sum() == min(KEEP, len(met))
        assert not weights[item, ~kept].any()
        for other, weight in zip(ids[item, kept].tolist(), weights[item, kept].tolist(), strict=True):
            assert weight == pytest.approx(met[other], rel=1e-4)
        heaviest = sorted(met.values(), reverse=True)[:KEEP]
        np.testing.assert_allclose(weights[item, kept], heaviest, rtol=1e-4)


@pytest.mark.parametrize("kind", [VIEWED, TYPED, BOUGHT, NEXT])
def test_the_same_bits_in_any_range_and_in_any_number_of_threads(events, kind):
    occurrences = Occurrences.of(events)
    ids, weights = in_threads(1)(occurrences, kind, KEEP)
    for threads in (2, 3):
        again = in_threads(threads)(occurrences, kind, KEEP)
        assert (again[0] == ids).all() and (again[1] == weights).all()
    for start, stop in ((0, 1), (17, 140), (299, 300), (5, 5)):
        part = partners(occurrences, kind, start, stop, KEEP)
        assert (part[0] == ids[start:stop]).all() and (part[1] == weights[start:stop]).all()


def test_days_apart_is_not_together():
    events = Events.of([1, 1, 1], [10, 20, 30], [0, 86_400, 172_801], [0, 0, 0])
    ids, _ = partners(Occurrences.of(events), VIEWED, 0, 3, 4)
    assert ids.tolist() == [[1, -1, -1, -1], [0, -1, -1, -1], [-1, -1, -1, -1]]


def test_next_knows_the_direction():
    events = Events.of([1, 1, 1], [10, 20, 30], [0, 1, 2], [0, 0, 0])
    ids, weights = partners(Occurrences.of(events), NEXT, 0, 3, 2)
    assert ids.tolist() == [[1, 2], [2, -1], [-1, -1]]
    assert weights[0].tolist() == [1.0, 0.5]


def test_progress_is_told_to_the_end(events):
    heard = []
    in_threads(2, lambda step, part: heard.append((step, part)))(Occurrences.of(events), BOUGHT, KEEP)
    parts = [part for _, part in heard]
    assert parts == sorted(parts) and parts[-1] == 1.0
    assert {step for step, _ in heard} == {"co-visitation, bought"}
