"""What people did, kept until a model is trained from it."""

from __future__ import annotations

import csv
import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, Engine, Integer, LargeBinary, String, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from maru.storage.database import Moment, metadata

_Number = BigInteger().with_variant(Integer, "sqlite")

_feedback = Table(
    "feedback_events",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=True),
    Column("key", LargeBinary(16), nullable=False, unique=True),
    Column("session", _Number, nullable=False),
    Column("aid", _Number, nullable=False),
    Column("ts", _Number, nullable=False),
    Column("type", String(16), nullable=False),
    Column("variant", String(16)),
    Column("received", Moment, nullable=False),
    sqlite_autoincrement=True,
)

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_CONTENT = struct.Struct("<qqq")


@dataclass(frozen=True, slots=True)
class FeedbackEvent:
    """One thing that a session did: `type` with item `aid`, `ts` seconds after 1970.

    `id` is the sender's own name of it. Without one it is known by its content: the same session, item, second
    and type are the same event. `variant` is which bundle the session had its recommendations from.
    """

    session: int
    aid: int
    ts: int
    type: str
    id: str | None = None
    variant: str | None = None

    def key(self) -> bytes:
        """The same for the same event, whoever sends it and however often."""
        if self.id is not None:
            known = b"i" + self.id.encode()
        else:
            known = b"c" + _CONTENT.pack(self.session, self.aid, self.ts) + self.type.encode()
        return hashlib.blake2b(known, digest_size=16).digest()


class FeedbackStore:
    """The table of events, shared by all processes of one database.

    It holds the latest `most`: when there are more, the oldest are forgotten. All methods block for milliseconds
    and belong in a worker thread.
    """

    def __init__(self, engine: Engine, most: int = 5_000_000) -> None:
        self._engine = engine
        self._most = most

    def add(self, events: Sequence[FeedbackEvent], received: datetime) -> list[FeedbackEvent]:
        """Store those that are new, all or none, and return them. They are on disk then."""
        if not events:
            return []
        known: dict[bytes, FeedbackEvent] = {}
        for event in events:
            known.setdefault(event.key(), event)
        # In one order everywhere, so that two processes that add the same events don't wait for each other.
        rows = [_row(key, known[key], received) for key in sorted(known)]
        t = _feedback
        insert = _INSERT[self._engine.dialect.name](t).on_conflict_do_nothing(index_elements=[t.c.key])
        with self._engine.begin() as connection:
            added = connection.execute(insert.returning(t.c.key), rows).scalars().all()
            newest = select(func.max(t.c.seq)).scalar_subquery()
            connection.execute(t.delete().where(t.c.seq <= newest - self._most))
        return [known[bytes(key)] for key in added]

    def count(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(_feedback)).scalar_one())

    def pages(self, size: int = 50_000) -> Iterator[list[FeedbackEvent]]:
        """All events, those stored first before the others, so many at a time."""
        t = _feedback
        after = 0
        while True:
            wanted = select(t.c.seq, t.c.session, t.c.aid, t.c.ts, t.c.type, t.c.variant)
            with self._engine.connect() as connection:
                rows = connection.execute(wanted.where(t.c.seq > after).order_by(t.c.seq).limit(size)).all()
            if not rows:
                return
            after = rows[-1].seq
            yield [FeedbackEvent(row.session, row.aid, row.ts, row.type, variant=row.variant) for row in rows]

    def write_csv(self, path: Path) -> int:
        """All events as a table that `maru train recommend` reads: session, aid, ts, type. How many they were."""
        count = 0
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("session", "aid", "ts", "type"))
            for page in self.pages():
                table.writerows((event.session, event.aid, event.ts, event.type) for event in page)
                count += len(page)
        return count


def _row(key: bytes, event: FeedbackEvent, received: datetime) -> dict[str, object]:
    return {
        "key": key,
        "session": event.session,
        "aid": event.aid,
        "ts": event.ts,
        "type": event.type,
        "variant": event.variant,
        "received": received,
    }
