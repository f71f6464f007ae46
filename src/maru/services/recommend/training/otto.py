"""OTTO's JSON lines: a session a line, its events in order, times in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from maru.services.recommend.training.errors import BadEvents
from maru.services.recommend.training.tables import Block
from maru.services.recommend.training.values import Cells

FIELDS = ("aid", "ts", "type")


def blocks(file: Path, size: int, told: Callable[[int], None]) -> Iterator[Block]:
    """At least `size` events at a time, whole sessions. `told` hears how many bytes are done."""
    sessions: list[Any] = []
    events: list[dict[str, Any]] = []
    rows: list[int] = []
    done = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            done += len(line)
            if not line.strip():
                continue
            session, within = _session(file.name, number, line)
            sessions.extend([session] * len(within))
            events.extend(within)
            rows.extend([number] * len(within))
            if len(events) >= size:
                yield _block(file.name, sessions, events, rows)
                told(done)
                sessions, events, rows = [], [], []
    if events:
        yield _block(file.name, sessions, events, rows)


def _session(file: str, number: int, line: bytes) -> tuple[Any, list[dict[str, Any]]]:
    try:
        record = orjson.loads(line)
        session, events = record["session"], record["events"]
    except orjson.JSONDecodeError:
        raise BadEvents(f"{file}, row {number} is not JSON") from None
    except (KeyError, TypeError):
        raise BadEvents(f'{file}, row {number} is no {{"session": …, "events": […]}}') from None
    if not isinstance(events, list):
        raise BadEvents(f"{file}, row {number}: events is no list")
    return session, events


def _block(file: str, sessions: list[Any], events: list[dict[str, Any]], rows: list[int]) -> Block:
    try:
        aid, ts, type = ([event[name] for event in events] for name in FIELDS)
    except (KeyError, TypeError):
        place = next(place for place, event in enumerate(events) if not _whole(event))
        raise BadEvents(f"{file}, row {rows[place]}: an event has no {', '.join(FIELDS)}") from None
    return Block(
        Cells(file, "session", sessions, rows),
        Cells(file, "aid", aid, rows),
        Cells(file, "ts", ts, rows),
        Cells(file, "type", type, rows),
    )


def _whole(event: Any) -> bool:
    return isinstance(event, dict) and all(name in event for name in FIELDS)
