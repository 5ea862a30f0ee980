"""What is done to a running Shoal by hand: ``shoal explain``, ``rebalance``, ``move``, ``split``, ``drain``, ``unpin``.

All of it goes over the gateway to the coordinator, which checks it, says what will come of it, and does it in its own
time: `shoal explain` and `shoal status` show how far it is.
"""

from __future__ import annotations

import asyncio

import click
import msgspec

from ...coordinator.commands import Drain, Move, Order, Rebalance, Split, Undrain, Unpin
from ...shards.model.errors import Garbage
from ...shards.model.partitions import PartitionId, ShardId
from ..gateway.operating import EXPLAIN, ORDERS, Taken
from .connecting import Target, server_options
from .server import Server, resolve

_SHARD = "shard-"


@click.command(short_help="Tell why things are where they are, and what would move them.")
@click.argument("about", required=False, default="")
@server_options
def explain(*, about: str, server: Target) -> None:
    """Tell why shards, cuts and places are as they are, and what would change them.

    ABOUT is a resource (pods, v1/pods), a partition (v1/pods[kube-system]) or a shard (shard-1); without it, the whole
    installation.
    """
    asyncio.run(_explain(about, server))


async def _explain(about: str, server: Target) -> None:
    async with Server(server) as shoal:
        name = await _named(shoal, about)
        text = await shoal.fetch(EXPLAIN, (("about", name),) if name else (), accept="text/plain")
        click.echo(text.decode(errors="replace").rstrip("\n"))


async def _named(shoal: Server, word: str) -> str:
    """What somebody means: ids and shards as they are, anything else as kubectl would take it."""
    if not word or "/" in word or word.startswith(_SHARD):
        return word
    name, bracket, cover = word.partition("[")
    return f"{resolve(name, await shoal.resource_types()).resource}{bracket}{cover}"


@click.command(short_help="Balance the shards now, or show what that would do.")
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
@server_options
def rebalance(*, dry_run: bool, server: Target) -> None:
    """Balance the shards now: waiting for nothing to last or to rest, and with everything unpinned that was ordered by
    hand. Drained shards stay drained.
    """
    asyncio.run(_order(Rebalance(dry_run=dry_run), server))


@click.command(short_help="Move a partition to a shard, and keep it there.")
@click.argument("partition")
@click.argument("shard")
@server_options
def move(*, partition: str, shard: str, server: Target) -> None:
    """Move PARTITION (v1/pods, v1/pods[kube-system]) to SHARD (shard-1), and keep it there until `shoal unpin` or
    `shoal rebalance`.
    """

    async def order() -> None:
        async with Server(server) as shoal:
            name = await _named(shoal, partition)
            _print(await _sent(shoal, Move(PartitionId(name), ShardId(shard))))

    asyncio.run(order())


@click.command(short_help="Cut a resource or a partition, and keep it so.")
@click.argument("target")
@click.option(
    "-n", "--namespace", "namespaces", multiple=True, help="Carve this namespace out; may be given again."
)
@click.option("--ranges", type=click.IntRange(2, 256), help="Cut into so many ranges of hashes.")
@click.option(
    "--field",
    type=click.Choice(["uid", "namespace"]),
    default="uid",
    show_default=True,
    help="What the ranges are of.",
)
@click.option("--merge", is_flag=True, help="Undo what made TARGET.")
@server_options
def split(
    *, target: str, namespaces: tuple[str, ...], ranges: int | None, field: str, merge: bool, server: Target
) -> None:
    """Cut TARGET, a resource (pods, v1/pods) or one of its partitions, and keep it so until `shoal unpin` or `shoal
    rebalance`: --namespace carves namespaces out, --ranges makes ranges of hashes, --merge takes either back.
    """
    if bool(namespaces) + (ranges is not None) + merge != 1:
        raise click.UsageError("expected one of --namespace, --ranges and --merge")

    async def order() -> None:
        async with Server(server) as shoal:
            wanted = Split(
                target=await _named(shoal, target),
                carve=namespaces,
                ranges=ranges or 0,
                field="namespace" if field == "namespace" else "uid",
                merge=merge,
            )
            _print(await _sent(shoal, wanted))

    asyncio.run(order())


@click.command(short_help="Empty a shard, and let nothing onto it.")
@click.argument("shard")
@click.option("--undo", is_flag=True, help="Let it have partitions again.")
@server_options
def drain(*, shard: str, undo: bool, server: Target) -> None:
    """Let everything leave SHARD (shard-1), and nothing come to it, until --undo."""
    name = ShardId(shard)
    asyncio.run(_order(Undrain(name) if undo else Drain(name), server))


@click.command(short_help="Leave what was moved or split by hand to load again.")
@click.argument("target")
@server_options
def unpin(*, target: str, server: Target) -> None:
    """Let load decide again about TARGET, a partition that was moved or a resource that was split by hand."""

    async def order() -> None:
        async with Server(server) as shoal:
            _print(await _sent(shoal, Unpin(await _named(shoal, target))))

    asyncio.run(order())


async def _order(order: Order, server: Target) -> None:
    async with Server(server) as shoal:
        _print(await _sent(shoal, order))


async def _sent(shoal: Server, order: Order) -> tuple[str, ...]:
    body = await shoal.post_json(ORDERS, order)
    try:
        return msgspec.json.decode(body, type=Taken).lines
    except msgspec.DecodeError as error:
        raise Garbage(f"{shoal.url} is not a Shoal of this version: {error}") from error


def _print(lines: tuple[str, ...]) -> None:
    for line in lines:
        click.echo(line)
