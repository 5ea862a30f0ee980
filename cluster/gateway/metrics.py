"""All metrics of an installation in one scrape: the gateway's own, and those of every shard and the
coordinator.

The gateway's instruments count as requests are answered. What shards and coordinator report is turned into
metric families when a scrape asks, from a report at most a second old; nothing of it is kept, so a
partition that moved away leaves no stale series. Names start with ``shoal_``; counters of shards start
again with their process.

A registry of its own, no global one: two gateways in one process do not share counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from ... import __version__
from ...coordinator.routes import RouteTable
from ...coordinator.status import CoordinatorStatus
from ...shards.model.queries import PartitionStatistics
from ..watching.statistics import WatchStatistics
from .status import Report

QUERY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""From an indexed get to a list of everything; a version is waited for up to 3 s."""
STATES = ("pending", "synced", "refused", "gone")
_PARTITION = ("resource", "partition", "shard")


class GatewayMetrics:
    """The gateway's instruments, and the scrape."""

    def __init__(self, watching: WatchStatistics | None = None) -> None:
        self.registry = _Registry()
        self.requests = Counter(
            "shoal_gateway_requests",
            "Requests answered.",
            ("verb", "resource", "code"),
            registry=self.registry,
        )
        self.query_seconds = Histogram(
            "shoal_query_seconds",
            "Seconds from a request's arrival to the last byte of its answer.",
            ("verb",),
            buckets=QUERY_SECONDS,
            registry=self.registry,
        )
        self.response_bytes = Counter(
            "shoal_gateway_response_bytes",
            "Bytes of bodies sent.",
            ("verb",),
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "shoal_gateway_requests_in_progress", "Requests being answered.", registry=self.registry
        )
        self.aborted = Counter(
            "shoal_gateway_aborted",
            "Answers not sent to their end, by reason: the client left, or the rest could not be had.",
            ("reason",),
            registry=self.registry,
        )
        self._of_protection()
        self._of_watches()
        self.before_scrape: list[Callable[[], None]] = []
        """What brings counters up to date that are too hot to be kept so."""
        ProcessCollector(registry=self.registry)
        self._reported = _Reported(watching or WatchStatistics())
        self.registry.register(self._reported)

    def _of_protection(self) -> None:
        self.refused = Counter(
            "shoal_gateway_refused",
            "Requests answered 429, by the limit that was reached (gateway.limits).",
            ("limit",),
            registry=self.registry,
        )
        self.authentications = Counter(
            "shoal_gateway_authentications",
            "Requests by who asked: token, certificate, none; unauthorized, forbidden (impersonation), failed.",
            ("result",),
            registry=self.registry,
        )
        self.authorizations = Counter(
            "shoal_gateway_authorizations",
            "Decisions whether a user may: allowed, forbidden, failed.",
            ("decision",),
            registry=self.registry,
        )
        self.partial_answers = Counter(
            "shoal_gateway_partial_answers",
            "Answers without a missing shard's part, where the client said that they will do.",
            ("verb",),
            registry=self.registry,
        )

    def _of_watches(self) -> None:
        self.watches = Gauge("shoal_gateway_watches", "Watches open.", ("resource",), registry=self.registry)
        self.watches_ended = Counter(
            "shoal_gateway_watches_ended",
            "Watches ended, by reason: behind and stalled are clients cut off because they do not read.",
            ("reason",),
            registry=self.registry,
        )
        self.watch_events = Counter(
            "shoal_gateway_watch_events",
            "Events and bookmarks handed over to watchers.",
            ("resource",),
            registry=self.registry,
        )
        self.watch_bytes = Counter(
            "shoal_gateway_watch_bytes",
            "Bytes handed over to watchers.",
            ("resource",),
            registry=self.registry,
        )

    def scrape(self, table: RouteTable, report: Report, accept: str) -> tuple[bytes, str]:
        """The exposition in the format `accept` asks for, and its content type."""
        for update in self.before_scrape:
            update()
        self._reported.source = (table, report)
        encoder, content_type = choose_encoder(accept)
        return bytes(encoder(self.registry)), content_type


