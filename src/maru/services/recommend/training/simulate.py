"""A shop that does not exist, for a first start and for measuring at any size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maru.services.recommend.core.events import UNKNOWN, Events, Int8s, Int64s
from maru.services.recommend.training.errors import TooFewEvents
from maru.services.recommend.training.progress import Progress, silent

Doubles = npt.NDArray[np.float64]

END = 1_659_312_000
"""2022-08-01, 00:00 UTC: when the simulated weeks end."""
DAY_S = 86_400
DAYS = 28
FIRST_AID = 1001
LEAST, MOST = 2_000, 500_000_000
EVENTS_PER_ITEM = 30
EVENTS_PER_CLICK = 1.17
"""With the carts and orders that habits as they are lead to."""
CLICK, CART, ORDER = 0, 1, 2
KEEP, COMPLEMENTS = 6, 3
"""How many of its cart items a session remembers; how many items go with an item."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What visitors of the shop do, as probabilities.

    After a click the next one is on something `similar` (of the same category, near in taste, rather popular), on a
    `complement` of it, `again` on the item before, or, in what is left, on what is popular that day. A click leads
    to a cart with about `cart`, more often for what sells well; what is in the cart is ordered with `order` when the
    session ends. What is put into the cart leads to a complement with `accessory`. A session has `clicks` on average.
    """

    similar: float = 0.55
    complement: float = 0.12
    again: float = 0.15
    cart: float = 0.10
    accessory: float = 0.5
    order: float = 0.45
    clicks: float = 6.8


@dataclass(frozen=True, slots=True, eq=False)
class Shop:
    """Its items by place: those of a category are neighbours, and within it those near in taste.

    `first` and `last`: the places at which an item's category begins and ends. `complement` [items, 3]: what goes
    with it, in another category. `appeal`: how much it is wanted for good; `daily` [days, items]: sums, over the
    items up to each, of how much it is wanted on a day, as fashions come and go.
    """

    category: npt.NDArray[np.int32]
    first: Int64s
    last: Int64s
    complement: Int64s
    appeal: Doubles
    daily: Doubles

    @classmethod
    def open(cls, items: int, chance: np.random.Generator) -> Shop:
        """With about as many categories as items in each."""
        categories = max(4, round(items**0.5 / 2))
        sizes = np.bincount(
            chance.choice(categories, items - 2 * categories, p=_zipf(categories, 0.7)), minlength=categories
        )
        sizes = sizes + 2
        ends = np.cumsum(sizes)
        category = np.repeat(np.arange(categories, dtype=np.int32), sizes)
        first, last = (ends - sizes)[category], (ends - 1)[category]
        goes_with = chance.permutation(categories)
        goes_with = np.where(goes_with == np.arange(categories), (goes_with + 1) % categories, goes_with)[category]
        taste = (np.arange(items) - first) / np.maximum(1, last - first)
        near = taste[:, None] + chance.normal(0, 0.03, (items, COMPLEMENTS))
        complement = (ends - sizes)[goes_with][:, None] + np.rint(
            np.clip(near, 0, 1) * (sizes[goes_with] - 1)[:, None]
        ).astype(np.int64)
        appeal = chance.permutation(_zipf(items, 0.8) * items)
        return cls(category, first, last, complement, appeal, _fashions(appeal, chance))


def simulate(events: int, seed: int = 0, progress: Progress = silent, habits: Habits = Habits()) -> Events:
    """About so many events of four weeks, in sessions of eight on average, on a thirtieth as many items.

    Items are numbered from 1001 and sessions from 1, in the order of time. The same seed gives the same events.
    """
    if not LEAST <= events <= MOST:
        raise TooFewEvents(f"a simulated shop has from {LEAST:,} to {MOST:,} events")
    chance = np.random.default_rng(seed)
    shop = Shop.open(max(64, events // EVENTS_PER_ITEM), chance)
    session, place, ts, type = _visits(
        shop, habits, round(events / (habits.clicks * EVENTS_PER_CLICK)), chance, progress
    )
    aids = np.full(len(shop.category), -1, np.int64)
    sold = np.unique(place)
    aids[sold] = FIRST_AID + chance.permutation(len(sold))
    categories = np.full(len(sold), UNKNOWN, np.int32)
    categories[aids[sold] - FIRST_AID] = shop.category[sold]
    made = Events.of(session, aids[place], ts, type)
    progress("simulating", 1.0)
    return Events(made.session, made.aid, made.ts, made.type, made.catalogue, categories)


def _visits(
    shop: Shop, habits: Habits, sessions: int, chance: np.random.Generator, progress: Progress
) -> tuple[Int64s, Int64s, Int64s, Int8s]:
    """All sessions at once, one click of each after the other. Columns session, place, ts and type."""
    begin = np.sort(_moments(sessions, chance))
    clicks = 1 + chance.geometric(1 / np.maximum(1.05, chance.gamma(1.2, (habits.clicks - 1) / 1.2, sessions)))
    clicks = np.minimum(clicks, 100)
    now, at = begin.copy(), _popular(shop, _day(begin), chance)
    before = at.copy()
    cart = np.full((sessions, KEEP), -1, np.int64)
    held = np.zeros(sessions, np.int64)
    parts: list[tuple[Int64s, Int64s, Int64s, Int8s]] = []

    def happened(who: Int64s, what: Int64s, when: Int64s, type: int) -> None:
        parts.append((who + 1, what, when, np.full(len(who), type, np.int8)))

    alive = np.arange(sessions)
    for step in range(int(clicks.max())):
        alive = alive[clicks[alive] > step]
        if not len(alive):
            break
        happened(alive, at[alive], now[alive], CLICK)
        carted = alive[chance.random(len(alive)) < habits.cart * np.clip(shop.appeal[at[alive]] ** 0.3, 0.3, 3)]
        now[carted] += chance.integers(3, 40, len(carted))
        happened(carted, at[carted], now[carted], CART)
        cart[carted, held[carted] % KEEP] = at[carted]
        held[carted] += 1
        moved = _next(shop, habits, at[alive], before[alive], np.isin(alive, carted), _day(now[alive]), chance)
        before[alive], at[alive] = at[alive], moved
        now[alive] += np.minimum(chance.lognormal(3.7, 1.0, len(alive)), 1500).astype(np.int64) + 1
        progress("simulating", 0.9 * step / int(clicks.max()))
    for slot in range(KEEP):
        buying = np.flatnonzero((cart[:, slot] >= 0) & (chance.random(sessions) < habits.order))
        happened(buying, cart[buying, slot], now[buying] + 60, ORDER)
    session, place, ts, type = (np.concatenate([part[number] for part in parts]) for number in range(4))
    inside = ts < END
    return session[inside], place[inside], ts[inside], type[inside]


def _next(
    shop: Shop,
    habits: Habits,
    at: Int64s,
    before: Int64s,
    carted: npt.NDArray[np.bool_],
    day: Int64s,
    chance: np.random.Generator,
) -> Int64s:
    """Where each visitor goes from where it is."""
    drawn = chance.random(len(at))
    edges = np.cumsum((habits.similar, habits.complement, habits.again))
    complement = shop.complement[at, chance.integers(0, COMPLEMENTS, len(at))]
    moved = np.where(drawn < edges[0], _similar(shop, at, chance), complement)
    moved = np.where((drawn >= edges[1]) & (drawn < edges[2]), before, moved)
    elsewhere = drawn >= edges[2]
    moved[elsewhere] = _popular(shop, day[elsewhere], chance)
    return np.where(carted & (chance.random(len(at)) < habits.accessory), complement, moved)


def _similar(shop: Shop, at: Int64s, chance: np.random.Generator) -> Int64s:
    """One of four neighbours in the category, the one that is wanted most, with some luck."""
    size = (shop.last[at] - shop.first[at])[:, None]
    steps = np.rint(chance.laplace(0, 1, (len(at), 4)) * np.minimum(4.0, 1 + 0.05 * size))
    near = np.clip(at[:, None] + steps.astype(np.int64), shop.first[at][:, None], shop.last[at][:, None])
    worth = np.log(shop.appeal[near]) * 0.7 + chance.gumbel(size=near.shape)
    worth[near == at[:, None]] = -np.inf
    best: Int64s = near[np.arange(len(at)), worth.argmax(axis=1)]
    return best


def _popular(shop: Shop, day: Int64s, chance: np.random.Generator) -> Int64s:
    """An item by how much it is wanted on each day."""
    found = np.empty(len(day), np.int64)
    drawn = chance.random(len(day))
    for one in np.unique(day):
        on = day == one
        sums = shop.daily[one]
        found[on] = np.searchsorted(sums, drawn[on] * sums[-1], side="right")
    return np.minimum(found, len(shop.category) - 1)


def _fashions(appeal: Doubles, chance: np.random.Generator) -> Doubles:
    """For a third of the items there is a week in which they are wanted up to eight times as much."""
    items = len(appeal)
    peak, width = chance.uniform(0, DAYS, items), chance.uniform(1, 4, items)
    height = np.where(chance.random(items) < 1 / 3, chance.uniform(2, 8, items), 0.0)
    days = np.arange(DAYS)[:, None] + 0.5
    wanted: Doubles = appeal * (1 + height * np.exp(-0.5 * ((days - peak) / width) ** 2))
    sums: Doubles = np.cumsum(wanted, axis=1)
    return sums


def _moments(sessions: int, chance: np.random.Generator) -> Int64s:
    """Most in the evening, least in the small hours."""
    day = chance.integers(0, DAYS, sessions)
    hours = np.arange(24)
    busy = 1.1 + np.sin((hours - 14) / 24 * 2 * np.pi)
    hour = chance.choice(hours, sessions, p=busy / busy.sum())
    moment: Int64s = END - DAYS * DAY_S + day * DAY_S + hour * 3600 + chance.integers(0, 3600, sessions)
    return moment


def _day(moment: Int64s) -> Int64s:
    return np.clip((moment - END) // DAY_S + DAYS, 0, DAYS - 1)


def _zipf(count: int, power: float) -> Doubles:
    weights: Doubles = 1 / np.arange(1, count + 1) ** power
    shares: Doubles = weights / weights.sum()
    return shares
