"""What happened before a watcher joined: the changes of its partitions since the positions it is at, in rounds.

Of a resource in one partition a round is the API server's own stream: every event in order (`ChangesQuery.exact`).
Where a resource is cut into several it is the newest state of each object that changed: the version a client brings
may have been shown of all of them, or of a late event, so it may know newer states than that. A watch of one of them,
which a namespace often is, is told these in the order of their versions. A watch of several obeys the order of what is
shown live (`lanes`):

1. All partitions are asked; each answers for the moment it is asked, up to its frontier. Let C be the newest of these.
2. All others are cleared to C. What arrives there from now on with a version up to C is late.
3. Those whose answer ended below C are asked again, from where it ended: for what arrived before they were cleared.
   They answer with the state as of C (`ChangesQuery.until`).
4. All answers are told together in the order of their versions; none of them tells of anything above C.

*Nothing above C, and nothing short of it.* An answer has an object once, in its newest state. Were a second answer cut
off at C after the fact, an object created below C and changed above it would be in neither half: missing from the
answer, and told live as MODIFIED by who has never been shown it. As of C it is ADDED below C, and MODIFIED live; so for
one that is deleted, or deleted and created again.

*No going back.* A client that comes back may have been shown states that this gateway's feeds have not told yet. But
no shard shows what it does not hold: the answers of step 1, asked for after the client came back, have for each object
its newest state or leave it as the client knows it. What a second answer tells of an object arrived after its first,
of the same partition: it is newer. What is told live is above the positions, as all that is told here is not.

*Positions.* Afterwards the watcher has been told everything of each partition up to the end of its first answer, or
of its second one as far as C. That may be below the version the watcher asked for; what is still to come from there is
late and must not be taken for known. A round of several partitions that breaks off is told anew from where it began:
no version within it is one up to which each object was told. An exact round is gone on with where it broke off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import Final, TypeAlias

from ...shards.handle import ShardHandle
from ...shards.model.errors import NotReady, NotServed, ShoalError
from ...shards.model.partitions import PartitionId, ShardId
from ...shards.model.queries import Change, ChangesPage, ChangesQuery
from ...shards.model.versions import UNKNOWN, Version
from ..query.directory import RETRY_AFTER_S, KnownShards
from ..query.gather import all_of
from ..query.routing import Routing
from .selection import Selector, Sight

Tell: TypeAlias = Callable[[Change], Awaitable[None]]
"""Takes one change; waits while the client does not."""

Clear: TypeAlias = Callable[[Sequence[PartitionId], Version], Awaitable[None]]
"""Has partitions cleared to a version (`Hub.clear`)."""

WAIT_S: Final = 3.0
"""How long a shard waits for a version that is still to come before it says so; then it is asked again."""
PAGES_BYTES: Final = 4 << 20
"""Bodies buffered for one replay, over all its partitions."""
PAGE_BYTES_MIN: Final = 128 << 10


@dataclass(frozen=True, slots=True)
class Asking:
    """How shards are asked."""

    routing: Routing
    shards: KnownShards
    timeout_s: float


class ChangesCursor:
    """The changes of one partition, page by page."""

    def __init__(self, asking: Asking, query: ChangesQuery) -> None:
        self.partition = query.partition
        self._asking = asking
        self._query = query
        self._pages: AsyncIterator[ChangesPage] | None = None
        self._shard = ShardId("")
        self.frontier = UNKNOWN
        """Of the whole answer; known after the first page."""
        self.buffered: Iterator[Change] = iter(())
        self.more = True

    async def next(self) -> None:
        """Buffers the next page. Raises as `ShardHandle.changes`."""
        if not self._shard:
            index = self._asking.routing.index
            route = index.route(self._query.partition)
            if route is None:
                raise NotServed(self._query.partition, index.epoch)
            self._shard = route.shard
        try:
            page = await self._asking.shards.ask(self._shard, self._page, self._asking.timeout_s + WAIT_S)
        except StopAsyncIteration:
            raise NotReady(
                f"shard {self._shard} ended the changes of {self._query.partition} early",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        self.frontier, self.more = page.frontier, page.more
        self.buffered = iter(page.changes)

    def _page(self, handle: ShardHandle) -> Awaitable[ChangesPage]:
        if self._pages is None:
            self._pages = handle.changes(self._query)
        return anext(self._pages)

    async def change(self) -> Change | None:
        """The next change; None after the last."""
        while True:
            change = next(self.buffered, None)
            if change is not None or not self.more:
                return change
            await self.next()

    async def aclose(self) -> None:
        """Lets the shard forget the answer."""
        close = getattr(self._pages, "aclose", None)
        if close is not None:
            try:
                await close()
            except ShoalError:
                return


async def _merged(cursors: Iterable[ChangesCursor]) -> AsyncIterator[Change]:
    """The changes of all in the order of their versions."""
    heap: list[tuple[Version, int, Change, ChangesCursor]] = []
    for number, cursor in enumerate(cursors):
        change = await cursor.change()
        if change is not None:
            heappush(heap, (change.version, number, change, cursor))
    while heap:
        _, number, change, cursor = heap[0]
        yield change
        following = await cursor.change()
        if following is None:
            heappop(heap)
        else:
            heapreplace(heap, (following.version, number, following, cursor))


class Replay:
    """What one watcher is told before it is live."""

    def __init__(
        self, asking: Asking, selector: Selector, positions: Mapping[PartitionId, Version], *, exact: bool
    ) -> None:
        self.positions = dict(positions)
        """What it has been told of each partition."""
        self._exact = exact
        """The resource is in one partition."""
        self._asking = asking
        self._selector = selector

    async def round(self, clear: Clear, tell: Tell) -> None:
        """Tells what has happened.

        Raises:
            Expired, TooLargeVersion, NotServed, NotReady: as `ShardHandle.changes`, and what `clear` raises.
        """
        answers = [self._cursor(name, since) for name, since in self.positions.items()]
        opened = list(answers)
        ceiling: Version | None = None
        complete = last = UNKNOWN
        try:
            await all_of([answer.next() for answer in answers])
            if len(answers) > 1:
                ceiling = max(answer.frontier for answer in answers)
                behind = [answer for answer in answers if answer.frontier < ceiling]
                if behind:
                    await clear([answer.partition for answer in behind], ceiling)
                seconds = [
                    self._cursor(answer.partition, answer.frontier, until=ceiling) for answer in behind
                ]
                opened += seconds
                await all_of([answer.next() for answer in seconds])
            async for change in _merged(opened):
                if change.version > last:
                    complete, last = last, change.version
                await tell(change)
        except BaseException:
            if complete and self._exact:
                self._reach(opened, complete)
            raise
        else:
            self._reach(opened, ceiling)
        finally:
            for answer in opened:
                await answer.aclose()

    def told(self, sights: Iterable[Sight]) -> None:
        """These events of feeds, in order, were told after the last round: another one need not tell them again.

        A lane of several partitions may give out the events of one version one after the other, so the last may lack.
        """
        short = len(self.positions) > 1
        for event, _, _ in sights:
            self.positions[event.partition] = max(
                self.positions[event.partition], Version(event.version - short)
            )

    def _reach(self, answers: Iterable[ChangesCursor], ceiling: Version | None) -> None:
        """Everything up to `ceiling` was told of all answers; a partition's second answer goes on from its first."""
        for answer in answers:
            reached = answer.frontier
            self.positions[answer.partition] = reached if ceiling is None else min(reached, ceiling)

    def _cursor(
        self, partition: PartitionId, since: Version, *, until: Version | None = None
    ) -> ChangesCursor:
        selector = self._selector
        query = ChangesQuery(
            partition=partition,
            epoch=self._asking.routing.table.epoch,
            since=since,
            namespace=selector.namespace,
            labels=selector.labels,
            fields=selector.fields,
            shards=selector.shards,
            exact=self._exact,
            alone=len(self.positions) == 1,
            until=until,
            max_bytes=max(PAGE_BYTES_MIN, PAGES_BYTES // len(self.positions)),
            wait_s=WAIT_S,
        )
        return ChangesCursor(self._asking, query)
