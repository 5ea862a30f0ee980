"""Controllers and candidates as Prometheus metrics; their queues' are in `workqueue.metrics`.

Everything is read when it is scraped. Elections have the name that Kubernetes' own components give them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .controller import Controller
from .leader import LeaderElector, LeaderStatistics
from .statistics import OUTCOMES, ControllerStatistics

_LABEL = ("controller",)
_GAUGES: tuple[tuple[str, str, Callable[[ControllerStatistics], float]], ...] = (
    ("shoal_controller_workers", "Reconciles that may be under way.", lambda found: found.workers),
    ("shoal_controller_active_workers", "Reconciles under way.", lambda found: found.active),
    (
        "shoal_controller_hung",
        "Reconciles that have been under way for too long.",
        lambda found: found.hung,
    ),
    ("shoal_controller_parked", "Items that are given up until they change.", lambda found: found.parked),
    (
        "shoal_controller_synced",
        "1 if its sources had everything and workers run.",
        lambda found: float(found.synced),
    ),
)
_COUNTERS: tuple[tuple[str, str, Callable[[ControllerStatistics], float]], ...] = (
    ("shoal_controller_reconciles_hung", "Reconciles that took too long.", lambda found: found.hung_total),
    ("shoal_controller_items_parked", "Times an item was given up.", lambda found: found.parked_total),
)
_LEADER_COUNTERS: tuple[tuple[str, str, Callable[[LeaderStatistics], float]], ...] = (
    ("shoal_leader_terms", "Times this candidate has become leader.", lambda found: found.terms),
    ("shoal_leader_renewals", "Times the lease was renewed.", lambda found: found.renewals),
    (
        "shoal_leader_failures",
        "Requests for the lease that failed, lost races included.",
        lambda found: found.failures,
    ),
    (
        "leader_election_slowpath",
        "Renewals that had to look at the record first.",
        lambda found: found.slow_paths,
    ),
)


class ControllerCollector(Collector):
    """Metric families of some controllers. Collect it from the thread of their event loop."""

    def __init__(self, controllers: Iterable[Controller]) -> None:
        """Raises ValueError: two of them have the same name."""
        self._controllers: dict[str, Controller] = {}
        for controller in controllers:
            if self._controllers.setdefault(controller.name, controller) is not controller:
                raise ValueError(
                    f"two controllers are called {controller.name!r}: give each a name of its own"
                )

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks it."""
        yield from controller_families(
            {name: controller.statistics() for name, controller in self._controllers.items()}
        )


class LeaderCollector(Collector):
    """Metric families of some candidates."""

    def __init__(self, electors: Iterable[LeaderElector]) -> None:
        self._electors = list(electors)

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks it."""
        yield from leader_families([elector.statistics() for elector in self._electors])


def controller_families(found: Mapping[str, ControllerStatistics]) -> Iterator[Metric]:
    """The metric families of controllers, by name."""
    ended = CounterMetricFamily(
        "shoal_controller_reconciles", "Reconciles by how they ended.", labels=(*_LABEL, "result")
    )
    seconds = HistogramMetricFamily(
        "shoal_controller_reconcile_seconds", "Seconds a reconcile took.", labels=_LABEL
    )
    for name, statistics in found.items():
        for outcome in OUTCOMES:
            ended.add_metric((name, outcome), statistics.outcomes.get(outcome, 0))
        distribution = statistics.reconcile_s
        seconds.add_metric((name,), buckets=distribution.cumulative(), sum_value=distribution.sum_s)
    yield ended
    yield seconds
    for metric, text, value in _GAUGES:
        gauge = GaugeMetricFamily(metric, text, labels=_LABEL)
        for name, statistics in found.items():
            gauge.add_metric((name,), value(statistics))
        yield gauge
    for metric, text, value in _COUNTERS:
        counter = CounterMetricFamily(metric, text, labels=_LABEL)
        for name, statistics in found.items():
            counter.add_metric((name,), value(statistics))
        yield counter


def leader_families(found: Sequence[LeaderStatistics]) -> Iterator[Metric]:
    """The metric families of candidates."""
    status = GaugeMetricFamily(
        "leader_election_master_status", "1 if this candidate leads.", labels=("name",)
    )
    for statistics in found:
        status.add_metric((statistics.lease,), float(statistics.leading))
    yield status
    for metric, text, value in _LEADER_COUNTERS:
        counter = CounterMetricFamily(metric, text, labels=("name",))
        for statistics in found:
            counter.add_metric((statistics.lease,), value(statistics))
        yield counter
