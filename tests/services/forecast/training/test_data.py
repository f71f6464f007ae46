"""Reading candles: what is accepted, what is mended, and what a person is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maru.services.forecast.training.data import Candles
from maru.services.forecast.training.errors import BadCandles, TooFewCandles, TrainingError

HEADER = "unix,open,high,low,close,volume"


@pytest.fixture
def lines(market: Callable[..., list[list[float]]], written: Callable[..., Path], tmp_path: Path) -> list[str]:
    """The lines of a good file, the header first."""
    return written(tmp_path / "good.csv", market(600)).read_text().splitlines()


@pytest.fixture
def read(tmp_path: Path) -> Callable[[list[str]], Candles]:
    def read(lines: list[str], encoding: str = "utf-8") -> Candles:
        path = tmp_path / "candles.csv"
        path.write_text("\n".join(lines), encoding)
        return Candles.read(path)

    return read


def altered(lines: list[str], line: int, column: str, value: str) -> list[str]:
    """With another value at that line, counted from 1 as editors do."""
    cells = lines[line - 1].split(",")
    cells[HEADER.split(",").index(column)] = value
    return [*lines[: line - 1], ",".join(cells), *lines[line:]]


def test_figures_are_found_by_name(read, lines):
    plain = read(lines)
    assert (len(plain), plain.interval_s, len(plain.runs()), plain.notes) == (600, 3600, 1, ())
    shuffled = []
    for line in lines:
        unix, opened, high, low, close, volume = line.split(",")
        shuffled.append(",".join((volume, "of no account", low, unix, close, opened, high)))
    shuffled[0] = " Volume ,note,LOW,Timestamp,Close,Open,High"
    other = read(shuffled, "utf-8-sig")
    for column in ("time", "open", "high", "low", "close", "volume"):
        assert (getattr(plain, column) == getattr(other, column)).all()


@pytest.mark.parametrize(
    "written_as",
    [
        lambda unix: f"{unix}000",
        lambda unix: f"{unix}.0",
        lambda unix: str(np.datetime64(unix, "s")),
        lambda unix: str(np.datetime64(unix, "s")).replace("T", " ") + "+00:00",
        lambda unix: str(np.datetime64(unix + 9 * 3600, "s")) + "+09:00",
        lambda unix: str(np.datetime64(unix, "s")) + "Z",
    ],
    ids=["milliseconds", "float", "no zone", "as the starter's", "Seoul", "Z"],
)
def test_times_as_exchanges_write_them(read, lines, written_as):
    again = [lines[0], *(f"{written_as(int(line.partition(',')[0]))},{line.partition(',')[2]}" for line in lines[1:])]
    assert (read(again).time == read(lines).time).all()


def test_newest_first_is_sorted_and_said(read, lines):
    backwards = read([lines[0], *reversed(lines[1:])])
    assert (backwards.close == read(lines).close).all()
    assert backwards.notes == ("rows were out of order and have been sorted",)


def test_rows_that_are_there_twice_are_dropped_and_said(read, lines):
    twice = read([*lines, lines[7], lines[7], lines[9]])
    assert len(twice) == 600 and "3 rows were there twice" in twice.notes


def test_two_truths_of_one_time_are_refused(read, lines):
    with pytest.raises(BadCandles, match="different rows of one time, the first at 2024-01-01 04:00 UTC"):
        read([*lines, altered(lines, 6, "volume", "1")[5]])


def test_gaps_part_the_candles(read, lines):
    gaps = read([*lines[:200], *lines[201:400], *lines[403:]])
    assert [len(run) for run in gaps.runs()] == [199, 199, 198]
    assert all((np.diff(run.time) == 3600).all() for run in gaps.runs())


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("close", "", "line 300: close is empty"),
        ("close", "abc", "line 300: close is no number"),
        ("close", "nan", "line 300: close is no number"),
        ("high", "inf", "line 300: high is no number"),
        ("close", "1,234.5", "line 300 has 7 columns, the header 6"),
        ("low", "0", "line 300: a price is zero or below"),
        ("open", "-3", "line 300: a price is zero or below"),
        ("volume", "-0.1", "line 300: a price is zero or below, or the volume below zero"),
        ("volume", "1e38", "line 300: a figure is too small or too large"),
        ("low", "1e-40", "line 300: a figure is too small or too large"),
        ("high", "1", "line 300: open and close are not between low and high"),
        ("low", "1e9", "line 300: open and close are not between low and high"),
        ("unix", "", "line 300: unix is neither a Unix time nor ISO 8601"),
        ("unix", "yesterday", "line 300: unix is neither a Unix time nor ISO 8601"),
        ("unix", "nan", "line 300: unix is no time"),
        ("unix", "-5", "line 300: unix is no time"),
        ("unix", "1e18", "line 300: unix is no time"),
    ],
)
def test_a_broken_figure_is_named(read, lines, column, value, said):
    with pytest.raises(BadCandles) as caught:
        read(altered(lines, 300, column, value))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("unix,open,high,low,close", "the column volume is missing"),
        ("unix,open,high,low,price,volume", "the column close is missing"),
        ("unix,open,high,close,close,volume", "the column low is missing"),
        ("unix,open,high,low,close,Close,volume", "the column close is there twice"),
        ("when,open,high,low,close,volume", "there is no column of times"),
        ("unix;open;high;low;close;volume", "the column open is missing"),
    ],
)
def test_a_missing_column_is_named(read, lines, header, said):
    with pytest.raises(BadCandles, match=said):
        read([header, *lines[1:]])


def test_files_that_are_no_table(tmp_path):
    path = tmp_path / "file"
    for content, said in (
        (b"", "empty"),
        (b"\n\n", "empty"),
        (bytes(range(256)) * 40, "no CSV in UTF-8"),
        (HEADER.encode("utf-16"), "no CSV in UTF-8"),
        (b'unix,open\n"1,2', "no CSV in UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadCandles, match=said):
            Candles.read(path)
    with pytest.raises(BadCandles, match="can't be read: No such file"):
        Candles.read(tmp_path / "nothing")
    with pytest.raises(BadCandles, match="can't be read: Is a directory"):
        Candles.read(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 2, 499])
def test_too_few(read, lines, keep):
    with pytest.raises(TooFewCandles, match=f"there are {keep} candles; at least 500"):
        read(lines[: keep + 1])


def test_one_row_many_times_is_one_row(read, lines):
    with pytest.raises(TooFewCandles, match="there are 1 candles"):
        read([lines[0], *([lines[1]] * 600)])


def test_a_file_cut_anywhere_is_read_or_refused_in_words(tmp_path, lines):
    content = "\n".join(lines).encode()
    path = tmp_path / "cut.csv"
    for cut in range(0, len(content), len(content) // 64):
        path.write_bytes(content[:cut])
        try:
            assert len(Candles.read(path)) >= 500
        except TrainingError as error:
            assert str(error)
