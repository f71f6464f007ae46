"""What a process and all its children have cost."""

from __future__ import annotations

import os
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(root: int) -> float | None:
    """CPU seconds, user and system, of a process, its live descendants, and those that they have waited for.

    To a hundredth of a second; takes some milliseconds. None where the system doesn't tell.
    """
    found: dict[int, tuple[int, float]] = {}
    try:
        entries = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return None
    for pid in entries:
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:  # it has ended
            continue
        found[pid] = int(fields[1]), sum(map(int, fields[11:15])) * _TICK_S
    if root not in found:
        return None
    tree, more = {root}, {root}
    while more:
        more = {pid for pid, (parent, _) in found.items() if parent in more}
        tree |= more
    return sum(found[pid][1] for pid in tree)
