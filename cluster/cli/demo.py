"""``shoal demo``: an embedded API server under churn, followed by shards on Ray, compared object by object at the end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ...shards.api.kubeconfig import load_kubeconfig
from ...shards.model.errors import ShoalError
from .. import ray_environment
from ..gateway.status import InstallationStatus
from ..settings import ShoalSettings
from . import render
from .comparison import Comparison, compare
from .follow import synced, until_interrupted
from .server import Server
from .status import partitions_table, shards_table

VIEW_S = 1.0
PARTITIONS_SHOWN = 12
SETTLE_S = 30.0
"""How long the shards may take, after the last change, to see it: a watch delivers within milliseconds."""


@click.command()
@click.option("--pods", type=click.IntRange(min=0), default=2000, show_default=True, help="Pods of the cluster.")
@click.option("--shards", type=click.IntRange(min=1, max=64), default=3, show_default=True)
@click.option("--rate", type=click.FloatRange(min=0), default=100.0, show_default=True, help="Changes a second.")
@click.option("--duration", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Seconds of churn; 0: until Ctrl-C.")
@click.option("--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Of the gateway.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cluster and its changes.")
def demo(*, pods: int, shards: int, rate: float, duration: float, listen: str, seed: int) -> None:
    """Show Shoal on an embedded cluster: discovery, shards, churn, and a comparison of every object."""
    ray_environment.prepare(starts_cluster=True)
    from ..bootstrap import bring_up, ray_cluster, take_down

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    settings = ShoalSettings(
        shards=shards, gateway=msgspec.structs.replace(ShoalSettings().gateway, listen=listen)
    )
    outcome: list[Comparison] = []

    async def main() -> None:
        async with _api_server(pods, seed, console) as source:
            try:
                installation = await bring_up(settings, load_kubeconfig(str(source.kubeconfig)))
                async with Server(installation.url) as shoal, Server(source.url) as origin:
                    outcome.append(await _show(shoal, origin, console, rate=rate, duration=duration))
            finally:
                await take_down()

    with contextlib.ExitStack() as stack:
        with console.status("starting Ray"):
            stack.enter_context(ray_cluster(settings))
        until_interrupted(main())
    if outcome and not outcome[0].equal:
        raise ShoalError("the shards do not hold what the API server holds; see the lines above")


@dataclass(frozen=True, slots=True)
class _Source:
    """The embedded API server's process."""

    url: str
    kubeconfig: Path


@contextlib.asynccontextmanager
async def _api_server(pods: int, seed: int, console: Console) -> AsyncIterator[_Source]:
    """Runs ``shoal apiserver`` in a process of its own while the context is open."""
    with tempfile.TemporaryDirectory(prefix="shoal-demo-") as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        arguments = ("--pods", str(pods), "--seed", str(seed), "--kubeconfig", str(kubeconfig), "--cluster-file", "recorded")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "shoal", "apiserver", *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            with console.status(f"making a cluster of {pods} pods"):
                line = await process.stdout.readline()
            if not line:
                raise ShoalError(f"the embedded API server ended with code {await process.wait()}")
            ready = msgspec.json.decode(line)
            console.print(f"embedded API server with {ready['objects']:,} objects at {ready['url']}")
            yield _Source(ready["url"], kubeconfig)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _show(shoal: Server, origin: Server, console: Console, *, rate: float, duration: float) -> Comparison:
    console.print(f"Shoal answers at {shoal.url}; try: kubectl --server {shoal.url} get pods -A")
    await synced(shoal, console)
    await origin.put_json("/simulator/churn", {"rate": rate})
    loop = asyncio.get_running_loop()
    end = loop.time() + duration if duration else float("inf")
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while (left := end - loop.time()) > 0:
                live.update(_view(await shoal.status(), rate, left), refresh=True)
                await asyncio.sleep(min(VIEW_S, left))
    finally:
        await origin.put_json("/simulator/churn", {"rate": 0})
    outcome = await _settled(shoal, origin)
    status = await shoal.status()
    _summary(console, status, outcome)
    return outcome


def _view(status: InstallationStatus, rate: float, left: float) -> Group:
    remaining = f", {render.seconds(left)} left" if left != float("inf") else "; Ctrl-C ends it"
    return Group(
        Text(f"{rate:g} changes a second{remaining}", style="bold"),
        shards_table(status),
        partitions_table(status, most=PARTITIONS_SHOWN),
    )


async def _settled(shoal: Server, origin: Server) -> Comparison:
    """Compares until equal, for as long as the last changes may be on their way."""
    types = await shoal.resource_types()
    loop = asyncio.get_running_loop()
    end = loop.time() + SETTLE_S
    while True:
        outcome = await compare(shoal, origin, types)
        if outcome.equal or loop.time() > end:
            return outcome
        await asyncio.sleep(0.2)


def _summary(console: Console, status: InstallationStatus, outcome: Comparison) -> None:
    console.print(shards_table(status))
    console.print(partitions_table(status, most=PARTITIONS_SHOWN))
    shards = [report.statistics for report in status.report.shards if report.statistics is not None]
    partitions = [partition for shard in shards for partition in shard.partitions]
    events = sum(sum(partition.events.values()) for partition in partitions)
    for difference in outcome.differences:
        console.print(f"differs: {difference}", markup=False)
    verdict = (
        "every object equals the API server's (uid and version compared)"
        if outcome.equal
        else f"{len(outcome.differences)} differences"
    )
    console.print(f"shards      {len(shards)}")
    console.print(f"partitions  {len(partitions)} of {outcome.resources} resources")
    console.print(f"objects     {outcome.objects:,}")
    console.print(f"events      {events:,}")
    console.print(f"compared    {verdict}")
