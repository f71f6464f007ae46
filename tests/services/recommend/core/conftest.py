"""A small shop in which sessions keep to a category, most of the time, and buy what goes with it."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conftest import COMPILED

from maru.services.recommend.core.compiling import keep_compiled_in

# Before any module with compiled functions is imported, and kept from run to run.
keep_compiled_in(COMPILED)

from maru.services.recommend.core.events import Events  # noqa: E402
from maru.services.recommend.core.examples import Visit  # noqa: E402
from maru.services.recommend.core.index import Index  # noqa: E402

CATEGORIES, OF_EACH = 12, 25
DAY = 86_400
START = 1_660_000_000


def sessions_of(count: int, seed: int, first: int, start: int, days: int) -> dict[str, list[int]]:
    """Columns of random sessions; item ids are 1000 and up, category c holding 25 of them."""
    random = np.random.default_rng(seed)
    columns: dict[str, list[int]] = {"session": [], "aid": [], "ts": [], "type": []}
    for session in range(first, first + count):
        now = start + int(random.integers(days * DAY))
        category, item = int(random.integers(CATEGORIES)), int(random.integers(OF_EACH))
        for _ in range(int(random.integers(2, 12))):
            if random.random() < 0.1:
                category = int(random.integers(CATEGORIES))
            item = (item + int(random.integers(1, 4))) % OF_EACH
            columns["session"].append(session)
            columns["aid"].append(1000 + category * OF_EACH + item)
            columns["ts"].append(now)
            columns["type"].append(int(random.choice(3, p=[0.8, 0.13, 0.07])))
            now += int(random.integers(5, 600))
    return columns


def events_of(columns: dict[str, list[int]]) -> Events:
    items = np.arange(1000, 1000 + CATEGORIES * OF_EACH)
    return Events.of(**columns, categories=(items, (items - 1000) // OF_EACH))


@pytest.fixture(scope="session")
def events() -> Events:
    return events_of(sessions_of(1500, 1, 50_000, START, 14))


@pytest.fixture(scope="session")
def index(events: Events) -> Index:
    return Index.build(events)


@pytest.fixture(scope="session")
def visits() -> list[Visit]:
    """Of the days that follow those of the events; each cut in the middle."""
    later = events_of(sessions_of(900, 2, 90_000, START + 14 * DAY, 3))
    order = np.argsort(later.ts[later.starts()[:-1]])
    cut = []
    for session in order:
        rows = np.arange(*later.starts()[session : session + 2])
        seen, rest = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        aids = later.catalogue[later.aid]
        new = [at for at in rest if aids[at] not in set(aids[seen])]
        wanted = {
            name: np.unique(aids[[at for at in new if later.type[at] == kind]]).astype(np.int64)
            for kind, name in enumerate(("clicks", "carts", "orders"))
        }
        cut.append(Visit(aids[seen], later.ts[seen], later.type[seen], wanted))
    return cut
