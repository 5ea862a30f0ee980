"""Queues as Prometheus metrics, under the names that client-go's have, so that known dashboards and alerts work.

`QueueCollector` reads a queue's statistics when it is scraped and costs a queue nothing in between. Depth has the
label ``priority`` beside ``name``, as controller-runtime's. Collect it from the thread of the queues' event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .queue import WorkQueue
from .statistics import Distribution, QueueStatistics

_NAME = ("name",)
_GAUGES: tuple[tuple[str, str, Callable[[QueueStatistics], float]], ...] = (
    (
        "workqueue_unfinished_work_seconds",
        "Seconds that the items being worked on have taken so far, together.",
        lambda found: found.unfinished_work_s,
    ),
    (
        "workqueue_longest_running_processor_seconds",
        "Seconds that the item taken first of those being worked on has taken so far.",
        lambda found: found.longest_running_s,
    ),
)
_COUNTERS: tuple[tuple[str, str, Callable[[QueueStatistics], float]], ...] = (
    ("workqueue_adds", "Items that came into the queue.", lambda found: found.adds),
    ("workqueue_retries", "Items added after a delay or rate-limited.", lambda found: found.retries),
)
_HISTOGRAMS: tuple[tuple[str, str, Callable[[QueueStatistics], Distribution]], ...] = (
    (
        "workqueue_queue_duration_seconds",
        "Seconds from the add until an item was taken.",
        lambda found: found.queue_s,
    ),
    (
        "workqueue_work_duration_seconds",
        "Seconds from there until it was done.",
        lambda found: found.work_s,
    ),
)


class QueueCollector(Collector):
    """Metric families of the queues it was given. Two queues of one name are one set of series too many: name them."""

    def __init__(self, queues: Iterable[WorkQueue[Any]] = ()) -> None:
        self._queues: dict[str, WorkQueue[Any]] = {}
        for queue in queues:
            self.add(queue)

    def add(self, queue: WorkQueue[Any]) -> None:
        """From now on the queue is told of; one that is shut down gives its name to a new one.

        Raises:
            ValueError: it has no name, or another queue in use has it.
        """
        if not queue.name:
            raise ValueError("a queue without a name cannot have metrics: WorkQueue(name)")
        known = self._queues.get(queue.name)
        if known is not None and known is not queue and not known.shutting_down:
            raise ValueError(f"another queue is called {queue.name!r}: give each a name of its own")
        self._queues[queue.name] = queue

    def remove(self, queue: WorkQueue[Any]) -> None:
        """The queue is told of no longer."""
        if self._queues.get(queue.name) is queue:
            del self._queues[queue.name]

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks it."""
        yield from queue_families({name: queue.statistics() for name, queue in self._queues.items()})


def queue_families(found: Mapping[str, QueueStatistics]) -> Iterator[Metric]:
    """The metric families of queues, by name."""
    depth = GaugeMetricFamily(
        "workqueue_depth", "Items to be worked on, by priority.", labels=(*_NAME, "priority")
    )
    for name, statistics in found.items():
        # A queue that is empty is at 0, not away.
        for priority, items in ({0: 0} | dict(statistics.depth)).items():
            depth.add_metric((name, str(priority)), items)
    yield depth
    for metric, text, value in _GAUGES:
        gauge = GaugeMetricFamily(metric, text, labels=_NAME)
        for name, statistics in found.items():
            gauge.add_metric((name,), value(statistics))
        yield gauge
    for metric, text, value in _COUNTERS:
        counter = CounterMetricFamily(metric, text, labels=_NAME)
        for name, statistics in found.items():
            counter.add_metric((name,), value(statistics))
        yield counter
    for metric, text, observed in _HISTOGRAMS:
        histogram = HistogramMetricFamily(metric, text, labels=_NAME)
        for name, statistics in found.items():
            distribution = observed(statistics)
            histogram.add_metric((name,), buckets=distribution.cumulative(), sum_value=distribution.sum_s)
        yield histogram
