"""What the command line shows: tables, sizes, ages. Pure: values in, rich renderables out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

_STATE_STYLE = {
    "synced": "green",
    "alive": "green",
    "pending": "yellow",
    "suspect": "yellow",
    "refused": "red",
    "gone": "dim",
    "dead": "red",
}


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Left-aligned columns without lines, as kubectl prints; never wrapped or cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="", show_edge=False)
    for column in columns:
        table.add_column(column.upper(), no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return table


def titled_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table with a title and rounded lines; columns that begin with ``>`` are aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.ROUNDED, header_style="bold")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        table.add_row(*row)
    return table


def state(name: str) -> Text:
    """A state in its colour."""
    return Text(name, style=_STATE_STYLE.get(name, ""))


def number(value: float) -> str:
    """1234567 as ``1,234,567``; below 10 with one digit unless whole."""
    if isinstance(value, int) or value >= 10 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}"


def size(value: float) -> str:
    """Bytes in binary units: ``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def seconds(value: float) -> str:
    """A duration: ``0.4 s``, ``12 s``, ``3 m 20 s``, ``2 h 5 m``."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} m {rest} s"
    return "{} h {} m".format(*divmod(minutes, 60))
