"""Partitions on their way here from other shards: pulled, joined, and then followed without a list.

A `Reception` is one attempt at one partition. It asks each source how far it is; all of them export a state that is as
new as the newest of these, so that their pasts overlap; what comes is unpacked piece by piece, so that nothing is ever
here twice; and when all is here it becomes a store, whose reflector begins with a watch. Exports of different sources
come at the same time. A source in this very shard is taken by reference.

What it keeps true: it ends. Each piece has a deadline, and all of it as well; whatever fails is its end, in state
"stranded" with the reason, holding nothing. It is not tried again by itself: who gave the sources knows whether they
are still the right ones. Until it is complete nothing of it is served.

Neighbours: `store.transfer` knows what pieces are made of, `shard` what is held here, `wire.client` how pieces come;
`receptions` are all of one shard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal, Protocol, TypeVar

from .handle import Assignment, ShardHandle
from .model.errors import NotReady, ShoalError
from .model.partitions import Epoch, PartitionId, ShardId
from .model.queries import CountQuery, FeedBatch, FeedQuery, PartitionCount, PartitionStatistics
from .model.transfers import ExportPiece, ExportQuery, Source, Sources
from .model.versions import UNKNOWN, Version
from .settings import StoreSettings, TransferSettings
from .store.bodies import BodyCodec
from .store.objects import PartitionStore
from .store.transfer import Arrival, Extract, join

log = logging.getLogger("shoal.shards.receiving")

EXPORT_WAIT_S = 3.0
"""How long a source may take to be as new as the others: a proof of its frontier takes about a second."""

T = TypeVar("T")


class Receiver(Protocol):
    """The shard that receives, which may be a source itself."""

    @property
    def shard_id(self) -> ShardId:
        """Its name."""

    @property
    def epoch(self) -> Epoch:
        """The newest it has heard of."""

    async def count(self, query: CountQuery) -> PartitionCount:
        """As `ShardHandle.count`."""

    async def extract(self, query: ExportQuery) -> Extract:
        """What it holds itself, by reference. Raises as `ShardHandle.export`."""

    def feed(self, query: FeedQuery) -> AsyncIterator[FeedBatch]:
        """As `ShardHandle.feed`."""


class Reception:
    """One attempt to receive one partition. Belongs to the event loop it was made on."""

    def __init__(
        self,
        assignment: Assignment,
        sources: Sources,
        *,
        receiver: Receiver,
        peers: Callable[[ShardId], ShardHandle],
        slots: asyncio.Semaphore,
        settings: TransferSettings,
        install: Callable[[Reception, Extract], Awaitable[None]],
        ended: Callable[[], Awaitable[None]],
    ) -> None:
        """`install` makes a followed partition of what came; `ended` is called when all is over, however."""
        self.assignment = assignment
        self.sources = tuple(sources)
        self.state: Literal["arriving", "stranded"] = "arriving"
        self.reason = ""
        """Why it is stranded."""
        self.objects = 0
        """That have come so far."""
        self.bytes = 0
        """That have come so far from other processes."""
        self._expected: dict[Source, int] = {}
        self._waiting = True
        self._receiver = receiver
        self._peers = peers
        self._slots = slots
        self._settings = settings
        self._install = install
        self._ended = ended
        self._task = asyncio.get_running_loop().create_task(
            self._receive(), name=f"receive {assignment.partition.id}"
        )

    @property
    def partition(self) -> PartitionId:
        """What is received."""
        return self.assignment.partition.id

    @property
    def source_shards(self) -> tuple[ShardId, ...]:
        """Where from, each once, in order."""
        return tuple(dict.fromkeys(source.shard for source in self.sources))

    @property
    def message(self) -> str:
        """For people: how far it is, or why it came to nothing."""
        if self.state == "stranded":
            return self.reason
        where = ", ".join(self.source_shards)
        if self._waiting:
            return f"waits until other partitions have been received, then comes from {where}"
        sizes = list(self._expected.values())
        expected = f" of {sum(sizes)}" if len(sizes) == len(self.sources) else ""
        return f"is received from {where}: {self.objects}{expected} objects"

    def refusal(self) -> NotReady:
        """What whoever asks for the partition is told."""
        if self.state == "stranded":
            return NotReady(f"{self.partition} could not be received: {self.reason}", retry_after_s=1)
        return NotReady(f"{self.partition} is not here yet: it {self.message}", retry_after_s=1)

    def statistics(self, epoch: Epoch) -> PartitionStatistics:
        """Now. May be called from another thread: it only reads."""
        return PartitionStatistics(
            partition=self.partition,
            epoch=epoch,
            state=self.state,
            message=self.message,
            source_shards=self.source_shards,
            transferred_objects=self.objects,
            transferred_bytes=self.bytes,
        )

    async def stop(self) -> None:
        """Gives it up; what has come is forgotten. Safe to repeat."""
        self._task.cancel()
        await asyncio.wait([self._task])

    # -- receiving -------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        try:
            async with self._slots:
                self._waiting = False
                async with asyncio.timeout(self._settings.receive_timeout_s):
                    await self._install(self, await self._joined())
        except TimeoutError:
            self._strand(f"it was not complete within {self._settings.receive_timeout_s:g} s")
        except ShoalError as error:
            self._strand(error.message)
        except Exception as error:
            log.exception("reception failed", extra={"partition": self.partition})
            self._strand(f"{type(error).__name__}: {error}")
        finally:
            await self._ended()

    def _strand(self, reason: str) -> None:
        self.state, self.reason = "stranded", reason
        extra = {"partition": self.partition, "shards": ",".join(self.source_shards), "reason": reason}
        log.warning("partition not received", extra=extra)

    async def _joined(self) -> Extract:
        """All that the sources have, as one."""
        newest = UNKNOWN
        if len(self.sources) > 1:
            newest = max(await _together("frontier", [self._frontier(source) for source in self.sources]))
        came = await _together("extract", [self._extract(source, newest) for source in self.sources])
        now = asyncio.get_running_loop().time()
        # Times in an extract are as they were when it was captured.
        aged = [extract.aged(now - at) for extract, at in came]
        return join(aged, self.assignment.partition.cover)

    async def _frontier(self, source: Source) -> Version:
        query = CountQuery(partition=source.partition, epoch=self._receiver.epoch)
        asked = self._receiver if source.shard == self._receiver.shard_id else self._peer(source)
        count = await self._in_time(asked.count(query), source, self._settings.piece_timeout_s)
        return count.version

    async def _extract(self, source: Source, not_older_than: Version) -> tuple[Extract, float]:
        """What a source has, and when it was captured."""
        settings, now = self._settings, asyncio.get_running_loop().time
        query = ExportQuery(
            partition=source.partition,
            epoch=self._receiver.epoch,
            cover=str(self.assignment.partition.cover),
            selectable_fields=self.assignment.resource_type.selectable_fields,
            redact=self.assignment.redact,
            not_older_than=not_older_than,
            wait_s=EXPORT_WAIT_S,
            max_bytes=settings.piece_bytes,
        )
        patience_s = settings.piece_timeout_s + EXPORT_WAIT_S
        if source.shard == self._receiver.shard_id:
            own = await self._in_time(self._receiver.extract(query), source, patience_s)
            self._expected[source] = len(own)
            self.objects += len(own)
            return own, now()
        arrival = Arrival()
        captured_at: float | None = None
        async with AsyncExitStack() as exit_stack:
            pieces = self._peer(source).export(query)
            exit_stack.push_async_callback(_close, pieces)
            while (piece := await self._in_time(_next(pieces), source, patience_s)) is not None:
                patience_s = settings.piece_timeout_s
                captured_at = now() if captured_at is None else captured_at
                self._expected[source] = piece.objects
                self.bytes += len(piece.data)
                before = len(arrival)
                arrival.take(piece.data)
                self.objects += len(arrival) - before
                # A source that is fast must not keep everybody else here waiting.
                await asyncio.sleep(0)
        return arrival.finish(), now() if captured_at is None else captured_at

    def _peer(self, source: Source) -> ShardHandle:
        try:
            return self._peers(source.shard)
        except ShoalError as error:
            raise _about(source, error) from None

    async def _in_time(self, call: Awaitable[T], source: Source, timeout_s: float) -> T:
        """What a source answers.

        Raises:
            NotReady: it did not within `timeout_s`.
            ShoalError: what it raised.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await call
        except TimeoutError:
            nothing = NotReady(f"nothing came for {timeout_s:g} s", retry_after_s=1)
            raise _about(source, nothing) from None
        except ShoalError as error:
            raise _about(source, error) from None


def _about(source: Source, error: ShoalError) -> ShoalError:
    error.message = f"{source.partition} from {source.shard}: {error.message}"
    return error


async def restored(
    assignment: Assignment, extract: Extract, settings: StoreSettings, codec: BodyCodec
) -> PartitionStore:
    """A partition of its own, made of what came."""
    store = PartitionStore(
        assignment.partition,
        assignment.resource_type,
        settings=settings,
        clock=asyncio.get_running_loop().time,
        codec=codec,
    )
    await in_turns(store.restoring(extract))
    return store


async def in_turns(steps: Generator[None, None, T]) -> T:
    """The result of long work in steps; between two of them everybody else gets their turn."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(0)


async def _next(pieces: AsyncIterator[ExportPiece]) -> ExportPiece | None:
    return await anext(pieces, None)


async def _close(pieces: AsyncIterator[ExportPiece]) -> None:
    """Lets the source forget what it keeps for this."""
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()


async def _together(what: str, calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results; the first failure ends the others."""
    tasks = [asyncio.create_task(call, name=f"{what} {number}") for number, call in enumerate(calls)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        left = [task for task in tasks if task.cancel()]
        if left:
            await asyncio.wait(left)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return [task.result() for task in tasks]
