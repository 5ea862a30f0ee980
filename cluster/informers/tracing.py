"""Spans of OpenTelemetry around the calls of handlers, where a tracer provider is set up. Never a dependency.

Two spans a call: ``shoal.event``, from the moment the change was observed until the handler's turn came, and below it
``shoal.handler``, the call itself. Spans that a handler starts are below that one, also in its thread and across its
awaits; an exception is recorded in it. ``shoal.event`` begins a trace: what was current where the handler was added has
nothing to do with it.

    ``k8s.resource.name``                such as apps/v1/deployments
    ``k8s.namespace.name``               missing for cluster-scoped objects
    ``k8s.object.name``, ``.uid``        of the object
    ``k8s.object.resource_version``      of the state it is told of, or of the deletion
    ``shoal.key``                        namespace/name
    ``shoal.event``                      add, update, delete, resync
    ``shoal.initial``                    it was there at first
    ``shoal.informer``, ``shoal.handler``
    ``shoal.lag_seconds``                from being observed to being told

What it keeps true: without a provider nothing is imported and nothing is paid, because handlers are then told by
`Registration` itself. A provider counts from when it is set up (``opentelemetry.trace.set_tracer_provider``): handlers
that were added before stay without spans.

Coded against https://opentelemetry-python.readthedocs.io/en/latest/api/trace.html.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from ... import __version__
from ...shards.model.refs import ref_of
from .delivery import Change
from .handlers import Callbacks
from .registration import Registration

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext, Tracer, TracerProvider

_TRACE: Final = "opentelemetry.trace"
_SCOPE: Final = "shoal"
"""Instrumentation scope of all spans."""

_handling: ContextVar[SpanContext | None] = ContextVar("shoal_handling", default=None)


def tracer_of(provider: TracerProvider | None = None) -> Tracer | None:
    """The tracer of a provider, or of the one that is set up for the process; None if there is none.

    Raises:
        TypeError: it is no tracer provider.
    """
    if provider is None:
        trace = sys.modules.get(_TRACE)
        if trace is None:
            # Nobody can have set one up.
            return None
        provider = trace.get_tracer_provider()
        if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
            return None
    if not callable(getattr(provider, "get_tracer", None)):
        raise TypeError(f"{provider!r} is no tracer provider: expected one of opentelemetry.sdk.trace")
    tracer: Tracer = provider.get_tracer(_SCOPE, __version__)
    return tracer


def handling() -> SpanContext | None:
    """The context of the handler's span, in a handler that is traced."""
    return _handling.get()


def registration_of(
    callbacks: Callbacks, *, provider: TracerProvider | None, resource: Callable[[], str], **options: Any
) -> Registration:
    """A registration of a handler, with spans if there is a provider; `options` are `Registration`'s."""
    tracer = tracer_of(provider)
    if tracer is None:
        return Registration(callbacks, **options)
    return TracedRegistration(callbacks, tracer=tracer, resource=resource, **options)


class TracedRegistration(Registration):
    """A registration whose calls are spans of `tracer`; everything else is `Registration`. `resource` says what its
    informer follows.
    """

    def __init__(
        self, callbacks: Callbacks, *, tracer: Tracer, resource: Callable[[], str], **options: Any
    ) -> None:
        super().__init__(callbacks, **options)
        self._api: Any = importlib.import_module(_TRACE)
        self._no_context: Any = importlib.import_module("opentelemetry.context").Context()
        self._tracer = tracer
        self._resource = resource
        self._span: Span | None = None
        """Of a call that has not returned."""

    def _tell(self, change: Change, now: float) -> object:
        attributes = self._attributes(change, now)
        # Spans have the time of the wall; how far it is back is known by the loop's.
        wall_ns = time.time_ns()
        observed_ns = wall_ns - max(0, int((now - change.at) * 1e9))
        event = self._tracer.start_span(
            "shoal.event", self._no_context, attributes=attributes, start_time=observed_ns
        )
        event.end(wall_ns)
        if event.get_span_context().trace_flags.sampled:
            span = self._tracer.start_span(
                "shoal.handler",
                self._api.set_span_in_context(event, self._no_context),
                kind=self._api.SpanKind.CONSUMER,
                attributes={**attributes, "shoal.handler": self.name},
            )
        else:
            # Not sampled, and neither is what is below it.
            span = event
        self._span = span
        token = _handling.set(span.get_span_context())
        outcome: object = None
        try:
            with self._api.use_span(span, record_exception=False, set_status_on_exception=False):
                outcome = super()._tell(change, now)
        finally:
            _handling.reset(token)
            self._span = None
            if not isawaitable(outcome):
                span.end()
        return self._awaited(span, outcome) if isawaitable(outcome) else outcome

    async def _awaited(self, span: Span, outcome: Awaitable[object]) -> object:
        """Waits for a call with its span current; whatever leaves it is recorded."""
        token = _handling.set(span.get_span_context())
        try:
            with self._api.use_span(span, record_exception=False, set_status_on_exception=False):
                return await outcome
        except BaseException as error:
            self._record(span, error)
            raise
        finally:
            _handling.reset(token)
            span.end()

    def _raised(self, change: Change, error: BaseException) -> None:
        if self._span is not None:
            self._record(self._span, error)
        super()._raised(change, error)

    def _record(self, span: Span, error: BaseException) -> None:
        span.record_exception(error)
        span.set_status(self._api.Status(self._api.StatusCode.ERROR, f"{type(error).__name__}: {error}"))

    def _attributes(self, change: Change, now: float) -> dict[str, str | bool | float]:
        before, after, end = change.before, change.after, change.end
        state = after or before
        assert state is not None
        version = end.version if after is None and end is not None and end.known else state.version
        ref = ref_of(change.key)
        found: dict[str, str | bool | float] = {
            "k8s.resource.name": self._resource(),
            "k8s.object.name": ref.name,
            "k8s.object.uid": state.uid,
            "k8s.object.resource_version": str(version),
            "shoal.key": change.key,
            "shoal.event": event_of(change),
            "shoal.initial": change.initial,
            "shoal.informer": self._informer,
            "shoal.lag_seconds": max(0.0, now - change.at),
        }
        if ref.namespace:
            found["k8s.namespace.name"] = ref.namespace
        return found


def event_of(change: Change) -> str:
    """What a handler is told: add, update, delete or resync."""
    if change.before is None:
        return "add"
    if change.after is None:
        return "delete"
    return "resync" if change.before is change.after else "update"
