"""How training grows with the shop: time and memory at 1, 4 and 16 times, each in a process of its own.

    python -m bench.recommend_scale [--quick]

Co-visitation is also measured alone, and beside what it is usually made with: a self-join of the events by session.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.page import command_line, machine, table, where, write
from bench.rounds import MIB

SIZES = (250_000, 1_000_000, 4_000_000)
KEEP = 50
DAY_S = 86_400
JOINED = 1_000_000
"""A self-join of more events takes more memory than the machine that this runs on may have."""


class Peak:
    """CPU, time and the highest memory of what runs within it, the memory above what there was before."""

    def __enter__(self) -> Peak:
        Path("/proc/self/clear_refs").write_text("5")
        self.before = memory("VmRSS")
        self._wall, self._cpu = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu = time.monotonic() - self._wall, time.process_time() - self._cpu
        self.peak = memory("VmHWM")

    def figures(self) -> dict[str, float]:
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu,
            "mib": self.peak / MIB,
            "mib_above": (self.peak - self.before) / MIB,
        }


def memory(name: str) -> int:
    """Bytes, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def whole(events: int) -> dict[str, Any]:
    """A whole training: three indexes, the rankers, the measuring."""
    from maru.services.recommend.training.progress import silent
    from maru.services.recommend.training.train import TrainingOptions, train

    stages: dict[str, float] = {}
    began: dict[str, float] = {}

    def told(stage: str, part: float) -> None:
        now = time.monotonic()
        stages[stage] = now - began.setdefault(stage, now)

    train(TrainingOptions(simulated=12_000, teaching=500, measuring=100), silent)  # what is compiled is compiled
    with Peak() as peak:
        trained = train(TrainingOptions(simulated=events, teaching=10_000, measuring=2_000), told)
    return {
        **peak.figures(),
        "items": trained.index.total_items,
        "bundle_mib": trained.index.memory_bytes / MIB,
        "stages": {stage: round(seconds, 2) for stage, seconds in stages.items()},
        "events": trained.described["data"]["events"],
    }


def index(events: int) -> dict[str, Any]:
    """One index: what grows with the shop. A training makes three, of 70%, 85% and all of the sessions."""
    from maru.services.recommend.core.index import Index, IndexOptions
    from maru.services.recommend.training.simulate import simulate

    stages: dict[str, float] = {}
    began: dict[str, float] = {}

    def told(stage: str, part: float) -> None:
        now = time.process_time()
        stages[stage] = now - began.setdefault(stage, now)

    Index.build(simulate(12_000))
    log = simulate(events)
    with Peak() as peak:
        made = Index.build(log, IndexOptions(), told)
    return {
        **peak.figures(),
        "events": len(log),
        "items": made.total_items,
        "bundle_mib": made.memory_bytes / MIB,
        "stages": {stage: round(seconds, 2) for stage, seconds in stages.items()},
    }


def covisitation(events: int) -> dict[str, Any]:
    """One kind of co-visitation in one thread."""
    from maru.services.recommend.core.covisitation import VIEWED, Occurrences, in_threads
    from maru.services.recommend.training.simulate import simulate

    in_threads(1)(Occurrences.of(simulate(12_000)), VIEWED, KEEP)
    log = simulate(events)
    occurrences = Occurrences.of(log)
    with Peak() as peak:
        ids, _ = in_threads(1)(occurrences, VIEWED, KEEP)
    return {**peak.figures(), "events": len(log), "pairs": int((ids >= 0).sum())}


def self_join(events: int) -> dict[str, Any]:
    """The same pairs by a self-join in polars: within a session and a day, the best of each item by weight."""
    import polars as pl

    from maru.services.recommend.training.simulate import simulate

    log = simulate(events)
    first, span = int(log.ts.min()), int(log.ts.max() - log.ts.min())
    frame = pl.DataFrame({"session": log.session, "aid": log.aid, "ts": log.ts})
    del log
    with Peak() as peak:
        found = (
            frame.join(frame, on="session")
            .filter((pl.col("aid") != pl.col("aid_right")) & ((pl.col("ts") - pl.col("ts_right")).abs() <= DAY_S))
            .with_columns(weight=1 + 3 * (pl.col("ts") - first) / span)
            .group_by("aid", "aid_right")
            .agg(pl.col("weight").sum())
            .sort("weight", descending=True)
            .group_by("aid", maintain_order=True)
            .head(KEEP)
        )
    return {**peak.figures(), "pairs": len(found)}


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "training": whole,
    "index": index,
    "co-visitation": covisitation,
    "self-join": self_join,
}


def alone(part: str, events: int, cache: str) -> dict[str, Any]:
    """One part in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.recommend_scale", "--part", part, "--events", str(events), "--cache", cache],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        return {"failed": done.returncode}
    result: dict[str, Any] = json.loads(done.stdout)
    print(
        f"  {part:<14} {events:>10,} events  {result['cpu_seconds']:8.1f} CPU-s  {result['mib']:8.0f} MiB", flush=True
    )
    return result


def page_of(results: dict[str, dict[int, dict[str, Any]]]) -> str:
    rows = []
    for part, found in results.items():
        for size, r in found.items():
            if "failed" in r:
                rows.append([f"{part}, {size:,}", f"exit {r['failed']}", *["–"] * 5])
                continue
            before = next(iter(found.values()))
            grown = "–" if "failed" in before else f"{r['cpu_seconds'] / before['cpu_seconds']:.1f}"
            rows.append(
                [
                    f"{part}, {size:,}",
                    f"{r['seconds']:.1f}",
                    f"{r['cpu_seconds']:.1f}",
                    grown,
                    f"{r['mib']:,.0f}",
                    f"{r['mib_above']:,.0f}",
                    f"{r.get('bundle_mib', 0):,.0f}" if "bundle_mib" in r else "–",
                ]
            )
    head = ("", "seconds", "CPU-s", "CPU, times the first", "peak MiB", "of that above what was there", "bundle MiB")
    stages = [
        f"- {part}, {size:,}: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in r["stages"].items())
        for part, found in results.items()
        for size, r in found.items()
        if "stages" in r
    ]
    return (
        table(head, rows)
        + "\n\nBy stage, in seconds for a training and CPU-s for an index:\n\n"
        + "\n".join(stages)
        + "\n"
    )


def main() -> None:
    """The command line above."""
    parser = command_line(__doc__, "recommend_scale", "small shops: to see that it works")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--events", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        from maru.services.recommend.core.compiling import keep_compiled_in

        keep_compiled_in(given.cache)
        print(json.dumps(PARTS[given.part](given.events)))
        return
    about = machine()
    sizes = tuple(size // 10 for size in SIZES) if given.quick else SIZES
    with tempfile.TemporaryDirectory() as cache:
        alone("training", 12_000, cache)
        results = {
            part: {size: alone(part, size, cache) for size in sizes if part != "self-join" or size <= JOINED}
            for part in PARTS
        }
    page = f"# Training at size, {where(about)}\n\nA simulated shop, one thread.\n\n{page_of(results)}"
    write(given.name, {"machine": about, "results": results}, page)


if __name__ == "__main__":
    main()
