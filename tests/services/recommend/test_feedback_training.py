"""What comes in as feedback is what the next training reads."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from maru.services.recommend.training.progress import silent
from maru.services.recommend.training.readers import read
from maru.storage.database import connect, create
from maru.storage.feedback import FeedbackEvent, FeedbackStore


def test_stored_events_are_read_as_they_were(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/maru.db")
    create(engine)
    store = FeedbackStore(engine)
    types = ("clicks", "carts", "orders")
    sent = [
        FeedbackEvent(session % 5, 1000 + session, 1_659_304_800 + session, types[session % 3]) for session in range(30)
    ]
    store.add(sent, datetime.now(UTC))
    store.write_csv(tmp_path / "feedback.csv")
    events = read(tmp_path / "feedback.csv", silent).events
    rows = zip(events.session, events.catalogue[events.aid], events.ts, events.type, strict=True)
    expected = {(event.session, event.aid, event.ts, types.index(event.type)) for event in sent}
    assert {tuple(int(value) for value in row) for row in rows} == expected
    assert (np.diff(events.session) >= 0).all()
