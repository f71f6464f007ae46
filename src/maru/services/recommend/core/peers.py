"""Sessions like the one at hand: those that share its last items."""

from __future__ import annotations

import numpy as np

from maru.services.recommend.core.compiling import compiled
from maru.services.recommend.core.events import Int32s, Int64s
from maru.services.recommend.core.selection import strongest
from maru.services.recommend.core.shop import BARRED, NEIGHBOURS, Peers, Tally

COMPARED = 10
"""How many of the session's last items others are compared by."""

# As in `candidates`: not Python's own numbers.
_NOTHING, _ALIKE = np.array([0, NEIGHBOURS], np.int64)


@compiled
def compare(item_starts: Int64s, item_sessions: Int32s, peers: Peers, recent: Int32s, compared: int) -> int:
    """Add up how much each session shares of this one's last items, the later the more; gives how many share any."""
    met = _NOTHING
    for i in range(compared):
        share = np.float32((compared - i) / compared)
        for o in range(item_starts[recent[i]], item_starts[recent[i] + 1]):
            session = item_sessions[o]
            if peers.likeness[session] == 0.0:
                peers.met[met] = session
                met += 1
            peers.likeness[session] += share
    return int(met)


@compiled
def choose_peers(
    session_starts: Int64s, session_items: Int32s, tally: Tally, peers: Peers, recent: Int32s, compared: int, met: int
) -> int:
    """The sessions most like this one: the most likeness, and less of it when the last items are not among what is
    shared."""
    found = strongest(peers.likeness, peers.met, met, _ALIKE, tally.top)
    for i in range(found):
        session = tally.top[i]
        match = compared - 1
        for q in range(session_starts[session], session_starts[session + 1]):
            if tally.slot[session_items[q]] == BARRED:
                for j in range(match):
                    if recent[j] == session_items[q]:
                        match = j
                        break
        peers.session[i] = session
        peers.match[i] = match
        peers.weight[i] = peers.likeness[session] * np.float32(1.0 - match / COMPARED)
    for i in range(found, peers.session.size):
        peers.session[i] = -1
    for i in range(met):
        peers.likeness[peers.met[i]] = 0.0
    return found
