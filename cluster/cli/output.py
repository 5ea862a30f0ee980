"""Consoles of the command line: rich's, with the width that a pipe lacks."""

from __future__ import annotations

import sys

from rich.console import Console

PIPE_WIDTH = 200
"""Columns of a table that is not read on a terminal: room for the longest partition and its message."""


def console(*, stderr: bool = False) -> Console:
    """What is asked for goes to stdout, what is said on the way to stderr."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else PIPE_WIDTH)
