"""Tables of events as text: CSV under many names, RetailRocket's and YOOCHOOSE's own."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from maru.services.recommend.training.errors import BadEvents
from maru.services.recommend.training.values import Cells, integers, milliseconds

NAMES = {
    "session": ("session", "session_id", "sessionid", "sid"),
    "visitor": ("visitorid", "visitor_id", "visitor", "user_id", "userid", "user", "customer_id"),
    "aid": ("aid", "item", "item_id", "itemid", "product_id", "productid", "article_id"),
    "ts": ("ts", "timestamp", "time", "unix", "event_time", "datetime", "date"),
    "type": ("type", "event", "event_type", "action", "behavior"),
    "category": ("category", "category_id", "categoryid", "cat"),
}
"""The names that each column may have, best first."""
CLICKS, ORDERS = 0, 2
SEPARATORS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a file. `type` is one kind where all rows are of it; of `visitors` the session is a person."""

    session: Cells
    aid: Cells
    ts: Cells
    type: Cells | int
    category: Cells | None = None
    visitors: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column is what. `names` are what a person calls the columns."""

    names: Sequence[str]
    places: Mapping[str, int]
    type: int = CLICKS
    titled: bool = True

    @property
    def visitors(self) -> bool:
        return "session" not in self.places

    def block(self, file: str, columns: Sequence[Sequence[Any]], rows: Sequence[int]) -> Block:
        """Of as many columns as the layout names."""

        def cells(what: str) -> Cells | None:
            place = self.places.get(what)
            return None if place is None else Cells(file, self.names[place], columns[place], rows)

        session, aid, ts = cells("session") or cells("visitor"), cells("aid"), cells("ts")
        assert session and aid and ts
        return Block(session, aid, ts, cells("type") or self.type, cells("category"), self.visitors)


YOOCHOOSE_CLICKS = Layout(
    ("session", "timestamp", "item", "category"), {"session": 0, "ts": 1, "aid": 2}, CLICKS, titled=False
)
YOOCHOOSE_BUYS = Layout(
    ("session", "timestamp", "item", "price", "quantity"), {"session": 0, "ts": 1, "aid": 2}, ORDERS, titled=False
)
"""Their files have no header. The category of a click is that of the page, such as a special offer: it is left."""


def named(file: str, header: Sequence[str]) -> Layout:
    """The layout of a table with these column names; BadEvents says which one is missing."""
    known = [name.strip().strip("\ufeff").lower() for name in header]
    places: dict[str, int] = {}
    for what, names in NAMES.items():
        name = next((name for name in names if name in known), None)
        if name is not None:
            if known.count(name) > 1:
                raise BadEvents(f"{file}: the column {name} is there twice")
            places[what] = known.index(name)
    if "session" in places:
        places.pop("visitor", None)
    for what in ("session", "aid", "ts"):
        if what not in places and not (what == "session" and "visitor" in places):
            raise BadEvents(f"{file} has no column of {what}; it may be called {', '.join(NAMES[what])}")
    return Layout([header[place].strip() for place in range(len(header))], places)


def blocks(file: Path, size: int, told: Callable[[int], None]) -> Iterator[Block]:
    """A CSV, `size` rows at a time. `told` hears how many bytes are done."""
    with _opened(file) as (raw, text):
        reader = _reader(file.name, text)
        first = next(reader, None)
        if first is None:
            raise BadEvents(f"{file.name} is empty")
        layout = _layout(file.name, first[1])
        waiting = [] if layout.titled else [first]
        while rows := [*waiting, *islice(reader, size - len(waiting))]:
            waiting = []
            yield layout.block(file.name, *_columns(file.name, rows, len(layout.names)))
            told(raw.tell())


def item_categories(file: Path, size: int, told: Callable[[int], None]) -> Iterator[tuple[int, int, int]]:
    """Of RetailRocket's `item_properties`: an item, since when, in milliseconds, and its category."""
    with _opened(file) as (raw, text):
        reader = _reader(file.name, text)
        _, header = next(reader, (1, []))
        if [name.strip().lower() for name in header] != ["timestamp", "itemid", "property", "value"]:
            raise BadEvents(f"{file.name} is no table of timestamp, itemid, property and value")
        while block := list(islice(reader, size)):
            rows = [(number, row) for number, row in block if row[2:3] == ["categoryid"]]
            (moments, items, _, values), numbers = _columns(file.name, rows, 4)
            when = milliseconds(Cells(file.name, "timestamp", moments, numbers))
            item = integers(Cells(file.name, "itemid", items, numbers))
            category = integers(Cells(file.name, "value", values, numbers))
            yield from zip(item.tolist(), when.tolist(), category.tolist(), strict=True)
            told(raw.tell())


def _layout(file: str, first: Sequence[str]) -> Layout:
    for layout in (YOOCHOOSE_CLICKS, YOOCHOOSE_BUYS):
        if len(first) == len(layout.names) and first[0].isdecimal() and first[2].isdecimal():
            return layout
    return named(file, first)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[io.BufferedReader, io.TextIOWrapper]]:
    with file.open("rb") as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as text:
        yield raw, text


def _reader(file: str, text: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with the line each one ends at."""
    start = text.readline()
    separator = max(SEPARATORS, key=start.count)
    lines = csv.reader(_from(start, text), delimiter=separator, strict=True)
    try:
        for row in lines:
            if row:
                yield lines.line_num, row
    except csv.Error:
        raise BadEvents(f"{file}, row {lines.line_num}: this is no CSV") from None


def _from(start: str, text: io.TextIOWrapper) -> Iterator[str]:
    yield start
    yield from text


def _columns(
    file: str, rows: Sequence[tuple[int, Sequence[str]]], width: int
) -> tuple[Sequence[Sequence[str]], Sequence[int]]:
    numbers = [number for number, _ in rows]
    for number, row in rows:
        if len(row) != width:
            raise BadEvents(f"{file}, row {number} has {len(row)} columns instead of {width}")
    return list(zip(*(row for _, row in rows), strict=True)) or [()] * width, numbers
