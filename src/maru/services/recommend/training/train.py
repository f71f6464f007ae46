"""From events to a recommender that has been measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maru.services.recommend.core.covisitation import Covisit
from maru.services.recommend.core.events import TYPES, Events, Int64s
from maru.services.recommend.core.examples import Examples, gather_examples
from maru.services.recommend.core.features import FEATURE_NAMES
from maru.services.recommend.core.index import Index, IndexOptions
from maru.services.recommend.core.rankers import Fused, Ranker, RankerOptions, train_ranker
from maru.services.recommend.core.trees import Forest
from maru.services.recommend.training import split
from maru.services.recommend.training.errors import TooFewEvents, TrainingError
from maru.services.recommend.training.evaluation import Evaluation, evaluate
from maru.services.recommend.training.gathering import Reading, fingerprint
from maru.services.recommend.training.outcomes import Figure
from maru.services.recommend.training.progress import Progress
from maru.services.recommend.training.readers import read
from maru.services.recommend.training.simulate import simulate
from maru.services.recommend.training.split import Windows

STEPS = 8
"""Of the making of an index, about."""
LEAST_VISITS = 50
LEAST_POSITIVE = 50
"""Fewer examples of what was wanted teach a ranker nothing."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What can be chosen. Equal options and equal events give an equal bundle on one machine.

    Either `events`, a file or folder, and `feedback`, one more file, or one of the two; or `simulated`, a number of
    events of a shop that does not exist. `share` of the sessions measure, and as many teach the rankers, by at most
    `teaching` visits, 30,000 when not given; at most `measuring` visits, 10,000, measure. Of a simulated shop, whose
    figures are worth nothing, they are 3,000 and 1,000. `memory_bytes` bounds what the events take, see
    `readers.read`. With `ray`, the address of a cluster or `local`, co-visitation is computed there; the bundle is
    the same.
    """

    events: Path | None = None
    feedback: Path | None = None
    simulated: int | None = None
    seed: int = 0
    share: float = split.SHARE
    teaching: int | None = None
    measuring: int | None = None
    threads: int = 1
    memory_bytes: int | None = None
    ray: str | None = None

    @property
    def visits(self) -> tuple[int, int]:
        """How many teach and how many measure, at most."""
        teaching, measuring = (30_000, 10_000) if self.simulated is None else (3_000, 1_000)
        return self.teaching or teaching, self.measuring or measuring


@dataclass(frozen=True, slots=True, eq=False)
class TrainedRecommender:
    """What a bundle is written from. `index` is of all events; what `evaluation` measured is the rankers on an index
    of the events before the measuring time. `trees` are the rankers that are shipped, by type, in LightGBM's text;
    `fused` the curves that stand in for the others. `notes` are what a person should know."""

    index: Index
    trees: Mapping[str, str]
    fused: Mapping[str, Fused]
    evaluation: Evaluation
    described: Mapping[str, Any]
    notes: tuple[str, ...]

    def write(self, folder: Path) -> Mapping[str, Any]:
        """Its files into an empty folder. Gives what its manifest is to say."""
        self.index.save(folder)
        for name in TYPES:
            if name in self.trees:
                (folder / f"{name}.txt").write_text(self.trees[name], encoding="utf-8")
            else:
                self.fused[name].save(folder / f"{name}.json")
        return self.described


def train(options: TrainingOptions, progress: Progress) -> TrainedRecommender:
    """Learn from the older sessions, measure on the newest, and index all of them.

    TrainingError when the options or the events don't allow a training.
    """
    with _covisitation(options) as covisit:
        return _Training(options, progress, covisit).run()


class _Training:
    """One training, its stages in order."""

    def __init__(self, options: TrainingOptions, progress: Progress, covisit: Covisit | None) -> None:
        self._options = options
        self._progress = progress
        self._covisit = covisit

    def run(self) -> TrainedRecommender:
        options = self._options
        reading = self._read()
        events = reading.events
        windows = Windows.cut(events, options.share)
        trees, fused = self._rankers(self._examples(events, windows))
        evaluation = self._measured(events, windows, trees, fused)
        return TrainedRecommender(
            index=self._index(events, "the served index"),
            trees={name: text for name, text in trees.items() if evaluation.shipped[name]},
            fused=fused,
            evaluation=evaluation,
            described=described(options, events, windows, evaluation),
            notes=reading.notes,
        )

    def _read(self) -> Reading:
        options = self._options
        paths = [path for path in (options.events, options.feedback) if path is not None]
        if bool(paths) == (options.simulated is not None):
            raise TrainingError("train on events, or on a simulated shop: one of the two")
        if options.simulated is not None:
            made = simulate(options.simulated, options.seed, self._progress)
            return Reading(made, ("the shop is simulated: nobody has clicked, carted or ordered any of this",))
        return read(paths[0], self._progress, options.memory_bytes, paths[1:])

    def _index(self, events: Events, what: str) -> Index:
        options = IndexOptions(self._options.threads, self._options.seed)
        steps: list[str] = []

        def told(step: str, part: float) -> None:
            if step not in steps:
                steps.append(step)
            self._progress(what, min(1.0, (len(steps) - 1 + part) / STEPS))

        index = Index.build(events, options, told, self._covisit)
        self._progress(what, 1.0)
        return index

    def _examples(self, events: Events, windows: Windows) -> Examples:
        """What the rankers learn from: the second stretch of time, seen through an index of the first."""
        options = self._options
        visits = split.teaching(events, windows, most=options.visits[0], seed=options.seed)
        if len(visits) < LEAST_VISITS:
            raise TooFewEvents(f"{len(visits)} visits can teach the rankers; at least {LEAST_VISITS} are needed")
        return gather_examples(
            self._index(events.before(windows.ranking), "the teaching index"),
            visits,
            seed=options.seed,
            threads=options.threads,
            progress=lambda _, part: self._progress("examples", part),
        )

    def _rankers(self, examples: Examples) -> tuple[dict[str, str], dict[str, Fused]]:
        """Trees, for each type of which there are examples enough, and the curve that stands in for them."""
        taught = [type for type in range(len(TYPES)) if examples.labels[:, type].sum() >= LEAST_POSITIVE]
        # One thread a ranker: more of them are slower where other things run, too.
        chosen = RankerOptions(seed=self._options.seed)
        self._progress("rankers", 0.0)
        trees = {}
        with ThreadPoolExecutor(self._options.threads) as pool:
            learned = pool.map(lambda type: train_ranker(examples, type, chosen), taught)
            for done, (type, text) in enumerate(zip(taught, learned, strict=True), 1):
                trees[TYPES[type]] = text
                self._progress("rankers", done / len(taught))
        self._progress("rankers", 1.0)
        return trees, {name: Fused.fit(examples, type) for type, name in enumerate(TYPES)}

    def _measured(
        self, events: Events, windows: Windows, trees: Mapping[str, str], fused: Mapping[str, Fused]
    ) -> Evaluation:
        """On the third stretch of time, seen through an index of the first two."""
        options = self._options
        visits = split.measuring(events, windows, most=options.visits[1], seed=options.seed)
        if len(visits) < LEAST_VISITS or not any(len(wanted) for visit in visits for wanted in visit.later.values()):
            raise TooFewEvents(f"{len(visits)} visits can be measured on; at least {LEAST_VISITS} are needed")
        known = events.before(windows.test)
        rankers = {name: Ranker(Forest.parse(text)) for name, text in trees.items()}
        index = self._index(known, "the measured index")
        return evaluate(index, known, visits, rankers, fused, threads=options.threads, progress=self._progress)


@contextmanager
def _covisitation(options: TrainingOptions) -> Iterator[Covisit | None]:
    """Where co-visitation is computed; None for in this process."""
    if options.ray is None:
        yield None
        return
    from maru.services.recommend.training.ray_covisitation import on_ray

    with on_ray(None if options.ray == "local" else options.ray) as covisit:
        yield covisit


def described(options: TrainingOptions, events: Events, windows: Windows, evaluation: Evaluation) -> dict[str, Any]:
    """What the manifest says of a training: what with, on what, and what came of it."""
    teaching, measuring = options.visits
    chosen = asdict(options) | {"teaching": teaching, "measuring": measuring}
    chosen |= {name: path.name for name, path in chosen.items() if isinstance(path, Path)}
    begins = events.ts[events.starts()[:-1]]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": {name: value for name, value in chosen.items() if name not in ("threads", "memory_bytes", "ray")},
        "data": {
            "sha256": fingerprint(events),
            "events": len(events),
            "sessions": len(begins),
            "items": len(events.catalogue),
            "types": {name: int((events.type == type).sum()) for type, name in enumerate(TYPES)},
            "from": _moment(int(events.ts.min())),
            "to": _moment(int(events.ts.max())),
        },
        "split": {
            "teaching": {"from": _moment(windows.ranking), "sessions": _between(begins, windows.ranking, windows.test)},
            "measuring": {"from": _moment(windows.test), "sessions": _between(begins, windows.test, windows.end)},
        },
        "features": list(FEATURE_NAMES),
        "rankers": {name: "ranker" if evaluation.shipped[name] else "fused" for name in TYPES},
        "gates": {name: gate.as_json() for name, gate in evaluation.gates.items()},
        "visits": {"measured": evaluation.visits, "with": dict(evaluation.ways["served"].counts)},
        "metrics": {way: _json(figures) for way, figures in evaluation.figures().items()},
        "ahead": {way: _json(figures) for way, figures in evaluation.ahead().items()},
        "calibration": [dict(tenth) for tenth in evaluation.calibration],
    }


def _json(figures: Mapping[str, Figure]) -> dict[str, dict[str, float]]:
    return {name: figure.as_json() for name, figure in figures.items()}


def _between(begins: Int64s, first: int, end: int) -> int:
    return int(((begins >= first) & (begins < end)).sum())


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
