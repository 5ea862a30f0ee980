"""What the router answers with: objects or numbers, and what the answer rests on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...shards.model.partitions import PartitionId, ShardId
from ...shards.model.versions import Version, oldest


@dataclass(frozen=True, slots=True)
class Provenance:
    """What an answer rests on."""

    frontier: Version
    """Everything up to this version is in the answer; of several partitions the oldest."""
    age_s: float | None
    """Seconds since the API server last proved the frontier; of several partitions the longest. None if a
    shard did not say."""
    shards: tuple[ShardId, ...]
    """Shards that answered, sorted."""
    missing: tuple[ShardId, ...] = ()
    """Shards whose part is not in the answer, sorted: only where the caller said that a partial one will do."""
    missing_partitions: tuple[PartitionId, ...] = ()
    """The parts that are not in it, sorted."""

    @property
    def partial(self) -> bool:
        """Whether there may be more than the answer has."""
        return bool(self.missing_partitions)

    @classmethod
    def over(
        cls,
        parts: Iterable[tuple[ShardId, Version, float | None]],
        missing: Mapping[PartitionId, ShardId | None],
    ) -> Provenance:
        """Of an answer put together from `parts`, each a shard with the version and age it told, and without the
        partitions `missing`, each with the shard that has it, if one is known to.
        """
        told = list(parts)
        ages = [age for _, _, age in told]
        return cls(
            frontier=oldest(version for _, version, _ in told),
            age_s=None if None in ages else max((age for age in ages if age is not None), default=None),
            shards=tuple(sorted({shard for shard, _, _ in told})),
            missing=tuple(sorted({shard for shard in missing.values() if shard is not None})),
            missing_partitions=tuple(sorted(missing)),
        )


@dataclass(frozen=True, slots=True)
class ObjectAnswer:
    """One object as the API server's JSON bytes."""

    body: bytes
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class CountAnswer:
    """How many objects match, in all and by groups if asked."""

    count: int
    provenance: Provenance
    groups: Mapping[str, int] = field(default_factory=dict)
    """By value of the path grouped by, the largest first; objects without one count under the empty text."""

    @property
    def version(self) -> Version:
        """The version the count may claim: everything up to it is counted."""
        return self.provenance.frontier


async def _nothing() -> None:
    return


async def _no_chunks() -> AsyncIterator[Sequence[bytes]]:
    return
    yield


@dataclass(frozen=True, slots=True)
class Listing:
    """A list whose first objects are here; the others come as they are asked for, in order, of one state.

    Errors that concern the whole list were raised before there was a Listing; an error while iterating `rest`
    means that the list cannot be completed and must not be shown as if it were. `aclose` it always.
    """

    version: Version
    """``metadata.resourceVersion`` of the list."""
    first: Sequence[bytes]
    provenance: Provenance
    continue_token: str = ""
    """Empty on the last page, and on every list without limit."""
    remaining: int | None = None
    """Objects after this page; None where the API server does not say: on the last page, with selectors."""
    shard_selector: str = ""
    """``metadata.shardInfo.selector`` of the list: the ``shardSelector`` asked for, in canonical spelling."""
    positions: Mapping[PartitionId, Version] = field(default_factory=dict)
    """The version the objects of each partition are of: where a watch that begins with this list goes on."""
    rest: AsyncIterator[Sequence[bytes]] = field(default_factory=_no_chunks)
    complete: bool = True
    """Whether `first` is all: `rest` is then empty."""
    close: Callable[[], Awaitable[None]] = _nothing

    async def aclose(self) -> None:
        """Releases what shards keep for this list."""
        await self.close()
