"""What stands in the cells of a file of events: numbers, moments and kinds of events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from maru.services.recommend.core.events import Int8s, Int64s
from maru.services.recommend.training.errors import BadEvents

MILLISECONDS = 10**11
"""Unix times from here on are milliseconds: as seconds, it is the year 5138."""
LATEST_MS = 10**14
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

IGNORED = -1
KINDS = {
    **dict.fromkeys(("clicks", "click", "view", "views", "pv", "0"), 0),
    **dict.fromkeys(("carts", "cart", "addtocart", "add_to_cart", "add-to-cart", "1"), 1),
    **dict.fromkeys(("orders", "order", "transaction", "purchase", "buy", "2"), 2),
    **dict.fromkeys(("remove_from_cart", "removefromcart", "fav", "favorite"), IGNORED),
}
"""What shops call the kinds of events. Some tell nothing about what will be wanted next, and are left out."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A stretch of one column of a file, and where its rows are, as a person counts them."""

    file: str
    column: str
    values: Sequence[Any]
    rows: Sequence[int]

    def wrong(self, place: int, what: str) -> NoReturn:
        raise BadEvents(f"{self.file}, row {self.rows[place]}: {self.column} {what}")


def integers(cells: Cells) -> Int64s:
    """Whole numbers, as text or as numbers; BadEvents names the first row that has none."""
    given = cells.values
    if isinstance(given, np.ndarray) and given.dtype.kind == "i":
        return given.astype(np.int64)
    try:
        return np.fromiter(map(int, _exact(given)), np.int64, len(given))
    except (TypeError, ValueError, OverflowError):
        return _each(cells, _whole, "is not a whole number of 64 bits")


def milliseconds(cells: Cells) -> Int64s:
    """Moments: Unix seconds, Unix milliseconds, or ISO 8601, UTC where it names no zone."""
    try:
        given = _numbers(cells.values)
    except (TypeError, ValueError, OverflowError):
        found = _each(cells, _moment, "is neither a Unix time nor ISO 8601")
    else:
        if not np.isfinite(given).all():
            cells.wrong(int(np.argmin(np.isfinite(given))), "is no time")
        given = np.where(given >= MILLISECONDS, given, given * 1000)
        found = np.where(np.abs(given) < LATEST_MS, given, -1).round().astype(np.int64)
    bad = (found < 0) | (found >= LATEST_MS)
    if bad.any():
        cells.wrong(int(np.argmax(bad)), "is no time")
    return found


def kinds(cells: Cells) -> Int8s:
    """0 for clicks, 1 for carts, 2 for orders, IGNORED for what is to be left out."""
    given = cells.values
    if isinstance(given, np.ndarray) and given.dtype.kind in "iu":
        bad = (given < 0) | (given > 2)
        if bad.any():
            cells.wrong(int(np.argmax(bad)), "is none of 0 (clicks), 1 (carts) and 2 (orders)")
        return given.astype(np.int8)
    try:
        return np.fromiter((KINDS[value] for value in given), np.int8, len(given))
    except (KeyError, TypeError):
        return _each(cells, _kind, "is none of clicks, carts and orders").astype(np.int8)


def _numbers(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return values.astype(np.float64)
    return np.fromiter(map(float, _exact(values)), np.float64, len(values))


def _exact(values: Sequence[Any]) -> Sequence[Any]:
    """TypeError where int() would take what is no whole number, or a truth for a number."""
    if not set(map(type, values)) <= {int, str}:
        raise TypeError
    return values


def _each(cells: Cells, read: Callable[[Any], int], what: str) -> npt.NDArray[np.int64]:
    found = np.empty(len(cells.values), np.int64)
    for place, value in enumerate(cells.values):
        try:
            found[place] = read(value)
        except (KeyError, TypeError, ValueError, OverflowError):
            cells.wrong(place, what)
    return found


def _whole(value: Any) -> int:
    if isinstance(value, bool) or value is None:
        raise TypeError
    try:
        return int(value) if isinstance(value, str) else _unrounded(value)
    except ValueError:
        return _unrounded(float(value))


def _unrounded(value: Any) -> int:
    if int(value) != value:
        raise ValueError
    return int(value)


def _moment(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    try:
        number = float(value)
    except ValueError:
        moment = datetime.fromisoformat(value.strip())
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)
    return round(number if number >= MILLISECONDS else number * 1000)


def _kind(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return KINDS[str(value).strip().lower()]
