"""Logging of a process of Shoal: one line an event on stderr, constant message first, then ``key=value``.

Ray keeps what its workers write to stderr in the session's ``logs`` folder; the command that started them shows it
as well when it is asked for more than warnings. Libraries keep their own loggers and say nothing below a warning.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What a record has of itself; everything else came with ``extra``."""


class KeyValueFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123 WARNING shoal.coordinator discovery failed again_in_s=4 error="no route"``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self.default_time_format, self.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03d"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line without a traceback."""
        # Ray marks records with keys of its own that begin with an underscore.
        extra = sorted(
            (key, value) for key, value in vars(record).items() if key not in _OWN and key[0] != "_"
        )
        return " ".join((super().formatMessage(record), *(f"{key}={_quoted(value)}" for key, value in extra)))


def _quoted(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and not set(text) & set(' "=')
    return text if plain and text else '"' + text.translate(_ESCAPES) + '"'


_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def configure_logging(level: Level) -> None:
    """Makes this process log from `level` on; safe to repeat, the last call counts."""
    logger = logging.getLogger("shoal")
    logger.setLevel(level.upper())
    logger.propagate = False
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(KeyValueFormatter())
    logger.addHandler(lines)
