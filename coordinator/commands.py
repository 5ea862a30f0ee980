"""What people may order by hand: plain values, as `CoordinatorHandle.order` takes them. Pure.

What an order does, and when it is refused, is said in `coordinator.ordering`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ..shards.model.partitions import PartitionId, ShardId

RANGES_MAX = 256


class Move(msgspec.Struct, frozen=True, tag="move"):
    """A partition goes to a shard and stays there, whatever planning says, until `Unpin` or `Rebalance`."""

    partition: PartitionId
    shard: ShardId


class Split(msgspec.Struct, frozen=True, kw_only=True, tag="split"):
    """A resource, or one of its partitions, is cut, and stays so until `Unpin` or `Rebalance`. One of the three."""

    target: str
    """``v1/pods`` or the id of a partition, such as ``v1/pods[big]``."""
    carve: tuple[str, ...] = ()
    """Namespaces that get a partition each."""
    ranges: Annotated[int, Meta(ge=0, le=RANGES_MAX)] = 0
    """Ranges of hashes of equal width that take the place of the target; 0: none."""
    field: Literal["uid", "namespace"] = "uid"
    """What the ranges are of."""
    merge: bool = False
    """What the target was made by is taken back: of a carved namespace the carving, of a range all the ranges, of a
    resource everything that the settings do not carve."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Everything leaves a shard and nothing comes to it. Then it ends; another is started in its place if there are to
    be as many as before.
    """

    shard: ShardId


class Undrain(msgspec.Struct, frozen=True, tag="undrain"):
    """A shard that is being drained, and has not ended yet, may have partitions again."""

    shard: ShardId


class Unpin(msgspec.Struct, frozen=True, tag="unpin"):
    """Planning decides again about a partition, or about the cut of a resource."""

    target: str


class Rebalance(msgspec.Struct, frozen=True, tag="rebalance"):
    """Planning decides about everything again, at once and without waiting for anything to last."""

    dry_run: bool = False
    """Only say what it would be."""


Order: TypeAlias = Move | Split | Drain | Undrain | Unpin | Rebalance
