"""A real installation on Ray and the embedded API server it follows, as tests ask them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psutil

from shoal.cluster.cli.comparison import Comparison, compare
from shoal.cluster.cli.server import Server
from shoal.cluster.gateway.status import InstallationStatus
from shoal.shards.model.errors import ShoalError

PATIENCE_S = 60.0


async def until(what: str, check: Callable[[], Awaitable[object]]) -> object:
    """Asks until the answer is true; errors of ours count as not yet. Fails with `what` after a minute."""
    problem: object = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    if answer := await check():
                        return answer
                except ShoalError as error:
                    problem = error
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what} ({problem})") from None


@dataclass(frozen=True)
class Running:
    """An installation and the API server it follows, both by URL."""

    shoal: str
    source: str

    async def status(self) -> InstallationStatus:
        async with Server(self.shoal) as server:
            return await server.status()

    async def ready(self) -> bool:
        return (await self.status()).ready

    async def comparison(self) -> Comparison:
        async with Server(self.shoal) as shoal, Server(self.source) as source:
            return await compare(shoal, source, await shoal.resource_types())

    async def equal(self) -> bool:
        return (await self.comparison()).equal

    async def pid_of(self, shard: str) -> int:
        statistics = (await self.status()).report.statistics().get(shard)
        if statistics is None:
            raise ShoalError(f"{shard} does not answer")
        return statistics.pid

    async def shard_of(self, partition: str) -> str:
        for shard, statistics in (await self.status()).report.statistics().items():
            if any(held.partition == partition for held in statistics.partitions):
                return shard
        raise ShoalError(f"nobody holds {partition}")


def process_of(actor: str) -> psutil.Process:
    """The process of the actor of that class; Ray names processes after what they run.

    Looked for below this process alone, which started Ray: another Ray on the machine has actors of that name as well.
    """
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith(f"ray::{actor}"):
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"no process of {actor} runs")
