"""What a registry exposes, as a test asks for it: `value` of one series, or `series` by their labels. And a client in a
world of its own, to be scraped.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from support.informing import World, in_world

from shoal.cluster.client.connect import Client
from shoal.cluster.informers.settings import InformerSettings

HERE = "the API server"


def observed(main: Callable[[World, Client, CollectorRegistry], Awaitable[None]], **informers: Any) -> None:
    """Runs `main` with a world, a client of it, and a registry; in virtual time."""

    async def run(world: World) -> None:
        settings = InformerSettings(**informers) if informers else None
        async with Client(world.connection, where=HERE, informers=settings, rng=random.Random(1)) as client:
            await main(world, client, CollectorRegistry())

    in_world(run)


class Scrape:
    """One scrape, read back from the text that Prometheus would get."""

    def __init__(self, source: CollectorRegistry | str) -> None:
        self.text = source if isinstance(source, str) else generate_latest(source).decode()
        self.families: list[Metric] = list(text_string_to_metric_families(self.text))
        found = [
            (sample.name, frozenset(sample.labels.items()))
            for metric in self.families
            for sample in metric.samples
        ]
        assert len(found) == len(set(found)), "a series is there twice"

    def series(self, name: str, /, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Other labels and values of the series with these."""
        return [
            ({key: text for key, text in sample.labels.items() if key not in labels}, sample.value)
            for metric in self.families
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def value(self, name: str, /, **labels: str) -> float | None:
        """Of the one series with these labels; None if there is none."""
        found = self.series(name, **labels)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def by(self, label: str, name: str, /, **labels: str) -> dict[str, float]:
        """Values by one label, without those that are 0."""
        return {others[label]: value for others, value in self.series(name, **labels) if value}

    @property
    def kinds(self) -> dict[str, str]:
        """Types by name, as the text declares them."""
        lines: list[Any] = [line.split() for line in self.text.splitlines() if line.startswith("# TYPE")]
        assert len({name for _, _, name, _ in lines}) == len(lines), "a family is declared twice"
        return {name: kind for _, _, name, kind in lines}
