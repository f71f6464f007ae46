"""What a training found, for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from maru.services.recommend.core.events import TYPES
from maru.services.recommend.training.evaluation import FUSED, RANKERS, SERVED, Evaluation
from maru.services.recommend.training.outcomes import TOP, Figure

NONE = "–"
COLUMNS = {
    **{f"recall@{TOP}_{name}": f"{name} R@{TOP}" for name in TYPES},
    "weighted": "weighted",
    f"mrr@{TOP}": f"MRR@{TOP}",
}
LEGEND = (
    f"On the newest sessions, each cut at a random event, new items only. R@{TOP}: of what was wanted later, the share "
    f"in the first {TOP}; MRR@{TOP}: of the next click; weighted: 0.1 clicks, 0.3 carts, 0.6 orders, of those there "
    "are; ±: half of the 95% interval. Served is the one list of the API; of the rankers each type has its own list. "
    "A ranker is shipped where its list beats the fused candidates; that choice is made on the same sessions."
)


def table(evaluation: Evaluation) -> Table:
    """For a terminal."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("")
    for label in COLUMNS.values():
        shown.add_column(label, justify="right")
    for way, figures in evaluation.figures().items():
        cells = [_cell(figures.get(name)) for name in COLUMNS]
        shown.add_row(way, *cells, style="bold" if way == SERVED else "")
    return shown


def verdict(evaluation: Evaluation) -> list[str]:
    """The sentences that count."""
    ahead = evaluation.ahead()
    counts = evaluation.ways[SERVED].counts
    wanted = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    lines = [f"{evaluation.visits:,} visits were measured; in so many of them something new was wanted: {wanted}."]
    for way in (FUSED, "V-SKNN"):
        lines.append(f"Served beside {way}: {_differences(ahead[way])}.")
    for name in TYPES:
        gate = evaluation.gates.get(name)
        if evaluation.shipped[name] and gate is not None:
            lines.append(f"{name}: the ranker serves; it hits {gate.value:+.4f} beside the fused candidates.")
        elif gate is None or evaluation.ways[RANKERS].counts[name] == 0:
            lines.append(f"{name}: the fused candidates serve, as there is too little to learn from or measure with.")
        else:
            lines.append(f"{name}: the fused candidates serve, as no ranker beat them ({gate.value:+.4f}).")
    return lines


def _differences(figures: Mapping[str, Figure]) -> str:
    told = [
        f"{COLUMNS[name]} {figures[name].value:+.4f} [{figures[name].low:+.4f}, {figures[name].high:+.4f}]"
        for name in ("weighted", f"mrr@{TOP}")
        if name in figures
    ]
    return ", ".join(told)


def _cell(figure: Figure | None) -> str:
    return f"{figure.value:.3f} ±{(figure.high - figure.low) / 2:.3f}" if figure else NONE
