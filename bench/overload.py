"""More than Maru can do: open loop at 1, 3, 10 and 25 times its measured capacity (R1).

    python -m bench.overload [--quick] [--seconds 60]

Two targets. `slow` is R1's shape: 50 ms a request, two at a time, ten waiting, on Maru's engine and HTTP
kit. `embedding` is the embedding service as it ships, asked for lists of 32 mixed texts. Its work is CPU
work on the cores that the refusals and the load generator need too: what those cost is goodput lost, and
is counted so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.contenders import Contender
from bench.contenders.embedding import maru as embedding
from bench.contenders.engine import maru as engine
from bench.embedding_load import VectorCheck, Workload, requests
from bench.engine import Windows
from bench.load import Check, Load, Plan, Requests, warmed
from bench.outcome import Outcome
from bench.page import command_line, goals_table, machine, table, where, write
from bench.procs import Server
from bench.rounds import MIB

FACTORS = (1, 3, 10, 25)
GOODPUT = {3: 0.95, 10: 0.95, 25: 0.90}
REFUSED_P99_MS = 50.0
GROWTH_MIB = 32.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is overloaded. `clients` in a closed loop find its capacity without being refused."""

    name: str
    contender: Contender
    clients: int
    make: Callable[[int, str], Iterator[bytes]]
    check: Callable[[], Check]
    tail_s: float

    def requests(self, port: int, stream: str) -> Requests:
        return Requests(self.make(port, stream))


def slow() -> Target:
    """R1: two slots of 50 ms, ten places."""
    contender = dataclasses.replace(engine("echo"), name="maru-slow", env={"MODEL": "slow"})
    windows = Windows()
    return Target("slow", contender, 8, lambda port, _: windows.requests(contender, port), lambda: windows.check, 5.0)


def service() -> Target:
    """The embedding service."""
    contender = embedding("int8")
    lists = Workload("overload", "mixed", 4, 32)

    def make(port: int, stream: str) -> Iterator[bytes]:
        return requests(contender, port, lists, f"overload/{stream}")

    return Target("embedding", contender, 8, make, lambda: VectorCheck(lists.size), 15.0)


def overload(target: Target, seconds: float) -> dict[str, Any]:
    """Capacity, then each factor in turn on the same server."""
    with target.contender.server() as server:
        address = ("127.0.0.1", server.port)
        warm, measured = (target.requests(server.port, stream) for stream in ("warm", "capacity"))
        plan = Plan(seconds=max(4.0, seconds / 3), clients=target.clients)
        base = warmed(address, warm, measured, plan, 3.0, target.check(), server.pids)
        capacity = base.ok_per_s
        print(f"  {target.name}: capacity {capacity:.1f}/s, p95 {base.latency.p95:.0f} ms", flush=True)
        steps = [_step(target, server, factor, capacity, base, seconds) for factor in FACTORS]
    return {
        "target": target.name,
        "settings": target.contender.settings,
        "capacity_per_s": capacity,
        "unloaded": base.to_json(),
        "steps": steps,
    }


def _step(
    target: Target, server: Server, factor: int, capacity: float, base: Outcome, seconds: float
) -> dict[str, Any]:
    plan = Plan(
        seconds=seconds, rate=factor * capacity, poisson=True, seed=factor, lead_s=1.0, drain_s=40.0,
        tail_rate=0.5 * capacity, tail_s=target.tail_s, timeout_s=60.0, max_connections=2000,
    )  # fmt: skip
    measured = target.requests(server.port, str(factor))
    measured.prepare(int(1.1 * factor * capacity * (seconds + 1) + capacity * target.tail_s))
    outcome = Load(("127.0.0.1", server.port), measured, plan, target.check(), server.pids).run()
    refusals = sum(count for status, count in outcome.statuses.items() if status in ("429", "503"))
    step = {
        "factor": factor,
        "offered_per_s": factor * capacity,
        "goodput": outcome.ok_per_s / capacity,
        "refusals": refusals,
        "retry_after_share": outcome.refused_with_retry_after / refusals if refusals else 1.0,
        "growth_mib": (outcome.rss_max - outcome.rss_first) / MIB,
        "recovered_s": _recovered_s(outcome, 3 * base.latency.p95),
        "other_statuses": {s: n for s, n in outcome.statuses.items() if s not in ("200", "429", "503")},
        **outcome.to_json(),
    }
    print(
        f"  {target.name} x{factor}: goodput {step['goodput']:.3f} of capacity, "
        f"refused p99 {outcome.refused.p99:.1f} ms, Retry-After {step['retry_after_share']:.3f}, "
        f"RSS +{step['growth_mib']:.0f} MiB, {outcome.errors}",
        flush=True,
    )
    return step


