"""Small plots as SVG, which every browser and most readers of Markdown draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 50
_COLOURS = ("#2563eb", "#ea580c", "#16a34a", "#9333ea")


def bars(title: str, unit: str, labels: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> str:
    """A group of bars for each label, one for each series. What is None has no bar."""
    axis = _Axis(max((value for values in series.values() for value in values if value is not None), default=0.0))
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(labels))
    width = step * 0.8 / max(1, len(series))
    marks = []
    for place, label in enumerate(labels):
        middle = _LEFT + step * (place + 0.5)
        marks.append(_text(middle, _HEIGHT - _BOTTOM + 18, label, "middle"))
        for number, values in enumerate(series.values()):
            value = values[place]
            if value is not None:
                x, top = middle - step * 0.4 + number * width, axis.at(value)
                height = _HEIGHT - _BOTTOM - top
                marks.append(
                    f'<rect x="{x:.1f}" y="{top:.1f}" width="{width * 0.9:.1f}" height="{height:.1f}" '
                    f'fill="{_COLOURS[number % len(_COLOURS)]}"><title>{escape(label)}: {value:.4g}</title></rect>'
                )
    return _drawn(title, unit, axis, marks, list(series))


def dots(title: str, unit: str, below: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A dot for each pair of x and y."""
    pairs = [pair for values in series.values() for pair in values]
    axis = _Axis(max((y for _, y in pairs), default=0.0))
    most = max((x for x, _ in pairs), default=0.0) or 1.0
    room = _WIDTH - _LEFT - _RIGHT
    marks = [_text(_LEFT + room / 2, _HEIGHT - 12, below, "middle")]
    for share in (0.0, 0.5, 1.0):
        marks.append(_text(_LEFT + room * share, _HEIGHT - _BOTTOM + 18, f"{most * share:.3g}", "middle"))
    for number, values in enumerate(series.values()):
        colour = _COLOURS[number % len(_COLOURS)]
        marks += [
            f'<circle cx="{_LEFT + room * x / most:.1f}" cy="{axis.at(y):.1f}" r="2.5" fill="{colour}" '
            f'fill-opacity="0.6"/>'
            for x, y in values
        ]
    return _drawn(title, unit, axis, marks, list(series))


class _Axis:
    """From zero to a round number that no value is above."""

    def __init__(self, largest: float) -> None:
        self.step = self._round(largest / 4) if largest > 0 else 0.25
        self.top = self.step * max(1, math.ceil(largest / self.step))

    @staticmethod
    def _round(value: float) -> float:
        unit = 10.0 ** math.floor(math.log10(value))
        return next(unit * factor for factor in (1, 2, 2.5, 5, 10) if value <= unit * factor * (1 + 1e-9))

    def at(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / self.top

    def lines(self) -> list[str]:
        marks = []
        for number in range(round(self.top / self.step) + 1):
            value = number * self.step
            y = self.at(value)
            marks.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#d4d4d8"/>')
            marks.append(_text(_LEFT - 8, y + 4, f"{value:.4g}", "end"))
        return marks


def _drawn(title: str, unit: str, axis: _Axis, marks: Sequence[str], names: Sequence[str]) -> str:
    legend = []
    if len(names) > 1:
        for number, name in enumerate(names):
            x = _WIDTH - _RIGHT - 90 * (len(names) - number)
            legend.append(f'<rect x="{x}" y="12" width="10" height="10" fill="{_COLOURS[number % len(_COLOURS)]}"/>')
            legend.append(_text(x + 14, 21, name, "start"))
    inside = "\n".join([_text(_LEFT, 21, f"{title}, {unit}", "start"), *legend, *axis.lines(), *marks])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{inside}\n</svg>\n'
    )


def _text(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#27272a">{escape(said)}</text>'
