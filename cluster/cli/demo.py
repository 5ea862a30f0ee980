"""``shoal demo``: an embedded API server under churn, followed by shards on Ray, compared object by object."""

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
from ..gateway.server import bind, parse_listen
from ..gateway.status import InstallationStatus
from ..settings import ShoalSettings
from . import render
from .comparison import Comparison, compare
from .follow import synced, until_interrupted
from .guard import guarded
from .output import console as make_console
from .server import Server
from .status import partitions_table, shards_table

VIEW_S = 1.0
PARTITIONS_SHOWN = 12
SETTLE_S = 30.0
"""How long the shards may take, after the last change, to see it: a watch delivers within milliseconds."""


@click.command(short_help="Show Shoal on a made-up cluster under churn.")
@click.option(
    "--pods", type=click.IntRange(min=0), default=2000, show_default=True, help="Pods of the cluster."
)
@click.option(
    "--shards",
    type=click.IntRange(min=1, max=64),
    default=3,
    show_default=True,
    help="Shards to divide it over.",
)
@click.option(
    "--rate", type=click.FloatRange(min=0), default=100.0, show_default=True, help="Changes a second to make."
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds of changes; 0: until Ctrl-C.",
)
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="HOST:PORT",
    help="Of the gateway; port 0: a free one.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cluster and its changes.")
@click.pass_context
def demo(
    ctx: click.Context, *, pods: int, shards: int, rate: float, duration: float, listen: str, seed: int
) -> None:
    """Show Shoal on a made-up cluster: discovery, shards, live changes, and a comparison of every object.

    Ctrl-C ends the changes and compares; once more, and it ends at once.
    """
    bind(*parse_listen(listen)).close()
    settings = ShoalSettings(
        shards=shards, gateway=msgspec.structs.replace(ShoalSettings().gateway, listen=listen)
    )
    show = _Show(make_console(), rate=rate, duration=duration)
    ray_environment.prepare(starts_cluster=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(guarded())
        with show.console.status("starting Ray"):
            from ..bootstrap import bring_up, ray_cluster

            stack.enter_context(ray_cluster(settings))

        async def main() -> None:
            async with _api_server(pods, seed, show.console) as source:
                installation = await bring_up(settings, load_kubeconfig(str(source.kubeconfig)))
                async with Server(installation.url) as shoal, Server(source.url) as origin:
                    await show.run(shoal, origin)

        interruption = until_interrupted(main(), gently=show.enough)
    if interruption is not None:
        ctx.exit(128 + interruption)
    if show.outcome is None or not show.outcome.equal:
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
        arguments = (
            "--pods",
            str(pods),
            "--seed",
            str(seed),
            "--kubeconfig",
            str(kubeconfig),
            "--cluster-file",
            "recorded",
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "shoal", "apiserver", "--with-parent", *arguments,
            stdin=asyncio.subprocess.PIPE,  # never written to; it ends with this process, and the server with it
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C on the terminal is for this process to take care of
        )  # fmt: skip
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


class _Show:
    """What there is to see."""

    def __init__(self, console: Console, *, rate: float, duration: float) -> None:
        self.console = console
        self.outcome: Comparison | None = None
        """None until everything has been compared."""
        self._rate = rate
        self._duration = duration
        self._enough: asyncio.Event | None = None

    def enough(self) -> bool:
        """Ends the changes; False if there are none to end."""
        if self._enough is None or self._enough.is_set():
            return False
        self._enough.set()
        return True

    async def run(self, shoal: Server, origin: Server) -> None:
        """Waits for the initial sync, shows the changes, and compares."""
        self.console.print(f"Shoal answers at {shoal.url}; try: kubectl --server {shoal.url} get pods -A")
        await synced(shoal, self.console)
        await origin.put_json("/simulator/churn", {"rate": self._rate})
        await self._watch(shoal)
        await origin.put_json("/simulator/churn", {"rate": 0})
        with self.console.status("comparing every object with the API server's"):
            outcome = await _settled(shoal, origin)
            status = await shoal.status()
        _summary(self.console, status, outcome)
        self.outcome = outcome

    async def _watch(self, shoal: Server) -> None:
        """Redraws the tables until it is over; where nobody sees that, only waits."""
        self._enough = asyncio.Event()
        loop = asyncio.get_running_loop()
        end = loop.time() + self._duration if self._duration else float("inf")
        if not self.console.is_terminal:
            until = f"for {render.seconds(self._duration)}" if self._duration else "until interrupted"
            self.console.print(f"{self._rate:g} changes a second {until}")
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while (left := end - loop.time()) > 0 and not self._enough.is_set():
                if self.console.is_terminal:
                    live.update(_view(await shoal.status(), self._rate, left), refresh=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(VIEW_S, left)):
                        await self._enough.wait()


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
    # One that is on its way is held by two shards and served by one.
    different = {partition.partition for partition in partitions}
    console.print(f"partitions  {len(different)} of {outcome.resources} resources")
    console.print(f"objects     {outcome.objects:,}")
    console.print(f"events      {events:,}")
    console.print(f"compared    {verdict}")
