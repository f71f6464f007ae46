"""Where commands tell a person what they do. Standard output is for what a program may read."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console

screen = Console(stderr=True, highlight=False)


def fail(message: str) -> NoReturn:
    """Say what a person can mend, in one line, and stop."""
    screen.print(f"maru: {message}", style="bold red", soft_wrap=True, markup=False)
    raise SystemExit(2)
