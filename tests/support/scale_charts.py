"""Line charts as SVG, by hand: a few series over time, one or two panels, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 860, 200, 64, 170, 34, 34
COLOURS = ("#2f6fdb", "#d1495b", "#3a9d5d", "#b07d12", "#7a4fbf")
POINTS_MAX = 600
"""Of a line; what lies between is kept as lowest and highest."""


@dataclass(frozen=True)
class Line:
    """One series."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Some lines with a scale of their own."""

    what: str
    lines: Sequence[Line]


def chart(title: str, x_name: str, panels: Sequence[Panel]) -> str:
    """The whole picture."""
    height = TOP + len(panels) * (PANEL + BOTTOM) + 14
    points = [point for panel in panels for line in panel.lines for point in line.points]
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold" fill="#222">{escape(title)}</text>',
    ]
    for at, panel in enumerate(panels):
        parts += _panel(panel, TOP + at * (PANEL + BOTTOM), low, high)
    parts += [_text((LEFT + WIDTH - RIGHT) / 2, height - 6, x_name, "middle"), "</svg>"]
    return "\n".join(parts) + "\n"


def _panel(panel: Panel, top: float, low: float, high: float) -> list[str]:
    most = max((y for line in panel.lines for _, y in line.points), default=1.0)
    step = _step(most or 1.0)
    ceiling = step * math.ceil((most or 1.0) / step - 1e-9)
    width, span = WIDTH - LEFT - RIGHT, (high - low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (x - low) / span * width, top + PANEL - y / ceiling * PANEL

    parts = [_text(LEFT, top + 12, panel.what, "start", "#444")]
    for number in range(round(ceiling / step) + 1):
        _, y = place(low, number * step)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + width}" y2="{y:.1f}" stroke="#e3e3e3"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{number * step:g}", "end"))
    across = _step(span)
    for number in range(math.ceil(low / across), math.floor(high / across) + 1):
        x, _ = place(number * across, 0.0)
        parts.append(_text(x, top + PANEL + 16, f"{number * across:g}", "middle"))
    for at, line in enumerate(panel.lines):
        colour = COLOURS[at % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in _thinned(line.points)))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_text(LEFT + width + 10, top + 16 + 18 * at, line.name, "start", colour))
    return parts


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#666") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _step(span: float) -> float:
    """A round number of which four or more make the span."""
    raw = span / 5
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.99)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = max(math.ceil(2 * len(points) / POINTS_MAX), 1)
    if size == 1:
        return list(points)
    found: list[tuple[float, float]] = []
    for at in range(0, len(points), size):
        few = points[at : at + size]
        ends = {min(few, key=lambda point: point[1]), max(few, key=lambda point: point[1])}
        found += sorted(ends)
    return found
