"""Candles: what a market did, bar by bar, read from a CSV and checked."""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maru.services.forecast.training.errors import BadCandles, TooFewCandles

Floats = npt.NDArray[np.float64]

TIMES = ("unix", "timestamp", "time", "open_time", "datetime", "date")
"""The names of the time column, best first: of several, the number is taken rather than the text."""
FIGURES = ("open", "high", "low", "close", "volume")
MILLISECONDS = 1e11
"""Unix times from here on are milliseconds: as seconds, it is the year 5138."""
SMALLEST, LARGEST = 1e-30, 1e30
LEAST = 500


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """Bars in the order of time, no time twice. `time` is when a bar opens, in Unix seconds.

    Most neighbours are `interval_s` apart; `runs` are the stretches without a gap. `notes` say what was mended
    on reading, `sha256` is that of the file.
    """

    time: npt.NDArray[np.int64]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    sha256: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Candles:
        """BadCandles when the file is no such table, TooFewCandles when it is short.

        The columns are found by their names, whatever their case and order; others are left alone. Times are
        Unix seconds, Unix milliseconds or ISO 8601 (UTC where they name no zone). Rows out of order are sorted
        and rows that are there twice dropped, and `notes` says so; two different rows of one time are an error.
        """
        try:
            content = path.read_bytes()
            lines = csv.reader(content.decode("utf-8-sig").splitlines(), strict=True)
            rows = [(number, row) for number, row in enumerate(lines, 1) if row]
        except OSError as error:
            raise BadCandles(f"the file can't be read: {error.strerror}") from None
        except (UnicodeDecodeError, csv.Error):
            raise BadCandles("the file is no CSV in UTF-8") from None
        if not rows:
            raise BadCandles("the file is empty")
        table, notes = _in_order(np.array(list(_figures(rows)), np.float64).reshape(-1, 1 + len(FIGURES)))
        if len(table) < LEAST:
            raise TooFewCandles(f"there are {len(table)} candles; at least {LEAST} are needed")
        time, opened, high, low, closed, volume = table.T.copy()
        digest = hashlib.sha256(content).hexdigest()
        return cls(time.astype(np.int64), opened, high, low, closed, volume, digest, notes)

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, part: slice) -> Candles:
        return Candles(
            self.time[part],
            self.open[part],
            self.high[part],
            self.low[part],
            self.close[part],
            self.volume[part],
            self.sha256,
            self.notes,
        )

    @property
    def interval_s(self) -> int:
        """The commonest distance of two neighbours."""
        return int(Counter(np.diff(self.time).tolist()).most_common(1)[0][0])

    def runs(self) -> list[Candles]:
        """The stretches in which each bar follows the one before at once."""
        breaks = np.flatnonzero(np.diff(self.time) != self.interval_s) + 1
        edges = [0, *breaks.tolist(), len(self)]
        return [self[start:end] for start, end in pairwise(edges)]


def _figures(rows: Sequence[tuple[int, list[str]]]) -> Iterator[list[float]]:
    """Time and figures, row by row, each one checked."""
    header = [name.strip().lower() for name in rows[0][1]]
    for name in FIGURES:
        if header.count(name) != 1:
            found = "is there twice" if name in header else "is missing"
            raise BadCandles(f"the column {name} {found}; needed are a time and {', '.join(FIGURES)}")
    clock = next((name for name in TIMES if name in header), None)
    if clock is None:
        raise BadCandles(f"there is no column of times; it may be called {', '.join(TIMES)}")
    places = [header.index(name) for name in FIGURES]
    for number, row in rows[1:]:
        if len(row) != len(header):
            raise BadCandles(f"line {number} has {len(row)} columns, the header {len(header)}")
        time = _time(row[header.index(clock)], number, clock)
        values = [_number(row[place], number, name) for place, name in zip(places, FIGURES, strict=True)]
        _check(values, number)
        yield [time, *values]


def _time(text: str, line: int, column: str) -> float:
    try:
        moment = float(text)
    except ValueError:
        try:
            read = datetime.fromisoformat(text.strip())
        except ValueError:
            raise BadCandles(f"line {line}: {column} is neither a Unix time nor ISO 8601") from None
        moment = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    if not 0 <= moment < 1e14:
        raise BadCandles(f"line {line}: {column} is no time")
    return float(round(moment / 1000 if moment >= MILLISECONDS else moment))


def _number(text: str, line: int, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadCandles(f"line {line}: {column} is {'no number' if text.strip() else 'empty'}")
    return value


def _check(values: Sequence[float], line: int) -> None:
    opened, high, low, closed, volume = values
    if not (min(values[:4]) > 0 and volume >= 0):
        raise BadCandles(f"line {line}: a price is zero or below, or the volume below zero")
    if not (min(values[:4]) > SMALLEST and max(values) < LARGEST):
        raise BadCandles(f"line {line}: a figure is too small or too large for 32-bit floating point")
    if not (low <= opened <= high and low <= closed <= high):
        raise BadCandles(f"line {line}: open and close are not between low and high")


def _in_order(table: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    notes = []
    steps = np.diff(table[:, 0])
    if (steps < 0).any():
        table = table[np.argsort(table[:, 0], kind="stable")]
        notes.append("rows were out of order and have been sorted")
    same = np.diff(table[:, 0]) == 0
    if same.any():
        if (table[1:][same] != table[:-1][same]).any():
            first = datetime.fromtimestamp(table[1:][same][0, 0], UTC)
            raise BadCandles(f"there are different rows of one time, the first at {first:%Y-%m-%d %H:%M} UTC")
        table = table[np.concatenate(([True], ~same))]
        notes.append(f"{int(same.sum())} rows were there twice")
    return table, tuple(notes)
