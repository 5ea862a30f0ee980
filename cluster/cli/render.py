"""What the command line shows: tables, sizes, ages. Pure: values in, rich renderables out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

COLUMN_GAP = 3

_STATE_STYLE = {
    "synced": "green",
    "healthy": "green",
    "starting": "yellow",
    "pending": "yellow",
    "suspect": "yellow",
    "refused": "red",
    "unserved": "yellow",
    "unknown": "yellow",
    "gone": "dim",
    "dead": "red",
}


def columns_text(headers: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns without lines, as kubectl prints them: never wrapped or cut, no blanks at the ends.

    Not a rich table: those are made for the eye, and take a second for ten thousand rows.
    """
    lines = [*([headers] if headers is not None else []), *rows]
    if not lines:
        return ""
    widths = [max(map(cell_len, column)) + COLUMN_GAP for column in zip(*lines, strict=True)]
    return "".join(
        "".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def titled_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table with a title and rounded lines.

    Columns that begin with ``>`` are aligned to the right, of those with ``~`` there is as much as fits in a line.
    The last column, for what is wrong, is left out if nothing is.
    """
    rows = list(rows)
    if not any(str(row[-1]) for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold", box=box.ROUNDED, header_style="bold")
    for column in columns:
        cut = column.startswith("~")
        table.add_column(
            column.lstrip(">~"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=cut,
            overflow="ellipsis" if cut else "fold",
        )
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