class _Registry(CollectorRegistry):
    """A registry without the ``_created`` series, which double the size of a scrape and which nobody asks for.

    prometheus_client can leave them out for the whole process only, and that may be somebody else's.
    """

    def collect(self) -> Iterable[Metric]:
        """As prometheus_client asks it."""
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _Reported:
    """Metric families of the last report."""

    def __init__(self, watching: WatchStatistics) -> None:
        self._watching = watching
        self.source: tuple[RouteTable, Report] | None = None

    def collect(self) -> Iterable[Metric]:
        """As prometheus_client asks it."""
        yield from _of_watching(self._watching)
        if self.source is None:
            return
        table, report = self.source
        yield _gauge("shoal_info", "Version of Shoal.", ("version",), [((__version__,), 1)])
        yield from _of_routes(table)
        yield from _of_coordinator(report)
        yield from _of_shards(report)
        yield from _of_partitions(table, report)


Samples = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


_WATCHING = (
    ("feeds_reopened", "Feeds that were lost and found again."),
    ("overtakings", "Overtakings that shards acknowledged."),
    ("proofs", "Frontiers shards had to prove, because names of a partition move and its feed was silent."),
    ("expired", "Watches told 410: the version they began with, or their place in a feed, is forgotten."),
    ("lost", "Watches ended because a shard they need was away for too long."),
    ("overrun", "Replays begun again because too much happened while the past was told."),
)


def _of_watching(watching: WatchStatistics) -> Iterator[Metric]:
    feeds = [((), float(watching.feeds_open))]
    yield _gauge("shoal_watching_feeds", "Partitions followed for watches of this gateway.", (), feeds)
    for value, text in _WATCHING:
        yield _counter(f"shoal_watching_{value}", text, (), [((), getattr(watching, value))])


def _of_routes(table: RouteTable) -> Iterator[Metric]:
    yield _gauge("shoal_routes_epoch", "Generation of the route table.", (), [((), table.epoch)])
    yield _gauge("shoal_resources_followed", "Resources followed.", (), [((), len(table.catalogue))])
    yield _gauge("shoal_partitions", "Partitions served.", (), [((), len(table.routes))])


def _of_coordinator(report: Report) -> Iterator[Metric]:
    status = report.coordinator
    up = float(status is not None)
    yield _gauge("shoal_coordinator_up", "1 if the coordinator answers.", (), [((), up)])
    if status is None:
        return
    yield from _of_permits(status)
    yield _counter(
        "shoal_coordinator_errors",
        "Failed steps of the coordinator by kind.",
        ("kind",),
        [((kind,), count) for kind, count in status.errors.items()],
    )
    discovery = status.discovery
    yield _counter("shoal_discovery_looks", "Looks at what is served.", (), [((), discovery.looks)])
    yield _counter("shoal_discovery_failures", "Looks that failed.", (), [((), discovery.failures)])


def _of_permits(status: CoordinatorStatus) -> Iterator[Metric]:
    permits = status.permits
    yield _gauge("shoal_permits_limit", "Lists that may run at once.", (), [((), permits.limit)])
    yield _gauge("shoal_permits_held", "Lists running.", (), [((), permits.held)])
    yield _gauge("shoal_permits_waiting", "Lists waiting for a permit.", (), [((), permits.waiting)])
    yield _counter("shoal_permits_granted", "Permits given out.", (), [((), permits.granted_total)])
    yield _counter("shoal_permits_expired", "Permits taken back.", (), [((), permits.expired_total)])


def _of_shards(report: Report) -> Iterator[Metric]:
    label = ("shard",)
    up = [((shard.shard,), float(shard.statistics is not None)) for shard in report.shards]
    yield _gauge("shoal_shard_up", "1 if the shard answers.", label, up)
    known = report.statistics().items()

    def each(value: str) -> Samples:
        return [((shard,), getattr(statistics, value)) for shard, statistics in known]

    def by_verb(value: str) -> Samples:
        for shard, statistics in known:
            counts: Mapping[str, float] = getattr(statistics, value)
            yield from (((shard, verb), count) for verb, count in counts.items())

    yield _counter("shoal_shard_cpu_seconds", "CPU seconds of the process.", label, each("cpu_seconds"))
    yield _gauge("shoal_shard_resident_bytes", "Resident set.", label, each("resident_bytes"))
    yield _gauge(
        "shoal_shard_queries_in_progress", "Queries being answered.", label, each("queries_in_progress")
    )
    yield _gauge(
        "shoal_shard_waiting_for_permit",
        "Partitions waiting to list the API server.",
        label,
        each("waiting_for_permit"),
    )
    yield _counter("shoal_shard_queries", "Queries answered.", ("shard", "verb"), by_verb("queries"))
    yield _counter(
        "shoal_snapshots",
        "Snapshots of partitions, by what came of them.",
        ("shard", "outcome"),
        by_verb("snapshots"),
    )
    yield _counter(
        "shoal_shard_query_seconds",
        "Seconds spent on queries, waits for a version included.",
        ("shard", "verb"),
        by_verb("query_seconds"),
    )


