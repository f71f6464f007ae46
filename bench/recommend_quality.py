"""What the recommender is worth on recorded sessions: new items only, split by time, beside simple ways.

    python -m bench.recommend_quality FILE... [--name recommend_quality]

A file is whatever `maru train recommend` reads. Nothing of it is kept but figures.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.page import machine, table, where, write
from maru.services.recommend.core.compiling import keep_compiled_in

METRICS = ("recall@20_clicks", "recall@20_carts", "recall@20_orders", "weighted", "mrr@20")
RIVALS = ("fused", "V-SKNN", "co-visitation", "popularity")
LEAST_POSITIVE = 20
"""A tenth with fewer positives says nothing of the calibration."""


def measured(path: Path, seed: int) -> dict[str, Any]:
    """All figures of one training."""
    from maru.services.recommend.training.progress import silent
    from maru.services.recommend.training.train import TrainingOptions, train

    began, cpu = time.monotonic(), time.process_time()
    trained = train(TrainingOptions(events=path, seed=seed, threads=2), silent)
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    ways = trained.evaluation.ways
    return {
        "file": path.name,
        "seconds": took,
        "cpu_seconds": cpu,
        **{
            name: trained.described[name]
            for name in ("data", "split", "visits", "rankers", "gates", "metrics", "ahead")
        },
        "ratios": {
            way: {name: figure.as_json() for name, figure in ways["served"].over(ways[way]).items()} for way in RIVALS
        },
        "calibration": trained.described["calibration"],
        "notes": list(trained.notes),
    }


def figure(found: Mapping[str, float] | None) -> str:
    return f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]" if found else "–"


def page_of(result: Mapping[str, Any]) -> str:
    """One file's figures as tables."""
    data, parts = result["data"], []
    parts.append(
        f"## {result['file']}\n\n{data['events']:,} events, {data['sessions']:,} sessions, {data['items']:,} items; "
        f"{result['visits']['measured']:,} visits measured, in so many of them something new was wanted: "
        f"{result['visits']['with']}. Scores come from {result['rankers']}. Trained and measured in "
        f"{result['seconds']:.0f} s ({result['cpu_seconds']:.0f} CPU-s).\n"
    )
    rows = [[way, *(figure(found.get(name)) for name in METRICS)] for way, found in result["metrics"].items()]
    parts.append(table(("", *METRICS), rows) + "\n")
    rows = [
        [f"served / {way}", *(figure(found.get(name)) for name in METRICS)] for way, found in result["ratios"].items()
    ]
    rows += [[f"served - {way}", *(figure(result["ahead"][way].get(name)) for name in METRICS)] for way in RIVALS]
    parts.append(table(("", *METRICS), rows) + "\n")
    rows = [
        [f"{number}", f"{tenth['predicted']:.5f}", f"{tenth['actual']:.5f}", f"{tenth['positive']:,}", off(tenth)]
        for number, tenth in enumerate(result["calibration"], 1)
    ]
    parts.append("Clicks, by tenths of what is served:\n")
    parts.append(table(("tenth", "predicted", "actual", "positive", "predicted / actual"), rows) + "\n")
    return "\n".join(parts)


def off(tenth: Mapping[str, float]) -> str:
    if tenth["positive"] < LEAST_POSITIVE:
        return f"(fewer than {LEAST_POSITIVE})"
    return f"{tenth['predicted'] / tenth['actual']:.2f} ± {1.96 / tenth['positive'] ** 0.5:.2f}"


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="recommend_quality", help="of the files in bench/results")
    given = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory() as cache:
        keep_compiled_in(Path(cache))
        results = [measured(path, given.seed) for path in given.files]
    page = [
        f"# Recommendations, {where(about)}\n",
        "The newest 15% of the sessions, each cut at a random event; new items only; 95% intervals by resampling the "
        "visits. Served: the one list of the API. Rankers: a list for each type. Ratios and differences are taken "
        "visit by visit.\n",
        *map(page_of, results),
    ]
    write(given.name, {"machine": about, "seed": given.seed, "results": results}, "\n".join(page))


if __name__ == "__main__":
    main()
