"""``shoal status``: shards, partitions, what is waited for, and what is left out and why."""

from __future__ import annotations

import asyncio

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ...shards.model.errors import ShoalError
from ..gateway.status import InstallationStatus
from . import render
from .connecting import Target, server_options
from .follow import until_interrupted
from .output import console as make_console
from .server import Server

WATCH_S = 1.0


@click.command(short_help="Show what is followed, by which shards, and how fresh it is.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="json: all there is.",
)
@click.option("-w", "--watch", is_flag=True, help="Go on until interrupted.")
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Also empty partitions, and what is not followed and why."
)
@server_options
def status(*, output: str, watch: bool, everything: bool, server: Target) -> None:
    """Show what is followed, by which shards, how fresh it is, and what is waited for."""
    until_interrupted(_status(output=output, watch=watch, everything=everything, server=server))


async def _status(*, output: str, watch: bool, everything: bool, server: Target) -> None:
    async with Server(server) as shoal:
        if output == "json":
            await _print_json(shoal, watch=watch)
            return
        console = make_console()
        shown = overview(await shoal.status(), everything=everything)
        if not watch:
            console.print(shown)
        elif console.is_terminal:
            await _watch_on_terminal(shoal, console, shown, everything=everything)
        else:
            while True:
                console.print(shown)
                await asyncio.sleep(WATCH_S)
                shown = overview(await shoal.status(), everything=everything)


async def _watch_on_terminal(
    shoal: Server, console: Console, shown: RenderableType, *, everything: bool
) -> None:
    """Redraws the screen. An installation that is away for a moment is no reason to end."""
    with Live(shown, console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                shown = overview(await shoal.status(), everything=everything)
            except ShoalError as error:
                shown = Group(Text(str(error), style="red"), "", shown)
            live.update(shown, refresh=True)


async def _print_json(shoal: Server, *, watch: bool) -> None:
    while True:
        document = await shoal.fetch("/shoal/v1/status")
        # One line for each document when there are several, so that they can be told apart.
        click.echo(document.rstrip() if watch else msgspec.json.format(document))
        if not watch:
            return
        await asyncio.sleep(WATCH_S)


def overview(status: InstallationStatus, *, everything: bool = False) -> RenderableType:
    """The whole picture of one status document."""
    parts: list[RenderableType] = [_headline(status)]
    coordinator = status.report.coordinator
    parts += [Text(f"waiting: {sentence}", style="yellow") for sentence in _waits(status)]
    parts += (
        [Text(f"warning: {warning}", style="yellow") for warning in coordinator.warnings]
        if coordinator
        else []
    )
    parts += [Text(f"warning: {sentence}", style="yellow") for sentence in _divergence(status)]
    if len(status.report.gateways) > 1:
        parts.append(gateways_table(status))
    parts += [shards_table(status), partitions_table(status, everything=everything)]
    if everything and coordinator and coordinator.excluded:
        parts.append(render.titled_table("Not followed", ("Resource", "Why"), coordinator.excluded))
    return Group(*parts)


def _waits(status: InstallationStatus) -> list[str]:
    """Everything that is not as it should be, above the tables, where it is seen."""
    coordinator = status.report.coordinator
    if coordinator is None:
        return [status.report.coordinator_problem]
    away = coordinator.discovery.waiting_for
    return [
        *([status.cannot_review] if status.cannot_review else []),
        *([away] if away and away not in coordinator.waiting_for else []),
        *coordinator.waiting_for,
    ]


def _divergence(status: InstallationStatus) -> list[str]:
    """What audits have found, which should be nothing."""
    sentences = []
    for shard, statistics in status.report.statistics().items():
        for partition in statistics.partitions:
            if count := sum(partition.divergence.values()):
                kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(partition.divergence.items()))
                differed = "1 object" if count == 1 else f"{count} objects"
                sentences.append(
                    f"{partition.partition} on {shard} was not as the API server has it: {differed} ({kinds}); "
                    "each time it was listed again"
                )
    return sentences


def _headline(status: InstallationStatus) -> Text:
    ready = Text("ready", style="bold green") if status.ready else Text("not ready", style="bold yellow")
    coordinator = status.report.coordinator
    line = f", epoch {status.report.epoch}"
    if coordinator is None:
        return ready.append(line, style="not bold default")
    permits, discovery = coordinator.permits, coordinator.discovery
    line += (
        f", {len(coordinator.followed)} resources, {len(coordinator.partitions)} partitions, "
        f"lists {permits.held} of {permits.limit} permits ({permits.waiting} waiting), discovery {discovery.form}"
    )
    if discovery.succeeded_age_s is not None:
        line += f" {render.seconds(discovery.succeeded_age_s)} ago"
    return ready.append(line, style="not bold default")


def gateways_table(status: InstallationStatus) -> RenderableType:
    """One line for each gateway."""
    rows = [
        (
            gateway.gateway,
            render.state("failed" if gateway.problem else "running"),
            render.number(gateway.requests),
            render.number(gateway.watches),
            str(gateway.pid or ""),
            gateway.problem,
        )
        for gateway in status.report.gateways
    ]
    columns = ("Gateway", "State", ">Requests", ">Watches", ">PID", "Problem")
    return render.titled_table("Gateways", columns, rows)


def shards_table(status: InstallationStatus) -> RenderableType:
    """One line for each shard, from the coordinator's view and the shard's own."""
    seen = (
        {shard.shard: shard for shard in status.report.coordinator.shards}
        if status.report.coordinator
        else {}
    )
    rows = []
    for report in status.report.shards:
        view, own = seen.get(report.shard), report.statistics
        partitions = own.partitions if own else []
        rows.append(
            (
                report.shard,
                render.state(view.state if view else "unknown"),
                render.number(len(partitions)),
                render.number(sum(partition.objects for partition in partitions)),
                render.size(sum(partition.body_bytes for partition in partitions)),
                render.number(view.events_per_s if view else 0.0),
                render.number(sum(sum(partition.events.values()) for partition in partitions)),
                render.size(own.resident_bytes if own else 0),
                render.seconds(own.cpu_seconds if own else 0.0),
                str(own.pid if own else ""),
                report.problem,
            )
        )
    columns = (
        *("Shard", "State", ">Partitions", ">Objects", ">Bodies", ">Events/s", ">Events"),
        *(">RSS", ">CPU", ">PID", "Problem"),
    )
    return render.titled_table("Shards", columns, rows)


def partitions_table(
    status: InstallationStatus, *, everything: bool = False, most: int | None = None
) -> RenderableType:
    """One line for each partition that holds something or is not well; `most` keeps only the largest."""
    found = [
        (report.shard, partition)
        for report in status.report.shards
        if report.statistics is not None
        for partition in report.statistics.partitions
        if everything or partition.objects or partition.state != "synced"
    ]
    found.sort(key=lambda pair: (-pair[1].objects, pair[1].partition))
    rows = [
        (
            partition.partition,
            shard,
            render.state(partition.state),
            render.number(partition.objects),
            render.size(partition.body_bytes),
            render.number(sum(partition.events.values())),
            str(partition.frontier),
            render.seconds(partition.frontier_age_s),
            partition.message,
        )
        for shard, partition in found[:most]
    ]
    # A message a partition would be pages when the API server is away; the whole of it is for --all and JSON.
    message = "Message" if everything else "~Message"
    columns = ("Partition", "Shard", "State", ">Objects", ">Bodies", ">Events", ">Frontier", ">Age", message)
    cut = most is not None and len(found) > most
    return render.titled_table(
        f"Partitions (the {most} largest of {len(found)})" if cut else "Partitions", columns, rows
    )
