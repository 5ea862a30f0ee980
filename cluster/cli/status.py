"""``shoal status``: shards, partitions, what is waited for, and what is left out and why."""

from __future__ import annotations

import asyncio
import sys

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ..gateway.status import InstallationStatus
from . import render
from .follow import until_interrupted
from .server import Server, server_option

WATCH_S = 1.0


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("-w", "--watch", is_flag=True, help="Go on until interrupted.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also empty partitions, and what is not followed and why.")
@server_option
def status(*, output: str, watch: bool, everything: bool, server: str) -> None:
    """Show what is followed, by which shards, and how fresh it is."""
    until_interrupted(_status(output=output, watch=watch, everything=everything, server=server))


async def _status(*, output: str, watch: bool, everything: bool, server: str) -> None:
    async with Server(server) as shoal:
        if output == "json":
            await _print_json(shoal, watch=watch)
            return
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
        shown = overview(await shoal.status(), everything=everything)
        if not watch:
            console.print(shown)
            return
        with Live(shown, console=console, auto_refresh=False, screen=sys.stdout.isatty()) as live:
            while True:
                await asyncio.sleep(WATCH_S)
                live.update(overview(await shoal.status(), everything=everything), refresh=True)


async def _print_json(shoal: Server, *, watch: bool) -> None:
    while True:
        document = await shoal.fetch("/shoal/v1/status")
        # One line for each document when there are several, so that they can be told apart.
        click.echo((document if watch else msgspec.json.format(document)).decode())
        if not watch:
            return
        await asyncio.sleep(WATCH_S)


def overview(status: InstallationStatus, *, everything: bool = False) -> RenderableType:
    """The whole picture of one status document."""
    parts: list[RenderableType] = [
        _headline(status),
        shards_table(status),
        partitions_table(status, everything=everything),
    ]
    coordinator = status.report.coordinator
    waits = list(coordinator.waiting_for + coordinator.warnings) if coordinator else []
    if status.report.coordinator_problem:
        waits.append(status.report.coordinator_problem)
    parts += [Text(f"waiting for: {sentence}", style="yellow") for sentence in waits]
    if everything and coordinator and coordinator.excluded:
        parts.append(render.titled_table("Not followed", ("Resource", "Why"), coordinator.excluded))
    return Group(*parts)


def _headline(status: InstallationStatus) -> Text:
    line = f"{'ready' if status.ready else 'not ready'}, epoch {status.report.epoch}"
    coordinator = status.report.coordinator
    if coordinator is None:
        return Text(line)
    permits, discovery = coordinator.permits, coordinator.discovery
    line += (
        f", {len(coordinator.followed)} resources, {len(coordinator.partitions)} partitions, "
        f"lists {permits.held} of {permits.limit} permits ({permits.waiting} waiting), discovery {discovery.form}"
    )
    if discovery.succeeded_age_s is not None:
        line += f" {render.seconds(discovery.succeeded_age_s)} ago"
    return Text(line)


def shards_table(status: InstallationStatus) -> RenderableType:
    """One line for each shard, from the coordinator's view and the shard's own."""
    seen = {shard.shard: shard for shard in status.report.coordinator.shards} if status.report.coordinator else {}
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
        "Shard", "State", ">Partitions", ">Objects", ">Bodies", ">Events/s", ">Events", ">RSS", ">CPU", ">PID", "Problem",
    )  # fmt: skip
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
    columns = ("Partition", "Shard", "State", ">Objects", ">Bodies", ">Events", ">Frontier", ">Age", "Message")
    cut = most is not None and len(found) > most
    return render.titled_table(f"Partitions (the {most} largest of {len(found)})" if cut else "Partitions", columns, rows)
