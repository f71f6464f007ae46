"""What a training was worth, for the terminal and for the folder."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator

from rich.table import Table

from maru.services.llm.training.train import TrainedModel


def table(trained: TrainedModel) -> Table:
    found = Table(show_header=False)
    found.add_column()
    found.add_column(justify="right")
    for name, value in rows(trained):
        found.add_row(name, value)
    return found


def rows(trained: TrainedModel) -> Iterator[tuple[str, str]]:
    shape, measured, options = trained.shape, trained.measured, trained.options
    yield "parameters", f"{shape.parameters:,}"
    yield "layers, width, context", f"{shape.layers}, {shape.width}, {shape.context:,}"
    yield "vocabulary", f"{len(trained.vocabulary):,}"
    yield "tokens learnt from", f"{trained.tokens:,}"
    yield "times read", f"{options.epochs:g}"
    yield "steps", f"{len(trained.log):,}"
    yield "seconds", f"{trained.seconds:,.0f}"
    yield "loss at the end of the training", f"{_last(trained):.3f}"
    yield "held-out tokens", f"{measured.tokens:,}"
    yield "held-out loss, nats a token", f"{measured.loss:.3f}"
    yield "held-out perplexity", f"{measured.perplexity:.1f}"
    yield "perplexity of guessing by frequency", f"{math.exp(measured.unigram):.1f}"
    yield "held-out bits a character", f"{measured.bits_a_character:.3f}"


def markdown(trained: TrainedModel) -> str:
    options = trained.options
    lines = ["# Training report", "", "| | |", "|---|---:|"]
    lines += [f"| {name} | {value} |" for name, value in rows(trained)]
    lines += [
        "",
        f"Learnt from {', '.join(f'`{name}`' for name in trained.text.files)} (SHA-256 `{trained.text.sha256}`), the",
        "last twentieth of each held out. Size "
        f"`{options.size}`, batches of {options.batch:,} tokens, rate {options.rate:g}, seed {options.seed}, "
        f"{options.threads} thread{'s' * (options.threads > 1)}, {platform.machine()}.",
        "`training.jsonl` has the loss of each step.",
    ]
    return "\n".join(lines) + "\n"


def _last(trained: TrainedModel) -> float:
    """The mean of the last tenth: one step's loss is that of one batch."""
    tail = trained.log[-max(1, len(trained.log) // 10) :]
    return sum(step["loss"] for step in tail) / len(tail)