def _recovered_s(outcome: Outcome, limit_ms: float) -> float:
    """Seconds after the overload from which on every request was answered, and within `limit_ms`."""
    bad = [since for since, latency, right in outcome.tail if not right or latency > limit_ms]
    return max(bad, default=0.0)


HEAD = (
    "x capacity", "offered/s", "goodput, of capacity", "answered p50 / p99 ms", "refused p99 ms",
    "with Retry-After", "RSS MiB (growth)", "recovered after s", "errors", "sent late p99 ms",
)  # fmt: skip


def page_of(result: dict[str, Any]) -> str:
    """One target's table."""
    rows = []
    for step in result["steps"]:
        ok, refused = step["latency"], step["refused"]
        errors = {**step["errors"], **step["other_statuses"]}
        rows.append(
            [
                str(step["factor"]),
                f"{step['offered_per_s']:.0f}",
                f"{step['goodput']:.3f}",
                f"{ok['p50']:.0f} / {ok['p99']:.0f}",
                f"{refused['p99']:.1f}" if step["refusals"] else "none",
                f"{step['retry_after_share']:.1%}" if step["refusals"] else "",
                f"{step['rss_max'] / MIB:.0f} ({step['growth_mib']:+.0f})",
                f"{step['recovered_s']:.1f}",
                str(errors or "none"),
                f"{step['late_p99_ms']:.1f}",
            ]
        )
    return f"### {result['target']}: capacity {result['capacity_per_s']:.1f} requests/s\n\n{table(HEAD, rows)}\n"


def goals_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Issue 2's goals for one target."""
    goals = []
    for step in result["steps"]:
        factor = step["factor"]
        if factor == 1:
            continue
        figures: list[tuple[str, float, str, bool]] = [
            ("goodput", step["goodput"], f">= {GOODPUT[factor]}", step["goodput"] >= GOODPUT[factor]),
            ("refused p99, ms", step["refused"]["p99"], "<= 50", step["refused"]["p99"] <= REFUSED_P99_MS),
            ("with Retry-After", step["retry_after_share"], "1", step["retry_after_share"] == 1.0),
            ("RSS growth, MiB", step["growth_mib"], "<= 32", step["growth_mib"] <= GROWTH_MIB),
        ]
        for what, value, goal, met in figures:
            goals.append({"what": f"{result['target']} x{factor}: {what}", "value": value, "goal": goal, "met": met})
    return goals


def main() -> None:
    """The command line above."""
    parser = command_line(__doc__, "overload", "6 s a step: to see that it works")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--only", choices=["slow", "embedding"])
    given = parser.parse_args()
    seconds = given.seconds or (6.0 if given.quick else 60.0)
    about = machine()
    targets = [target for target in (slow(), service()) if given.only in (None, target.name)]
    results = [overload(target, seconds) for target in targets]
    goals = [goal for result in results for goal in goals_of(result)]
    page = [
        f"# Overload, {where(about)}\n",
        f"Poisson arrivals, {seconds:g} s a step, latency from the intended time.\n",
        goals_table(goals, "", ".3g") + "\n",
        *(page_of(result) for result in results),
    ]
    write(
        given.name,
        {"machine": about, "seconds": seconds, "goals": goals, "results": results},
        "\n".join(page),
    )


if __name__ == "__main__":
    main()