_GAUGES = (
    ("objects", "shoal_objects", "Objects held."),
    ("body_bytes", "shoal_body_bytes", "Compressed bodies held."),
    ("history_events", "shoal_history_events", "Events kept for reads of the past."),
    ("history_bytes", "shoal_history_bytes", "Compressed bytes of history."),
    ("frontier", "shoal_frontier", "Resource version up to which everything has been seen."),
    ("frontier_age_s", "shoal_frontier_age_seconds", "Seconds since the API server proved the frontier."),
    ("backlog", "shoal_backlog", "Lines received and not applied yet."),
    ("feeds", "shoal_feeds", "Gateways that follow the partition."),
    ("late_events", "shoal_late_events", "Events in history that came after their version had been shown."),
)
_COUNTERS = (
    ("events", "shoal_events", "Events applied.", "type"),
    ("lists", "shoal_lists", "Lists of the API server.", "form"),
    ("watch_restarts", "shoal_watch_restarts", "Watches opened again.", "reason"),
    ("errors", "shoal_errors", "Errors of following.", "kind"),
    ("proofs", "shoal_frontier_proofs", "Proofs of an idle frontier.", "outcome"),
    ("audits", "shoal_audits", "Comparisons with the API server.", "outcome"),
    ("divergence", "shoal_divergence", "Objects that were not held as the API server has them.", "kind"),
)


def _of_partitions(table: RouteTable, report: Report) -> Iterator[Metric]:
    resources = {route.partition.id: route.partition.resource for route in table.routes}
    rows = [
        ((str(resources[partition.partition]), partition.partition, shard), partition)
        for shard, statistics in report.statistics().items()
        for partition in statistics.partitions
        if partition.partition in resources
    ]
    for value, name, text in _GAUGES:
        yield _gauge(
            name, text, _PARTITION, [(labels, getattr(partition, value)) for labels, partition in rows]
        )
    yield _gauge(
        "shoal_frontier_lag",
        "Resource versions behind the newest frontier among the partitions of the same resource.",
        _PARTITION,
        _lags(rows),
    )
    yield _gauge(
        "shoal_partition_state",
        "1 for the state the partition is in.",
        (*_PARTITION, "state"),
        [
            ((*labels, state), float(partition.state == state))
            for labels, partition in rows
            for state in STATES
        ],
    )
    dropped = [(labels, partition.dropped) for labels, partition in rows]
    yield _counter("shoal_dropped", "Objects that arrived outside of the cover.", _PARTITION, dropped)
    cut_off = [(labels, partition.feeds_cut_off) for labels, partition in rows]
    yield _counter("shoal_feeds_cut_off", "Gateways that read too slowly.", _PARTITION, cut_off)
    unasked = [(labels, partition.proofs_unasked) for labels, partition in rows]
    yield _counter(
        "shoal_frontier_proofs_unasked",
        "Times a frontier stayed behind what was shown of its siblings and was to be proved.",
        _PARTITION,
        unasked,
    )
    compared = [(labels, partition.audited_objects) for labels, partition in rows]
    yield _counter("shoal_audited_objects", "Objects compared with the API server.", _PARTITION, compared)
    ages = [
        (labels, partition.audited_age_s) for labels, partition in rows if partition.audited_age_s is not None
    ]
    yield _gauge("shoal_audited_age_seconds", "Seconds since all was last compared.", _PARTITION, ages)
    for value, name, text, label in _COUNTERS:
        samples = [
            ((*labels, key), count)
            for labels, partition in rows
            for key, count in getattr(partition, value).items()
        ]
        yield _counter(name, text, (*_PARTITION, label), samples)


def _lags(rows: Sequence[tuple[tuple[str, str, str], PartitionStatistics]]) -> Samples:
    newest: dict[str, int] = {}
    for (resource, _, _), partition in rows:
        newest[resource] = max(newest.get(resource, 0), partition.frontier)
    return [(labels, newest[labels[0]] - partition.frontier) for labels, partition in rows]
