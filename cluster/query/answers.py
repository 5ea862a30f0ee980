"""What the router answers with: objects, and what the answer rests on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ...shards.model.partitions import ShardId
from ...shards.model.versions import Version


@dataclass(frozen=True, slots=True)
class Provenance:
    """What an answer rests on."""

    frontier: Version
    """Everything up to this version is in the answer; of several partitions the oldest."""
    age_s: float | None
    """Seconds since the API server last proved the frontier; of several partitions the longest. None if a
    shard did not say."""
    shards: tuple[ShardId, ...]
    """Shards asked, sorted."""


@dataclass(frozen=True, slots=True)
class ObjectAnswer:
    """One object as the API server's JSON bytes."""

    body: bytes
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class CountAnswer:
    """How many objects match."""

    count: int
    provenance: Provenance


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
    rest: AsyncIterator[Sequence[bytes]] = field(default_factory=_no_chunks)
    complete: bool = True
    """Whether `first` is all: `rest` is then empty."""
    close: Callable[[], Awaitable[None]] = _nothing

    async def aclose(self) -> None:
        """Releases what shards keep for this list."""
        await self.close()
