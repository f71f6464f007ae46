"""What a ranker is told of a candidate: 128 figures that were thought of, and 128 products of two embeddings."""

from __future__ import annotations

DIMENSIONS = 128
"""Of the embeddings of items and sessions."""

CANDIDATES = 100
"""How many of a session's candidates are ranked, at most."""

POOL = 256
"""How many are found before they are fused, at most: the sum of `DEPTHS`, and some more."""

RECENT = 30
"""The last events of a session that count."""

KINDS = ("viewed", "typed", "bought", "next")
"""The four kinds of co-visitation, in the order in which the index holds them."""

SOURCES = (
    "viewed_together",
    "acted_together",
    "bought_together",
    "viewed_next",
    "similar",
    "similar_sessions",
    "popular",
)
"""Where candidates come from. The first four are `KINDS`."""

DEPTHS = (40, 40, 20, 40, 30, 40, 20)
"""How many candidates each source gives."""

SIMILAR, SESSIONS, POPULAR = 4, 5, 6
"""Places in `SOURCES`."""

ABSENT = 999
"""The rank of a candidate in a source that did not give it."""

WINDOWS_D = (1, 3, 7, 28)
"""The last days over which an item's popularity is counted, each by itself."""

TYPE_WEIGHTS = (1.0, 6.0, 3.0)
"""What a click, a cart and an order say of an interest, relative to a click."""

_COVISITATION = ("sum", "recent", "typed", "most", "last", "items", "place", "bought", "rank", "share")
_SIMILAR = ("recent", "mean", "typed", "last", "last_bought", "most", "near", "least", "rank")
_SESSIONS = ("score", "share", "rank", "count", "recent", "after")
_TYPES = ("clicks", "carts", "orders")
ITEM = (
    *(f"{kind}_{days}d" for kind in _TYPES for days in WINDOWS_D),
    "carts_per_click",
    "orders_per_click",
    "orders_per_cart",
    *(f"{kind}_trend" for kind in _TYPES),
    "sessions",
    "events",
    "popularity",
    "repeated",
    "position",
    "exit",
    *(f"{kind}_change" for kind in _TYPES),
    "click_position",
)
"""The figures of an item alone: the first columns of `Shop.stats`, copied as they are."""

SHARES = len(ITEM)
"""Where in `Shop.stats` the item's shares of all recent clicks, carts and orders stand."""

STATS = 32
"""Columns of `Shop.stats`."""

SESSION = (
    *("events", "items", "clicks", "carts", "orders", "clicks_part", "carts_part", "orders_part"),
    *("duration", "last_gap", "mean_gap", "last_repeats", "last_click", "last_cart", "last_order"),
    *("hour_sin", "hour_cos", "day_sin", "day_cos", "popularity_mean", "popularity_most", "popularity_least"),
    *("last_10min", "last_hour", "last_day", "coherence", "items_part"),
)
"""The figures of the session alone."""

_FUSION = ("count", "best", "score", "mean", "spread")

NAMED = (
    *(f"{kind}_{figure}" for kind in KINDS for figure in _COVISITATION),
    *(f"similar_{figure}" for figure in _SIMILAR),
    *(f"sessions_{figure}" for figure in _SESSIONS),
    *(f"item_{figure}" for figure in ITEM),
    "item_age_last",
    "item_age_first",
    "popular_rank",
    *(f"session_{figure}" for figure in SESSION),
    *(f"from_{source}" for source in SOURCES),
    *(f"fused_{figure}" for figure in _FUSION),
    "popularity_beside_session",
    "category_of_last",
    "category_share",
)

FEATURE_NAMES = (*NAMED, *(f"product_{dimension}" for dimension in range(DIMENSIONS)))
"""In the order of the columns."""

PER_KIND = len(_COVISITATION)
AT_SIMILAR = NAMED.index("similar_recent")
AT_SESSIONS = NAMED.index("sessions_score")
AT_ITEM = NAMED.index(f"item_{ITEM[0]}")
AT_AGES = NAMED.index("item_age_last")
AT_SESSION = NAMED.index("session_events")
AT_FUSION = NAMED.index(f"from_{SOURCES[0]}")
AT_BESIDE = NAMED.index("popularity_beside_session")
POPULARITY = ITEM.index("popularity")
"""Places of the groups, and of the popularity among an item's figures."""
