"""What a training of the text matcher found, for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from maru.services.style.training.evaluation import Figures

COLUMNS = ("texts", "style found", "no style found", "none found in none", "log loss", "calibration error")
LEGEND = (
    "Each descriptor and each template is held out in one of five folds. Style found: of the texts that speak of a "
    "style, those in which that one came first; no style found: those in which none did. None found in none: the same "
    "of the texts that speak of no style."
)


def table(measured: Mapping[str, Figures]) -> Table:
    """For a terminal."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("")
    for name in COLUMNS:
        shown.add_column(name, justify="right")
    for name, found in measured.items():
        shown.add_row(name, *_cells(found))
    return shown


def markdown(measured: Mapping[str, Figures]) -> str:
    """For a file beside the model."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    lines += [f"| {name} | " + " | ".join(_cells(found)) + " |" for name, found in measured.items()]
    return "\n".join(["# Training report", "", *lines, "", LEGEND, ""])


def _cells(found: Figures) -> tuple[str, ...]:
    shares = (f"{share:.2%}" for share in (found.styles, found.lost, found.none))
    return (f"{found.texts:,}", *shares, f"{found.log_loss:.3f}", f"{found.calibration:.3f}")
