"""A list put together from the pages of its partitions: one page of it, or all as it comes.

What is promised of a list is settled with its first objects: everything that can go wrong with all of it has by
then, and what is missing from a partial one is known, because its caller is told with the head of the answer.
A page with a limit is put together whole before that, so up to its end a shard may go missing and be named. A
list without limit is sent while it is being read: a shard that is lost then breaks it off, even where a partial
answer will do, because nobody could be told any more.

*A version to begin at.* Who lists watches from the list's version, the oldest of its partitions. It must be one that
each of them answers for: an idle partition may be far behind one whose history began just now, or is turned over
quickly. Pages say from where on a watch may begin (`PageAnswer.resumable`); partitions behind that are asked again for
a state as new, for which their shards prove that nothing is missing. That takes about a second, and is rare: what idle
partitions lack is proved in the background while anybody watches. If they do not get there in time, the list is
answered as it is.

Which partitions are asked, and for which state, is `fanout`'s; order is `merge`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...shards.model.errors import ShoalError
from ...shards.model.partitions import Epoch, PartitionId, ShardId
from ...shards.model.queries import PageAnswer
from ...shards.model.refs import Key
from ...shards.model.versions import Version, oldest
from .answers import Listing, Provenance
from .consistency import WAIT_S
from .cursor import PartitionCursor
from .gather import Tolerated, all_of, each_of
from .merge import Merge
from .request import CollectionQuery
from .tokens import Position, encode_token

LIMITED_BYTES = 64 << 20
"""A page with a limit ends early at this size; the API allows fewer objects than the limit."""
ASKED_AGAIN_MAX = 2
"""Rounds in which partitions are asked for a newer state; a second one is for who asked first and was overtaken."""


@dataclass(frozen=True, slots=True)
class ListPlan:
    """What a list is put together for."""

    query: CollectionQuery
    epoch: Epoch
    limit: int
    """0: everything."""
    tolerated: Tolerated = ()
    left_out: Mapping[PartitionId, ShardId | None] = field(default_factory=dict)
    """Partitions an earlier page of the list went on without, each with the shard that has it now."""
    pins: Mapping[PartitionId, Version] = field(default_factory=dict)
    """The versions that earlier pages of the list were of, those of `left_out` included if they had come."""
    newest: bool = False
    """Any state will do that is new enough, so partitions may be asked again for a newer one."""


class ListAssembly:
    """One list. `open` it once; `aclose` it if that fails."""

    def __init__(self, plan: ListPlan, cursors: Sequence[PartitionCursor]) -> None:
        self._plan = plan
        self._every = cursors
        self._cursors = list(cursors)
        self._merge = Merge(len(cursors))
        self._pages: list[PageAnswer] = []
        """The first of each cursor."""
        self._missing = dict(plan.left_out)

    async def open(self) -> Listing:
        """The list with its first objects.

        Raises:
            NotServed, NotReady, TooLargeVersion, Expired, BadRequest: as `PartitionCursor.next`.
        """
        await self._first_pages()
        return await self._limited() if self._plan.limit else self._unlimited()

    async def aclose(self) -> None:
        """Lets the shards forget what they keep for this list. Safe to repeat."""
        for cursor in self._every:
            await cursor.aclose()

    async def _first_pages(self) -> None:
        answers = await self._next_of(self._cursors)
        errors = [answer for answer in answers if isinstance(answer, ShoalError)]
        if errors and len(errors) == len(answers):
            # Nothing would be left but a version nobody told.
            raise errors[0]
        present = []
        for cursor, answer in zip(self._cursors, answers, strict=True):
            if isinstance(answer, ShoalError):
                self._missing[cursor.partition] = cursor.shard
            else:
                present.append(cursor)
                self._pages.append(answer)
        self._cursors = present
        if self._plan.newest and len(present) > 1:
            await self._catch_up()
        self._merge = Merge(len(present))
        for part, page in enumerate(self._pages):
            self._merge.feed(part, page)

    async def _catch_up(self) -> None:
        """Has partitions asked again that are older than a watch over all of them could begin at."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_S
        for _ in range(ASKED_AGAIN_MAX):
            wanted = max(page.resumable for page in self._pages)
            behind = [part for part, page in enumerate(self._pages) if page.version < wanted]
            wait_s = deadline - loop.time()
            if not behind or wait_s <= 0:
                return
            again = [self._cursors[part].again(wanted, wait_s) for part in behind]
            self._every = [*self._every, *again]
            answers = await each_of([cursor.next() for cursor in again], (ShoalError,))
            for part, cursor, answer in zip(behind, again, answers, strict=True):
                given_up = cursor
                if not isinstance(answer, ShoalError):
                    given_up, self._cursors[part] = self._cursors[part], cursor
                    self._pages[part] = answer
                await given_up.aclose()

    async def _next_of(
        self, cursors: Sequence[PartitionCursor], limit: int | None = None
    ) -> Sequence[PageAnswer | ShoalError]:
        calls = [cursor.next(limit) for cursor in cursors]
        tolerated = self._plan.tolerated
        return await each_of(calls, tolerated) if tolerated else await all_of(calls)

    async def _feed(self, limit: int) -> None:
        """The next page of every partition that is waited for; one that is lost now is gone on without."""
        hungry = self._merge.hungry
        answers = await self._next_of([self._cursors[part] for part in hungry], limit)
        for part, answer in zip(hungry, answers, strict=True):
            if isinstance(answer, ShoalError):
                cursor = self._cursors[part]
                self._missing[cursor.partition] = cursor.shard
                self._merge.drop(part)
            else:
                self._merge.feed(part, answer)

    async def _limited(self) -> Listing:
        """One page. The head of a list names its continue token, so nothing goes out before all of it is here."""
        merge, limit = self._merge, self._plan.limit
        last = Key("")
        bodies: list[bytes] = []
        size = 0
        while True:
            batch = merge.take(limit - len(bodies))
            if batch.keys:
                last = batch.keys[-1]
                bodies.extend(batch.bodies)
                size += sum(map(len, batch.bodies))
            if len(bodies) >= limit or size >= LIMITED_BYTES or not merge.hungry:
                break
            await self._feed(limit - len(bodies))
        remaining = merge.remaining
        return replace(
            self._listing(bodies),
            continue_token=self._token(last) if remaining else "",
            remaining=remaining if remaining and not self._plan.query.selective else None,
        )

    def _token(self, last: Key) -> str:
        position = Position(self._plan.epoch, last, self._pins(), tuple(sorted(self._missing)))
        return encode_token(position, self._plan.query.fingerprint)

    def _unlimited(self) -> Listing:
        """Everything: what can be given out now, and the rest when it is asked for."""
        merge, cursors = self._merge, self._cursors
        first = merge.take()

        async def rest() -> AsyncIterator[Sequence[bytes]]:
            while hungry := merge.hungry:
                pages = await all_of([cursors[part].next() for part in hungry])
                for part, page in zip(hungry, pages, strict=True):
                    merge.feed(part, page)
                batch = merge.take()
                if batch.bodies:
                    yield batch.bodies

        return replace(self._listing(first.bodies), rest=rest(), complete=not merge.hungry, close=self.aclose)

    def _positions(self) -> dict[PartitionId, Version]:
        parts = zip(self._cursors, self._pages, strict=True)
        return {cursor.partition: page.version for cursor, page in parts}

    def _pins(self) -> dict[PartitionId, Version]:
        """What all pages up to this one are of: all of them claim the same version, the oldest of these."""
        return {**self._plan.pins, **self._positions()}

    def _listing(self, first: Sequence[bytes]) -> Listing:
        told = zip(self._cursors, self._pages, strict=True)
        return Listing(
            version=oldest(self._pins().values()),
            first=first,
            provenance=Provenance.over(
                ((cursor.shard, page.version, page.age_s) for cursor, page in told), self._missing
            ),
            shard_selector=self._plan.query.shards,
            positions=self._positions(),
        )
