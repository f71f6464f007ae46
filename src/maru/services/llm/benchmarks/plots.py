"""Small plots as SVG, which every browser and most readers of Markdown draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 50
_COLOURS = ("#2563eb", "#ea580c", "#16a34a", "#9333ea", "#0891b2", "#be123c", "#65a30d", "#52525b")
_NAME, _ROW = 110, 18
"""How wide the name of a series may be, and how high a row of names is."""
_LETTER = 7
"""How wide a letter is, at the most. Labels that have not room enough are not all written."""


def bars(title: str, unit: str, labels: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> str:
    """A group of bars for each label, one for each series. What is None has no bar."""
    largest = max((value for values in series.values() for value in values if value is not None), default=0.0)
    plot = _Plot(title, unit, list(series), largest)
    step = plot.room / max(1, len(labels))
    width = step * 0.8 / max(1, len(series))
    every = math.ceil(_LETTER * (max(map(len, labels), default=0) + 1) / step)
    for place, label in enumerate(labels):
        middle = _LEFT + step * (place + 0.5)
        if place % every == 0:
            plot.below(middle, label)
        for number, values in enumerate(series.values()):
            value = values[place]
            if value is not None:
                x, top = middle - step * 0.4 + number * width, plot.y(value)
                plot.marks.append(
                    f'<rect x="{x:.1f}" y="{top:.1f}" width="{width * 0.9:.1f}" height="{plot.bottom - top:.1f}" '
                    f'fill="{_colour(number)}"><title>{escape(label)}: {value:.4g}</title></rect>'
                )
    return plot.drawn()


def dots(title: str, unit: str, below: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A dot for each pair of x and y."""
    pairs = [pair for values in series.values() for pair in values]
    plot = _Plot(title, unit, list(series), max((y for _, y in pairs), default=0.0))
    across = _Axis(max((x for x, _ in pairs), default=0.0))
    plot.marks.append(_text(_LEFT + plot.room / 2, _HEIGHT - 12, below, "middle"))
    for tick in across.ticks():
        plot.below(_LEFT + plot.room * across.share(tick), f"{tick:.4g}")
    for number, values in enumerate(series.values()):
        plot.marks += [
            f'<circle cx="{_LEFT + plot.room * across.share(x):.1f}" cy="{plot.y(y):.1f}" r="2.5" '
            f'fill="{_colour(number)}" fill-opacity="0.6"/>'
            for x, y in values
        ]
    return plot.drawn()


class _Axis:
    """From zero to a round number that no value is above."""

    def __init__(self, largest: float) -> None:
        self.step = self._round(largest / 4) if largest > 0 else 0.25
        self.top = self.step * max(1, math.ceil(largest / self.step))

    @staticmethod
    def _round(value: float) -> float:
        unit = 10.0 ** math.floor(math.log10(value))
        return next(unit * factor for factor in (1, 2, 2.5, 5, 10) if value <= unit * factor * (1 + 1e-9))

    def share(self, value: float) -> float:
        """How far along it a value is, in [0, 1]."""
        return value / self.top

    def ticks(self) -> list[float]:
        return [number * self.step for number in range(round(self.top / self.step) + 1)]


class _Plot:
    """A title, the names of the series where there are several, lines across, and what `marks` adds."""

    def __init__(self, title: str, unit: str, names: Sequence[str], largest: float) -> None:
        self.marks: list[str] = [_text(_LEFT, 21, f"{title}, {unit}", "start")]
        self.room, self.bottom = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM
        self._top = _TOP
        self._axis = _Axis(largest)
        if len(names) > 1:
            self._legend(names)
        for tick in self._axis.ticks():
            y = self.y(tick)
            self.marks.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#d4d4d8"/>')
            self.marks.append(_text(_LEFT - 8, y + 4, f"{tick:.4g}", "end"))

    def _legend(self, names: Sequence[str]) -> None:
        in_row = self.room // _NAME
        for number, name in enumerate(names):
            x, y = _LEFT + _NAME * (number % in_row), _TOP - 8 + _ROW * (number // in_row)
            self.marks.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{_colour(number)}"/>')
            self.marks.append(_text(x + 14, y + 9, name, "start"))
        self._top += _ROW * math.ceil(len(names) / in_row)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self._top) * self._axis.share(value)

    def below(self, x: float, label: str) -> None:
        """A label below the lowest line."""
        self.marks.append(_text(x, self.bottom + 18, label, "middle"))

    def drawn(self) -> str:
        inside = "\n".join(self.marks)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
            f'height="{_HEIGHT}" font-family="sans-serif" font-size="12">\n'
            f'<rect width="100%" height="100%" fill="#ffffff"/>\n{inside}\n</svg>\n'
        )


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _text(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#27272a">{escape(said)}</text>'
