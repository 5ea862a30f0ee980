"""Spans of OpenTelemetry from event to reconcile, where a tracer provider is set up. Never a dependency.

A reconcile is a span of its own, ``shoal.reconcile``, linked to those of the events that caused it: one reconcile for
ten events shows all ten (the newest `sources.CAUSES_MAX`), and the time in between is the queue's. It is linked to the
calls of the controller's handlers (``shoal.handler``, see `informers.tracing`) and not below one of them, because it
may be the answer to many. Each link carries

    ``shoal.source``                     name of the informer
    ``shoal.event``                      add, update, delete, resync

and the span, which is current while the reconcile runs, in its thread too,

    ``shoal.controller``, ``shoal.key``
    ``k8s.namespace.name``, ``k8s.object.name``
    ``shoal.attempts``                   failures in a row before this one
    ``shoal.causes``                     events since it was last taken, as far as they were kept
    ``shoal.queue_seconds``              from when the item could be taken until it was; delays before that do not count
    ``shoal.outcome``                    success, requeue_after, error, timeout, terminal, cancelled
    ``shoal.requeue``                    no, after, rate_limited, parked
    ``shoal.requeue_after_seconds``      what the reconcile asked for

A failure is recorded with its exception. An informer that is not traced itself gets a short ``shoal.event`` span for
each key, so that there is something to link to.

Coded against https://opentelemetry-python.readthedocs.io/en/latest/api/trace.html.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from ...shards.model.refs import Key, ref_of
from ..informers.tracing import handling, tracer_of
from .ports import EventKind, NoTracing, ReconcileSpan, Requeue, Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider


def find_tracing() -> Tracing:
    """`OpenTelemetryTracing` if a tracer provider is set up for the process, and `NoTracing` otherwise."""
    tracer = tracer_of()
    return NoTracing() if tracer is None else OpenTelemetryTracing(tracer=tracer)


class OpenTelemetryTracing:
    """`Tracing` by OpenTelemetry.

    Args:
        provider: Whose tracer makes the spans; None: the one that is set up for the process.
        tracer: In its place.
    """

    enabled = True

    def __init__(self, provider: TracerProvider | None = None, *, tracer: Tracer | None = None) -> None:
        """Raises ValueError: no provider is given, and none is set up."""
        tracer = tracer or tracer_of(provider)
        if tracer is None:
            raise ValueError(
                "no tracer provider is set up: give one, or call opentelemetry.trace.set_tracer_provider before"
            )
        self._tracer = tracer
        self._api: Any = importlib.import_module("opentelemetry.trace")
        self._no_context: Any = importlib.import_module("opentelemetry.context").Context()

    def cause(self, controller: str, source: str, event: EventKind, key: Key) -> object | None:
        """As `Tracing.cause`: a link to the handler's span; None if nothing records it."""
        context = handling()
        if context is None:
            attributes = {**_object(key), "shoal.controller": controller, "shoal.source": source}
            span = self._tracer.start_span(
                "shoal.event", self._no_context, attributes={**attributes, "shoal.event": event}
            )
            span.end()
            context = span.get_span_context()
        if not context.is_valid or not context.trace_flags.sampled:
            return None
        link: object = self._api.Link(context, {"shoal.source": source, "shoal.event": event})
        return link

    def reconcile(
        self, controller: str, key: Key, attempts: int, causes: Sequence[object], queue_s: float
    ) -> AbstractContextManager[ReconcileSpan]:
        """As `Tracing.reconcile`: the reconcile's span, current while it runs."""
        span = self._tracer.start_span(
            "shoal.reconcile",
            self._no_context,
            kind=self._api.SpanKind.CONSUMER,
            attributes={
                **_object(key),
                "shoal.controller": controller,
                "shoal.attempts": attempts,
                "shoal.causes": len(causes),
                "shoal.queue_seconds": queue_s,
            },
            links=causes,  # type: ignore[arg-type] # they are what `cause` made
        )
        return self._current(span)

    @contextmanager
    def _current(self, span: Span) -> Iterator[ReconcileSpan]:
        try:
            with self._api.use_span(span, record_exception=False, set_status_on_exception=False):
                yield _Reconciling(span, self._api)
        finally:
            span.end()


class _Reconciling:
    """`ReconcileSpan`."""

    def __init__(self, span: Span, api: Any) -> None:
        self._span = span
        self._api = api

    def ended(
        self,
        outcome: str,
        *,
        error: BaseException | None = None,
        requeue: Requeue = "no",
        requeue_after_s: float | None = None,
    ) -> None:
        """As `ReconcileSpan.ended`."""
        span, status, code = self._span, self._api.Status, self._api.StatusCode
        span.set_attributes({"shoal.outcome": outcome, "shoal.requeue": requeue})
        if requeue_after_s is not None:
            span.set_attribute("shoal.requeue_after_seconds", requeue_after_s)
        if error is not None:
            span.record_exception(error)
            span.set_status(status(code.ERROR, f"{type(error).__name__}: {error}"))


def _object(key: Key) -> dict[str, str]:
    ref = ref_of(key)
    found = {"shoal.key": str(key), "k8s.object.name": ref.name}
    return found | ({"k8s.namespace.name": ref.namespace} if ref.namespace else {})
