"""Spans as a test looks at them: OpenTelemetry's own SDK with its exporter that keeps them in memory."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Spans:
    """A tracer provider of its own, and what was recorded by it."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def named(self, name: str) -> list[ReadableSpan]:
        """Those that have ended, in order."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def take(self) -> list[ReadableSpan]:
        """All of them; forgotten then."""
        found = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return found


def under(span: ReadableSpan, above: ReadableSpan) -> bool:
    """Whether one is the other's child, in the same trace."""
    assert span.context is not None
    assert above.context is not None
    return (
        span.parent is not None
        and span.parent.span_id == above.context.span_id
        and span.context.trace_id == above.context.trace_id
    )


def failures(span: ReadableSpan) -> list[str]:
    """Types and texts of the exceptions recorded in it."""
    found = [event.attributes or {} for event in span.events if event.name == "exception"]
    return [f"{one['exception.type']}: {one['exception.message']}" for one in found]
