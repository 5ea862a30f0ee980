"""What a client exposes to Prometheus: the table of names, and the metric families made of a `Snapshot`. Pure.

Every series has the label ``client``. The first two parts have the labels ``informer`` (its name, as in logs) too, the
second also ``handler``. Queues and elections go by the names that client-go and Kubernetes' own components give them.

=========================================== ========= ============ ====================================================
name                                        type      labels       what
=========================================== ========= ============ ====================================================
shoal_client_up                             gauge                  1 if the client's event loop answered the scrape
shoal_client_ready                          gauge                  1 if everything asked for is there (`health`)
shoal_client_live                           gauge                  0 if something hangs for too long (`health`)
shoal_informer_state                        gauge     state        1 for the state it is in
shoal_informer_synced                       gauge                  1 once a list was complete
shoal_informer_objects                      gauge                  objects held
shoal_informer_body_bytes                   gauge                  what their bodies take, compressed
shoal_informer_users                        gauge                  times it was asked for and not released
shoal_informer_last_resource_version        gauge                  the newest state it has proof of
shoal_informer_frontier_age_seconds         gauge                  since that was proved to be the newest state
shoal_informer_last_event_age_seconds       gauge                  since the newest change; none before the first
shoal_informer_events_total                 counter   type         observed: added, modified, deleted, bookmark
shoal_informer_lists_total                  counter   form         lists asked for
shoal_informer_reconnects_total             counter   reason       watches opened after one that ended
shoal_informer_errors_total                 counter   reason       requests and streams that failed
shoal_informer_went_back_total              counter                times the server had lost its past
shoal_informer_dropped_total                counter                objects sent although they are not selected
shoal_informer_transform_failures_total     counter                objects held as they came for that
shoal_informer_index_failures_total         counter                objects missing from an index for that
shoal_handler_events_total                  counter   type         told: add, update, delete, resync
shoal_handler_seconds                       summary                seconds in its calls
shoal_handler_lag_seconds                   summary                from being observed to being told
shoal_handler_oldest_pending_seconds        gauge                  since the change it is told of next was observed
shoal_handler_queue_depth                   gauge                  changes it was not told of yet
shoal_handler_merging                       gauge                  1 while its queue is full, and changes are merged
shoal_handler_coalesced_total               counter                changes merged into others, or away
shoal_handler_failures_total                counter                calls that raised
shoal_handler_slow_total                    counter                calls longer than `InformerSettings.slow_s`
shoal_handler_hung_seconds                  gauge                  how long a call that hangs has been running, or 0
shoal_handler_synced                        gauge                  1 once told of everything there was at first
workqueue_depth                             gauge     name,        items to be worked on
                                                      priority
workqueue_adds_total                        counter   name         items that came in
workqueue_retries_total                     counter   name         added after a delay, or rate-limited
workqueue_queue_duration_seconds            histogram name         from the add until taken
workqueue_work_duration_seconds             histogram name         from there until done
workqueue_unfinished_work_seconds           gauge     name         of items worked on so far, together
workqueue_longest_running_processor_seconds gauge     name         of the one taken first
shoal_controller_reconciles_total           counter   controller,  reconciles by how they ended
                                                      result
shoal_controller_reconcile_seconds          histogram controller   seconds a reconcile took
shoal_controller_workers                    gauge     controller   reconciles that may be under way
shoal_controller_active_workers             gauge     controller   that are
shoal_controller_hung                       gauge     controller   that have been for too long
shoal_controller_reconciles_hung_total      counter   controller   that ever were
shoal_controller_parked                     gauge     controller   items given up until they change
shoal_controller_items_parked_total         counter   controller   times an item was given up
shoal_controller_synced                     gauge     controller   1 if its sources had everything, and workers run
leader_election_master_status               gauge     name         1 if this candidate leads
leader_election_slowpath_total              counter   name         renewals that had to look first
shoal_leader_terms_total                    counter   name         times it became leader
shoal_leader_renewals_total                 counter   name         times the lease was renewed
shoal_leader_failures_total                 counter   name         requests for the lease that failed
=========================================== ========= ============ ====================================================

Counters of a queue or a controller grow from its beginning; those of an informer, and of a handler, end with it. Two
handlers of one informer that have the same name get ``#2`` and so on behind it: name them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias, TypeVar, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric

from ..controller.metrics import controller_families, leader_families
from ..informers.statistics import HandlerStatistics, InformerState, InformerStatus
from ..workqueue.metrics import queue_families
from .observed import Snapshot

T = TypeVar("T")
Named: TypeAlias = list[tuple[tuple[str, ...], T]]
"""What is told of, by the values of its labels."""

STATES: Final[tuple[str, ...]] = get_args(InformerState)
_INFORMER: Final = ("informer",)
_HANDLER: Final = ("informer", "handler")

_INFORMER_GAUGES: Final[tuple[tuple[str, str, Callable[[InformerStatus], float | None]], ...]] = (
    ("synced", "1 once a list was complete.", lambda it: float(it.synced)),
    ("objects", "Objects held.", lambda it: it.objects),
    ("body_bytes", "What the bodies of objects held take, compressed.", lambda it: it.body_bytes),
    ("users", "Times it was asked for and not released.", lambda it: it.users),
    (
        "last_resource_version",
        "The newest state it has proof of.",
        lambda it: float(it.frontier) if it.synced else None,
    ),
    (
        "frontier_age_seconds",
        "Seconds since the API server proved its state to be the newest.",
        lambda it: it.age_s if it.synced else None,
    ),
    (
        "last_event_age_seconds",
        "Seconds since the newest change was observed.",
        lambda it: it.last_event_age_s,
    ),
)
_INFORMER_COUNTERS: Final[tuple[tuple[str, str, Callable[[InformerStatus], float]], ...]] = (
    ("went_back", "Times the server had lost its past.", lambda it: it.went_back),
    ("dropped", "Objects that a server sent although they are not selected.", lambda it: it.dropped),
    (
        "transform_failures",
        "Objects held as they came, because a transform failed.",
        lambda it: it.transform_failures,
    ),
    (
        "index_failures",
        "Objects missing from an index, because its function failed.",
        lambda it: it.index_failures,
    ),
)
_INFORMER_COUNTED: Final[tuple[tuple[str, str, str, Callable[[InformerStatus], Mapping[str, int]]], ...]] = (
    ("events", "Events observed.", "type", lambda it: it.events),
    ("lists", "Lists asked for.", "form", lambda it: it.lists),
    ("reconnects", "Watches opened after one that ended.", "reason", lambda it: it.watch_restarts),
    ("errors", "Requests and streams that failed.", "reason", lambda it: it.errors),
)
_HANDLER_GAUGES: Final[tuple[tuple[str, str, Callable[[HandlerStatistics], float]], ...]] = (
    ("queue_depth", "Changes it was not told of yet.", lambda it: it.queued),
    ("merging", "1 while its queue is full, and changes are merged.", lambda it: float(it.merging)),
    (
        "oldest_pending_seconds",
        "Seconds since the change that it is told of next was observed.",
        lambda it: it.lag_s,
    ),
    ("hung_seconds", "Seconds that a call which hangs has been running, or 0.", lambda it: it.hung_s or 0.0),
    ("synced", "1 once it was told of everything there was at first.", lambda it: float(it.synced)),
)
_HANDLER_COUNTERS: Final[tuple[tuple[str, str, Callable[[HandlerStatistics], float]], ...]] = (
    ("coalesced", "Changes merged into others, or away.", lambda it: it.coalesced),
    ("failures", "Calls that raised.", lambda it: it.failed),
    ("slow", "Calls that took long.", lambda it: it.slow),
)
_HANDLER_SUMMARIES: Final[tuple[tuple[str, str, Callable[[HandlerStatistics], float]], ...]] = (
    ("seconds", "Seconds in its calls.", lambda it: it.seconds),
    ("lag_seconds", "Seconds from a change's being observed to its being told.", lambda it: it.lag_sum_s),
)


def families(found: Mapping[str, Snapshot | None]) -> list[Metric]:
    """All of several clients, by what each is called; None: it did not answer."""
    merged: dict[str, Metric] = {metric.name: metric for metric in _client_families(found)}
    for client, snapshot in found.items():
        if snapshot is not None:
            for metric in _families(snapshot):
                into = merged.setdefault(metric.name, _empty(metric))
                into.samples += [
                    sample._replace(labels={"client": client, **sample.labels}) for sample in metric.samples
                ]
    return list(merged.values())


def described() -> list[Metric]:
    """The families there may be, without samples."""
    nothing = [*_client_families({}), *_informer_families([]), *_handler_families([])]
    return [*nothing, *queue_families({}), *controller_families({}), *leader_families([])]


def _empty(metric: Metric) -> Metric:
    return Metric(metric.name, metric.documentation, metric.type, metric.unit)


def _client_families(found: Mapping[str, Snapshot | None]) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "shoal_client_up", "1 if the client's event loop answered this scrape.", labels=("client",)
    )
    ready = GaugeMetricFamily("shoal_client_ready", "1 if everything asked for is there.", labels=("client",))
    live = GaugeMetricFamily("shoal_client_live", "0 if something hangs for too long.", labels=("client",))
    for client, snapshot in found.items():
        up.add_metric((client,), float(snapshot is not None))
        if snapshot is not None:
            ready.add_metric((client,), float(snapshot.health.ready))
            live.add_metric((client,), float(snapshot.health.live))
    return iter((up, ready, live))


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    names = _distinct(status.name for status in snapshot.informers)
    informers: Named[InformerStatus] = [
        ((name,), status) for name, status in zip(names, snapshot.informers, strict=True)
    ]
    yield from _informer_families(informers)
    handlers: Named[HandlerStatistics] = []
    for (informer,), status in informers:
        calls = _distinct(handler.name for handler in status.handlers)
        handlers += zip(((informer, name) for name in calls), status.handlers, strict=True)
    yield from _handler_families(handlers)
    yield from queue_families(snapshot.queues)
    yield from controller_families(snapshot.controllers)
    yield from leader_families(snapshot.leaders)


def _distinct(names: Iterable[str]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name} #{seen[name]}"


def _informer_families(found: Named[InformerStatus]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "shoal_informer_state", "1 for the state it is in.", labels=(*_INFORMER, "state")
    )
    for labels, it in found:
        for name in STATES:
            state.add_metric((*labels, name), float(it.state == name))
    yield state
    for metric, text, value in _INFORMER_GAUGES:
        yield _gauge(f"shoal_informer_{metric}", text, _INFORMER, [(by, value(it)) for by, it in found])
    for metric, text, count in _INFORMER_COUNTERS:
        counter = CounterMetricFamily(f"shoal_informer_{metric}", text, labels=_INFORMER)
        for labels, it in found:
            counter.add_metric(labels, count(it))
        yield counter
    for metric, text, label, counts in _INFORMER_COUNTED:
        counter = CounterMetricFamily(f"shoal_informer_{metric}", text, labels=(*_INFORMER, label))
        for labels, it in found:
            for kind, many in sorted(counts(it).items()):
                counter.add_metric((*labels, kind), many)
        yield counter


def _handler_families(found: Named[HandlerStatistics]) -> Iterator[Metric]:
    events = CounterMetricFamily("shoal_handler_events", "Changes told.", labels=(*_HANDLER, "type"))
    for labels, it in found:
        told = {"add": it.adds, "update": it.updates, "delete": it.deletes, "resync": it.resyncs}
        for kind, many in told.items():
            events.add_metric((*labels, kind), many)
    yield events
    for metric, text, value in _HANDLER_SUMMARIES:
        summary = SummaryMetricFamily(f"shoal_handler_{metric}", text, labels=_HANDLER)
        for labels, it in found:
            summary.add_metric(labels, count_value=it.delivered, sum_value=value(it))
        yield summary
    for metric, text, value in _HANDLER_GAUGES:
        yield _gauge(f"shoal_handler_{metric}", text, _HANDLER, [(by, value(it)) for by, it in found])
    for metric, text, value in _HANDLER_COUNTERS:
        counter = CounterMetricFamily(f"shoal_handler_{metric}", text, labels=_HANDLER)
        for labels, it in found:
            counter.add_metric(labels, value(it))
        yield counter


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Named[float | None]) -> Metric:
    """A gauge; what has no value has no series."""
    gauge = GaugeMetricFamily(name, text, labels=labels)
    for by, value in samples:
        if value is not None:
            gauge.add_metric(by, value)
    return gauge
