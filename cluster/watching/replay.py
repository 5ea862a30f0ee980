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

*Names that move.* Ranges of uid are cleared by their frontiers, and have to have reached the version asked for: there a
version is shown only when all of them are known up to it. Of two of them that tell of one name the newer counts
(`names`). The first answer of such a partition and its second one are both looked at before anything is told.

*Another division.* The version a client brings may have been shown by lanes over other partitions than there are now.
That makes no difference: what is shown is cleared by all partitions that may hold what the client watches, whatever
their covers are. Let e be an event up to the version V that the client brings, of an object that is in partition q now
and was in p then, and that the client was not shown. Then e came to p after p had acknowledged an overtaking by V or
more (`lanes`), or has not come to p at all. q took over from p with what p had: its history and which of its events
were late, and the newest version p had let be shown. So e is late in q as well, be it that p received it or q, and is
repeated. A partition whose past did not travel answers 410 instead. Where there is one partition now, its shard knows
up to which version there were several, and does not answer event by event for these (`HeldObjects.divided_until`).

*Positions.* Afterwards the watcher has been told everything of each partition up to the end of its first answer, or
of its second one as far as C. That may be below the version the watcher asked for; what is still to come from there is
late and must not be taken for known. A round of several partitions that breaks off is told anew from where it began:
no version within it is one up to which each object was told. An exact round is gone on with where it broke off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Final, TypeAlias

from ...shards.model.partitions import PartitionId
from ...shards.model.queries import Change, ChangesQuery
from ...shards.model.versions import UNKNOWN, Version
from ..query.gather import all_of
from .asking import WAIT_S, Asking, ChangesCursor
from .names import Superseded
from .selection import Selector, Sight

Tell: TypeAlias = Callable[[Change], Awaitable[None]]
"""Takes one change; waits while the client does not."""

Clear: TypeAlias = Callable[[Sequence[PartitionId], Version], Awaitable[None]]
"""Has partitions cleared to a version (`Hub.clear`)."""

PAGES_BYTES: Final = 4 << 20
"""Bodies buffered for one replay, over all its partitions."""
PAGE_BYTES_MIN: Final = 128 << 10


async def _merged(cursors: Iterable[ChangesCursor]) -> AsyncIterator[tuple[Change, PartitionId]]:
    """The changes of all in the order of their versions, each with its partition."""
    heap: list[tuple[Version, int, Change, ChangesCursor]] = []
    for number, cursor in enumerate(cursors):
        change = await cursor.change()
        if change is not None:
            heappush(heap, (change.version, number, change, cursor))
    while heap:
        _, number, change, cursor = heap[0]
        yield change, cursor.partition
        following = await cursor.change()
        if following is None:
            heappop(heap)
        else:
            heapreplace(heap, (following.version, number, following, cursor))


class Replay:
    """What one watcher is told before it is live."""

    def __init__(
        self,
        asking: Asking,
        selector: Selector,
        positions: Mapping[PartitionId, Version],
        *,
        exact: bool,
        siblings: Mapping[PartitionId, frozenset[PartitionId]],
    ) -> None:
        self.positions = dict(positions)
        """What it has been told of each partition."""
        self._exact = exact
        """The resource is in one partition."""
        self._siblings = siblings
        """Of partitions whose names move, where to (`names`)."""
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
            superseded = Superseded(self._asking, self._selector, self._siblings, self.positions)
            await superseded.look(opened)
            async for change, partition in _merged(opened):
                if change.version > last:
                    complete, last = last, change.version
                if not await superseded.holds_back(change, partition):
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
            alone=len(self.positions) == 1 or partition in self._siblings,
            until=until,
            max_bytes=max(PAGE_BYTES_MIN, PAGES_BYTES // len(self.positions)),
            wait_s=WAIT_S,
        )
        return ChangesCursor(self._asking, query)
