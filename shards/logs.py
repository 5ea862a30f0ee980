"""Logging of a process of Shoal, or of a program that uses it: one line an event on stderr.

As text a line is ``time level logger message key=value …``; as JSON an object with ``time``, ``level``, ``logger``,
``message``, whatever else the line says under its own name, ``exception`` with the traceback, and ``trace_id`` and
``span_id`` if the line was written below a span of OpenTelemetry. Messages are constant, so that lines can be counted;
what differs is in the keys. An object is always ``key``, as ``namespace/name``.

Ray keeps what its workers write to stderr in the session's ``logs`` folder; the command that started them shows it
as well when it is asked for more than warnings. Libraries keep their own loggers and say nothing below a warning.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, TypeAlias, get_args

import msgspec

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Format: TypeAlias = Literal["text", "json"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What a record has of itself; everything else came with ``extra``."""


def _extra(record: logging.LogRecord) -> list[tuple[str, object]]:
    # Ray marks records with keys of its own that begin with an underscore.
    return sorted((key, value) for key, value in vars(record).items() if key not in _OWN and key[0] != "_")


class KeyValueFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123 WARNING shoal.coordinator discovery failed again_in_s=4 error="no route"``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self.default_time_format, self.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03d"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line without a traceback."""
        extra = (f"{key}={_quoted(value)}" for key, value in _extra(record))
        return " ".join((super().formatMessage(record), *extra))


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a key of ``extra`` that has the name of one of its own gets an underscore behind it."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        line.update(_span())
        for key, value in _extra(record):
            line[f"{key}_" if key in line else key] = value
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except (TypeError, ValueError, RecursionError):
            # What JSON cannot say, such as half of a surrogate pair, is said as text.
            texts = {
                key: str(value).encode(errors="backslashreplace").decode() for key, value in line.items()
            }
            return msgspec.json.encode(texts).decode()


def _span() -> Iterator[tuple[str, str]]:
    """The span the line is written in, for who configured tracing; nothing is imported for it."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        yield "trace_id", f"{context.trace_id:032x}"
        yield "span_id", f"{context.span_id:016x}"


def _quoted(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and not set(text) & set(' "=')
    return text if plain and text else '"' + text.translate(_ESCAPES) + '"'


_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def configure_logging(level: Level = "info", format: Format = "text") -> None:  # noqa: A002 - as logging.basicConfig
    """Makes this process log from `level` on, to stderr; safe to repeat, the last call counts.

    Only Shoal's own loggers (``shoal.…``). A program with logging of its own need not call this: until then lines go
    where it has loggers go.

    Raises:
        ValueError: a level or format of another name.
    """
    for what, given, known in (("level", level, get_args(Level)), ("format", format, get_args(Format))):
        if given not in known:
            raise ValueError(f"the {what} of logging is {given!r}: expected one of {', '.join(known)}")
    logger = logging.getLogger("shoal")
    logger.setLevel(level.upper())
    logger.propagate = False
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(KeyValueFormatter() if format == "text" else JsonFormatter())
    logger.addHandler(lines)
