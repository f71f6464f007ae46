"""Which time teaches the index, which the rankers, and which measures them all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maru.services.recommend.core.events import TYPES, Events, Int64s
from maru.services.recommend.core.examples import Visit
from maru.services.recommend.training.errors import TooFewEvents

LEAST_SESSIONS = 100
SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Windows:
    """Three stretches of time, one after the other, in Unix seconds.

    What happened before `ranking` makes the index whose candidates the rankers learn to order; what happened in
    sessions that begin from then on and before `test` says what was right. What happened before `test` makes the
    index that is measured, by the sessions that begin from then on.
    """

    ranking: int
    test: int
    end: int

    @classmethod
    def cut(cls, events: Events, share: float = SHARE) -> Windows:
        """The newest `share` of the sessions measure, and as many before them teach the rankers.

        TooFewEvents when there are too few, or all begin at one moment.
        """
        begins = np.sort(events.ts[events.starts()[:-1]])
        if len(begins) < LEAST_SESSIONS:
            raise TooFewEvents(f"there are {len(begins)} sessions; at least {LEAST_SESSIONS} are needed")
        ranking, test = (int(begins[int(len(begins) * (1 - part * share))]) for part in (2, 1))
        if not begins[0] < ranking < test:
            raise TooFewEvents("too many of the sessions begin at one moment for a split by time")
        return cls(ranking, test, int(events.ts.max()) + 1)


def teaching(events: Events, windows: Windows, *, most: int, seed: int = 0) -> list[Visit]:
    """Visits for the rankers, up to three of a session, to an index of what was before `windows.ranking`.

    What happened from `windows.test` on is in none of them.
    """
    return visits(events, windows.ranking, windows.test, known=windows.ranking, cuts=3, most=most, seed=seed)


def measuring(events: Events, windows: Windows, *, most: int, seed: int = 0) -> list[Visit]:
    """Visits to measure with, one of a session, to an index of what was before `windows.test`."""
    return visits(events, windows.test, windows.end, known=windows.test, cuts=1, most=most, seed=seed)


def visits(
    events: Events, begin: int, end: int, *, known: int, cuts: int = 1, most: int | None = None, seed: int = 0
) -> list[Visit]:
    """Sessions that begin from `begin` and before `end`, cut as OTTO's test set is, in the order of time.

    Each is cut behind an event drawn at random; up to `cuts` different cuts are drawn. The next click, all later
    carts and all later orders are what was wanted, less the items that were seen before the cut, as only new items
    are recommended. Events from `end` on are not looked at, nor are items that no event before `known` has. Of more
    than `most` sessions, and of more than `most` visits, as many are drawn.
    """
    chance = np.random.default_rng(seed)
    chosen = _chosen(events, begin, end, known)
    starts, aids = chosen.starts(), chosen.catalogue[chosen.aid]
    longer = np.flatnonzero(np.diff(starts) >= 2)
    if most is not None and len(longer) > most:
        longer = np.sort(chance.choice(longer, most, replace=False))
    found: list[Visit] = []
    for start, stop in zip(starts[longer].tolist(), starts[longer + 1].tolist(), strict=True):
        places = np.arange(start + 1, stop)
        for cut in sorted(chance.choice(places, min(cuts, len(places)), replace=False).tolist()):
            found.append(_visit(chosen, aids, start, cut, stop))
    if most is not None and len(found) > most:
        found = [found[place] for place in np.sort(chance.choice(len(found), most, replace=False)).tolist()]
    return sorted(found, key=lambda visit: int(visit.ts[-1]))


def _chosen(events: Events, begin: int, end: int, known: int) -> Events:
    """The events of the sessions that begin in the window, before its end, of items that are known."""
    starts = events.starts()
    begins = events.ts[starts[:-1]]
    inside = np.repeat((begins >= begin) & (begins < end), np.diff(starts))
    familiar = np.zeros(len(events.catalogue), bool)
    familiar[events.aid[events.ts < known]] = True
    return events.select(inside & (events.ts < end) & familiar[events.aid])


def _visit(events: Events, aids: Int64s, start: int, cut: int, stop: int) -> Visit:
    seen, types = aids[start:cut], events.type[cut:stop]
    later = {}
    for number, name in enumerate(TYPES):
        wanted = aids[cut:stop][types == number]
        if name == "clicks":
            wanted = wanted[:1]
        later[name] = np.setdiff1d(wanted, seen)
    return Visit(seen, events.ts[start:cut], events.type[start:cut], later)
