"""The servers of one recommender: a bundle that was trained on a large simulated shop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.contenders import BENCH, CACHE, HERE, Contender

HOME = CACHE / "recommend"
COMPILED = HOME / "cache" / "numba"
ITEMS = 150_000
SESSIONS = "sessions.json"
KEPT = 2_000
"""Sessions of the shop that are asked about."""


def trained(items: int = ITEMS) -> list[dict[str, Any]]:
    """The sessions to ask about, of the shop that the live bundle in HOME was trained on; trained now if need be,
    which takes some minutes for 150,000 items."""
    file = HOME / f"{items}-{SESSIONS}"
    if not file.exists():
        _train(items, file)
    sessions: list[dict[str, Any]] = json.loads(file.read_text())
    return sessions


def _train(items: int, file: Path) -> None:
    import numpy as np

    from maru.services.recommend.bundles import Bundles, bundles_folder
    from maru.services.recommend.core.compiling import keep_compiled_in

    keep_compiled_in(COMPILED)
    from maru.services.recommend.core.events import TYPES
    from maru.services.recommend.training.simulate import EVENTS_PER_ITEM, simulate
    from maru.services.recommend.training.train import TrainingOptions, train

    count = items * EVENTS_PER_ITEM
    events = simulate(count)
    starts = events.starts()
    chosen = np.random.default_rng(0).choice(len(starts) - 1, KEPT, replace=False)
    sessions = []
    for place in chosen.tolist():
        rows = range(starts[place], starts[place + 1])
        seen = [
            {"aid": int(events.catalogue[events.aid[row]]), "ts": int(events.ts[row]), "type": TYPES[events.type[row]]}
            for row in rows
        ]
        sessions.append({"session_id": place, "events": seen[: max(1, len(seen) // 2)]})
    del events
    bundles = Bundles(bundles_folder(HOME))
    bundle = bundles.add(train(TrainingOptions(simulated=count, threads=2), _tell).write)
    bundles.promote(bundle.version).recommender().warm()
    file.write_text(json.dumps(sessions))


def _tell(stage: str, part: float) -> None:
    print(f"\r  training: {stage} {part:.0%}   ", end="", flush=True)


def maru() -> Contender:
    """`maru serve recommend` as it ships, but for the result cache, which repeated sessions would be answered from."""
    return Contender(
        name="maru-recommend",
        title="Maru",
        venv="maru",
        command=lambda bin, port: [str(bin / "maru"), "serve", "recommend", "--port", str(port)],
        path="/recommend",
        body=lambda data: data,
        settings="one process, as it ships, with its access log, without the result cache",
        env={"MARU_HOME": str(HOME), "RESULT_CACHE_MB": "0"},
        ready="/readyz",
        packages=("maru", "fastapi", "numba"),
    )


def flask(workers: int) -> Contender:
    """The document's own shape."""
    from maru.services.recommend.bundles import bundles_folder

    return Contender(
        name=f"flask-{workers}",
        title=f"Flask, gunicorn -w {workers}",
        venv="recommend",
        command=lambda bin, port: [
            str(bin / "gunicorn"), "-w", str(workers), "-b", f"127.0.0.1:{port}", "--chdir", str(HERE),
            "recommend_flask:app",
        ],
        path="/recommend",
        body=lambda data: data,
        settings=f"{workers} processes, sync workers, no access log; the same bundle, called for each request",
        env={
            "BUNDLES": str(bundles_folder(HOME)), "COMPILED": str(COMPILED), "PYTHONPATH": str(BENCH.parent / "src"),
        },
        packages=("flask", "gunicorn", "numba"),
    )  # fmt: skip


def contenders() -> tuple[Contender, ...]:
    return maru(), flask(4), flask(1)
