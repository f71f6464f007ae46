"""Reading events: what is accepted, what is mended, and what a person is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from maru.services.recommend.core.events import Events
from maru.services.recommend.training import readers
from maru.services.recommend.training.errors import BadEvents
from maru.services.recommend.training.gathering import Reading, fingerprint
from maru.services.recommend.training.progress import silent

START = 1_659_304_800
ROWS = [
    (7, 1001, START, "clicks"),
    (7, 1002, START + 10, "carts"),
    (7, 1003, START + 10, "clicks"),
    (9, 1002, START + 5, "clicks"),
    (9, 1002, START + 25, "orders"),
]


def read(path: Path, **options: int) -> Reading:
    return readers.read(path, silent, **options)


def rows(events: Events) -> list[tuple[int, int, int, int]]:
    columns = (events.session, events.catalogue[events.aid], events.ts, events.type)
    return list(zip(*(column.tolist() for column in columns), strict=True))


EXPECTED = [(session, aid, ts, ("clicks", "carts", "orders").index(type)) for session, aid, ts, type in ROWS]


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    def write(lines: Sequence[str], name: str = "events.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding)
        return path

    return write


def test_csv(csv):
    lines = ["session,aid,ts,type", *(",".join(map(str, row)) for row in ROWS)]
    found = read(csv(lines))
    assert rows(found.events) == EXPECTED and found.notes == () and found.events.categories is None


def test_columns_are_found_by_name_and_rows_put_in_order(csv):
    mixed = [ROWS[3], ROWS[1], ROWS[2], ROWS[4], ROWS[0]]
    lines = ["Item_ID;note;Timestamp;SESSION_ID;event", *(f"{a};x;{t};{s};{k.upper()}" for s, a, t, k in mixed)]
    assert rows(read(csv(lines, encoding="utf-8-sig")).events) == EXPECTED


@pytest.mark.parametrize(
    "moment",
    [
        lambda ts: f"{ts}000",
        lambda ts: f"{ts}.0",
        lambda ts: f"{np.datetime64(ts, 's')}Z",
        lambda ts: f"{np.datetime64(ts, 's')}.123",
        lambda ts: f"{np.datetime64(ts + 9 * 3600, 's')}+09:00",
    ],
    ids=["milliseconds", "float", "Z", "no zone", "Seoul"],
)
def test_times_as_shops_write_them(csv, moment):
    lines = ["session,aid,ts,type", *(f"{s},{a},{moment(t)},{k}" for s, a, t, k in ROWS)]
    assert rows(read(csv(lines)).events) == EXPECTED


def test_milliseconds_order_what_happened_within_a_second(csv):
    lines = ["session,aid,ts", f"1,5,{START}900", f"1,6,{START}100", f"1,7,{START}500"]
    assert [row[1] for row in rows(read(csv(lines)).events)] == [6, 7, 5]


def test_without_types_all_are_clicks(csv):
    assert rows(read(csv(["session,aid,ts", f"1,5,{START}"])).events) == [(1, 5, START, 0)]


def test_events_that_are_there_twice_count_once_and_that_is_said(csv):
    lines = ["session,aid,ts,type", *(",".join(map(str, row)) for row in [*ROWS, *ROWS])]
    found = read(csv(lines))
    assert rows(found.events) == EXPECTED
    assert found.notes == ("5 events were there twice within a second and count once",)


def test_where_only_days_are_known_equal_events_are_kept(csv):
    found = read(csv(["session,aid,ts", *["1,5,2014-04-15"] * 3, "1,6,2014-04-16"]))
    assert len(found.events) == 4 and found.notes == ()


def test_categories(csv):
    lines = ["session,aid,ts,category_id", f"1,5,{START},30", f"1,6,{START},", f"1,7,{START},0", f"2,5,{START},31"]
    events = read(csv(lines)).events
    assert events.catalogue.tolist() == [5, 6, 7] and events.categories is not None
    assert events.categories.tolist() == [31, -1, 0]


def parquet(path: Path, **columns: object) -> Path:
    import polars as pl

    pl.DataFrame(columns).write_parquet(path)
    return path


def test_parquet(tmp_path):
    session, aid, ts, kind = zip(*ROWS, strict=True)
    number = [("clicks", "carts", "orders").index(name) for name in kind]
    moments = [np.datetime64(t, "s").astype("datetime64[us]").item() for t in ts]
    for name, times, types in (("a", ts, number), ("b", [t * 1000 for t in ts], kind), ("c", moments, kind)):
        path = parquet(tmp_path / f"{name}.parquet", aid=aid, session=session, type=types, ts=times)
        assert rows(read(path).events) == EXPECTED


def test_parquet_over_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "BLOCK", 7)
    session = np.arange(100) // 3
    path = parquet(tmp_path / "a.parquet", session=session, aid=np.arange(100) % 11, ts=START + np.arange(100))
    events = read(path).events
    assert rows(events) == [(i // 3, i % 11, START + i, 0) for i in range(100)]


def test_otto(otto):
    events = read(otto).events
    lines = [json.loads(line) for line in otto.read_text().splitlines()]
    told = [(line["session"], e["aid"], e["ts"] // 1000, e["type"]) for line in lines for e in line["events"]]
    assert len(told) == 862 and len(events.starts()) - 1 == 20 and len(events.catalogue) == 510
    assert np.bincount(events.type).tolist() == [800, 52, 10]
    kinds = ("clicks", "carts", "orders")
    assert set(rows(events)) == {(s, a, t, kinds.index(k)) for s, a, t, k in told}


def test_the_same_events_in_any_format_have_one_fingerprint(otto, csv, tmp_path):
    events = read(otto).events
    lines = ["session,aid,ts,type", *(",".join(map(str, row)) for row in rows(events))]
    columns = {"session": events.session, "aid": events.catalogue[events.aid], "ts": events.ts, "type": events.type}
    for path in (csv(lines), parquet(tmp_path / "otto.parquet", **columns)):
        assert fingerprint(read(path).events) == fingerprint(events)
    changed = csv([*lines, f"99,1,{START},clicks"])
    assert fingerprint(read(changed).events) != fingerprint(events)


def test_retailrocket_in_its_own_files(csv, tmp_path):
    at = START * 1000
    csv(
        [
            "timestamp,visitorid,event,itemid,transactionid",
            f"{at},1,view,355908,",
            f"{at + 1000},1,addtocart,355908,",
            f"{at + 2000},1,transaction,355908,4000",
            f"{at + 2000 + 3_600_000},1,view,248676,",
            f"{at},2,view,248676,",
        ]
    )
    header = "timestamp,itemid,property,value"
    csv([header, f"{at},355908,categoryid,10", f"{at},355908,790,n552.000", f"{at + 9},248676,categoryid,1"],
        "item_properties_part1.csv")  # fmt: skip
    csv([header, f"{at + 5},355908,categoryid,11", f"{at},248676,categoryid,2"], "item_properties_part2.csv")
    csv(["categoryid,parentid", "10,1"], "category_tree.csv")
    found = read(tmp_path)
    assert rows(found.events) == [
        (0, 355908, START, 0),
        (0, 355908, START + 1, 1),
        (0, 355908, START + 2, 2),
        (1, 248676, START + 3602, 0),
        (2, 248676, START, 0),
    ]
    assert dict(zip(found.events.catalogue.tolist(), found.events.categories.tolist(), strict=True)) == {
        355908: 11,
        248676: 1,
    }
    assert any("visitors are parted" in note for note in found.notes)


def test_yoochoose_in_its_own_files(csv, tmp_path):
    csv(["1,2014-04-07T10:51:09.277Z,214536502,0", "1,2014-04-07T10:54:09.868Z,214536500,S"], "yoochoose-clicks.dat")
    csv(["1,2014-04-07T10:58:00.306Z,214536500,12462,1"], "yoochoose-buys.dat")
    csv(["5,2014-04-07T10:58:00.306Z,214820225,0"], "yoochoose-test.dat")
    begin = int(np.datetime64("2014-04-07T10:51:09", "s").astype(int))
    assert rows(read(tmp_path).events) == [
        (1, 214536502, begin, 0),
        (1, 214536500, begin + 180, 0),
        (1, 214536500, begin + 411, 2),
    ]
    assert rows(read(tmp_path / "yoochoose-clicks.dat").events) == rows(read(tmp_path).events)[:2]


def test_kinds_that_say_nothing_are_left_out_and_counted(csv):
    lines = ["session,aid,ts,type", f"1,5,{START},view", f"1,5,{START + 1},remove_from_cart"]
    found = read(csv(lines))
    assert rows(found.events) == [(1, 5, START, 0)] and any(note.startswith("1 events were of") for note in found.notes)


GOOD = ["session,aid,ts,type", f"1,5,{START},clicks", f"1,6,{START},carts", f"2,5,{START},orders"]


@pytest.mark.parametrize(
    "line, told",
    [
        (f"1,secret,{START},clicks", "row 3: aid is not a whole number"),
        (f"1.5,6,{START},clicks", "row 3: session is not a whole number"),
        (f"1,{2**63},{START},clicks", "row 3: aid is not a whole number of 64 bits"),
        (f",6,{START},clicks", "row 3: session is not a whole number"),
        ("1,6,secret,clicks", "row 3: ts is neither a Unix time nor ISO 8601"),
        ("1,6,nan,clicks", "row 3: ts"),
        ("1,6,-5,clicks", "row 3: ts is no time"),
        (f"1,6,{10**18},clicks", "row 3: ts is no time"),
        (f"1,6,{START},secret", "row 3: type is none of clicks, carts and orders"),
        (f"1,6,{START}", "row 3 has 3 columns instead of 4"),
        (f'1,6,{START},"clicks', "row"),
    ],
)
def test_a_bad_row_is_named_by_file_row_and_column_and_its_value_is_not(csv, line, told):
    path = csv([*GOOD[:2], line, *GOOD[2:]])
    with pytest.raises(BadEvents, match="^events.csv, " + told) as caught:
        read(path)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_bad_row_far_into_the_file(csv, monkeypatch):
    monkeypatch.setattr(readers, "BLOCK", 64)
    lines = ["session,aid,ts", *(f"1,{n},{START}" for n in range(1000)), "1,x,5"]
    with pytest.raises(BadEvents, match="row 1002: aid"):
        read(csv(lines))


@pytest.mark.parametrize(
    "lines, told",
    [
        (["session,item,when", "1,2,3"], "no column of ts; it may be called ts, timestamp"),
        (["aid,ts", "1,2"], "no column of session"),
        (["session,aid,aid,ts", "1,2,3,4"], "the column aid is there twice"),
        (["session,aid,ts"], "holds no event"),
    ],
)
def test_a_bad_table(csv, lines, told):
    with pytest.raises(BadEvents, match=told):
        read(csv(lines))


@pytest.mark.parametrize(
    "line, told",
    [
        ("not json", "row 2 is not JSON"),
        ('{"events": []}', "row 2 is no"),
        ("[1]", "row 2 is no"),
        ('{"session": 1, "events": 5}', "row 2: events is no list"),
        ('{"session": 1, "events": [{"aid": 1, "ts": 2}]}', "row 2: an event has no aid, ts, type"),
        ('{"session": 1, "events": ["secret"]}', "row 2: an event has no"),
        (
            '{"session": 1, "events": [{"aid": "secret", "ts": 2, "type": "clicks"}]}',
            "row 2: aid is not a whole number",
        ),
        ('{"session": 1, "events": [{"aid": true, "ts": 2, "type": "clicks"}]}', "row 2: aid is not a whole number"),
        ('{"session": null, "events": [{"aid": 1, "ts": 2, "type": "clicks"}]}', "row 2: session is not"),
        ('{"session": 1, "events": [{"aid": 1, "ts": 2, "type": "secret"}]}', "row 2: type is none of"),
        ('{"session": 1, "events": [{"aid": 1, "ts": 2, "type": ["clicks"]}]}', "row 2: type is none of"),
    ],
)
def test_a_bad_line_of_json(tmp_path, line, told):
    path = tmp_path / "bad.jsonl"
    good = f'{{"session": 0, "events": [{{"aid": 1, "ts": {START}000, "type": "clicks"}}]}}'
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(BadEvents, match="^bad.jsonl, " + told) as caught:
        read(path)
    assert "secret" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.parquet").write_text("not at all")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "a.xlsx").write_text("")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "folder").mkdir()
    for name, told in (
        ("a.parquet", "no Parquet file"),
        ("a.csv", "no text in UTF-8"),
        ("a.xlsx", "none of .parquet"),
        ("empty.csv", "is empty"),
        ("missing.csv", "there is no file missing.csv"),
        ("folder", "holds no events"),
    ):
        with pytest.raises(BadEvents, match=told):
            read(tmp_path / name)


def test_null_in_parquet(tmp_path):
    path = parquet(tmp_path / "a.parquet", session=[1, 1], aid=[5, None], ts=[START, START])
    with pytest.raises(BadEvents, match=r"a\.parquet, row 2: aid is not a whole number"):
        read(path)


def test_of_more_than_fits_the_newest_are_used(csv, monkeypatch):
    monkeypatch.setattr(readers, "BLOCK", 10)
    chance = np.random.default_rng(0)
    times = chance.permutation(1000)
    lines = ["session,aid,ts", *(f"{n % 13},{n},{START + ts}" for n, ts in enumerate(times))]
    found = read(csv(lines), memory_bytes=readers.PEAK_BYTES * 100)
    assert sorted(found.events.ts.tolist()) == list(range(START + 900, START + 1000))
    assert found.notes == ("the newest 100 of 1,000 events are used: more don't fit into the memory allowed",)


def test_memory_does_not_grow_with_the_file(csv, tmp_path, monkeypatch):
    """Blocks are let go of: the peak is that of the events kept and one block, not that of the text."""
    import tracemalloc

    monkeypatch.setattr(readers, "BLOCK", 1000)
    peaks = []
    for count in (20_000, 80_000):
        path = csv(["session,aid,ts,type", *(f"{n // 8},{n % 997},{START + n},clicks" for n in range(count))])
        tracemalloc.start()
        read(path, memory_bytes=readers.PEAK_BYTES * 10_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2


def test_progress_rises_to_one(csv, otto, monkeypatch):
    monkeypatch.setattr(readers, "BLOCK", 50)
    told: list[float] = []
    readers.read(otto, lambda stage, part: told.append(part))
    assert told == sorted(told) and told[-1] == 1.0 and len(told) > 5 and 0 < told[0] < 1


def test_more_files_are_read_as_if_they_were_one(csv):
    first = csv(["session,aid,ts,type", *(",".join(map(str, row)) for row in ROWS[:2])], "shop.csv")
    second = csv(["session,aid,ts,type", *(",".join(map(str, row)) for row in ROWS[2:])], "feedback.csv")
    assert rows(readers.read(first, silent, more=[second]).events) == EXPECTED


def test_visitors_and_sessions_can_not_be_mixed(csv):
    first = csv(["session,aid,ts", f"1,5,{START}"], "shop.csv")
    second = csv(["visitorid,itemid,timestamp", f"1,5,{START}"], "visitors.csv")
    with pytest.raises(BadEvents, match="can't be read together"):
        readers.read(first, silent, more=[second])
