"""One watch: how it begins, how it joins what all others get, and how it ends.

::

    InitialEvents:  a list as ADDED lines --.
    FromVersion:    positions at V ---------+--> rounds of changes --> live, until the deadline
    FromNow:        ------------------------------------------------>

A round is asked for while what the lane gives out is kept for the watcher (`audience`); if too much is, what was
kept is dropped and another round is told instead, so that a slow client costs a bounded amount of memory. From then
on the hub writes to the sink itself and this task only waits for the end.

*Initial events of several partitions.* Each partition answers a list with the state it is at, so the list is complete
only up to its own version, which is not above any of theirs (and one that a watch of them all may begin at, see
`query.listing`), while its objects may be newer.

- Who waits for the closing bookmark does not come back before it: a stream that breaks off earlier is begun anew. It
  gets the list as it is, and nobody is overtaken for that. The bookmark says the list's version, up to which it is
  complete; the rounds go on from the state of each partition, so what was newer in the list is not told again. Every
  version shown after the bookmark is a round's or the lane's, of which `replay` and `lanes` answer for.
- A client that does without may come back at any version it was shown after the initial objects; one that breaks off
  among them begins again, because they come in the order of their keys. For it partitions are cleared to the newest
  version told *before* the list is asked for, and an object of the list that is newer still is left to the first
  round, which goes on from that version: there it is ADDED.

Ends: at the deadline, when the sink takes no more, with an ERROR line when history does not reach back (410), and
without one when a shard is away for too long or the resource is gone: then clients come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

import msgspec

from ...shards.model.depth import at_any_depth
from ...shards.model.errors import Expired, NotReady, NotServed, ShoalError, TooLargeVersion
from ...shards.model.partitions import Epoch, PartitionId, ShardId
from ...shards.model.queries import Change
from ...shards.model.refs import Key, key_of
from ...shards.model.versions import Version
from ..query.answers import Listing, Provenance
from ..query.consistency import FromNow, FromVersion, InitialEvents, WatchBasis
from ..query.request import CollectionQuery
from ..query.router import QueryRouter
from .asking import Asking
from .audience import Audience, Member
from .forms import LineForm, error_line
from .frames import FRAME_BYTES, Frame, Sink
from .hub import Hub
from .replay import Replay
from .selection import Selector
from .settings import WatchServingSettings
from .statistics import WatchStatistics

BOOKMARK_BEFORE_END_S: Final = 2.0
"""Who allows bookmarks gets one so long before the end, as from kube-apiserver (``cacheWatcher.nextBookmarkTime``)."""
RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 1.0


class Ended(Exception):  # noqa: N818 - not an error
    """The watch is over, in order; raised to leave from wherever it is."""


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    resourceVersion: str = "0"  # noqa: N815 - Kubernetes' own spelling


class _Object(msgspec.Struct):
    metadata: _Metadata


_OBJECT = msgspec.json.Decoder(_Object)


class Watch:
    """One watch that was opened; run once. Everything that could be wrong with it as a request was found out before."""

    def __init__(
        self,
        query: CollectionQuery,
        form: LineForm,
        *,
        basis: WatchBasis,
        hub: Hub,
        partitions: tuple[PartitionId, ...],
        router: QueryRouter,
        asking: Asking,
        settings: WatchServingSettings,
        rng: Random,
        statistics: WatchStatistics,
    ) -> None:
        self._query = query
        self._form = form
        self._basis = basis
        self._hub = hub
        self._partitions = partitions
        self._router = router
        self._asking = asking
        self._settings = settings
        self._rng = rng
        self._statistics = statistics
        self._selector = Selector.of(query)
        self._type = hub.resource_type
        feeds = [hub.followed(partition) for partition in partitions]
        self.provenance = Provenance.over(
            ((ShardId(feed.shard), feed.clearance.fed, feed.age_s) for feed in feeds), {}
        )
        """What the watch rests on as it begins: the frontier all its partitions have told."""
        self._ended: asyncio.Future[ShoalError | None] = asyncio.get_running_loop().create_future()
        self._unseen: set[Key] = set()
        """Objects of the initial list that were left to the first round."""
        self._lines: list[bytes] = []
        self._size = 0
        self._sink: Sink

    async def aclose(self) -> None:
        """Lets go of a watch that is not run. Safe to repeat."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def run(self, sink: Sink) -> None:
        """Writes to `sink` until the watch ends; returns then. To end it, cancel."""
        loop = asyncio.get_running_loop()
        self._sink = sink
        lasts_s = self._query.options.timeout_s or self._settings.timeout_min_s * (1 + self._rng.random())
        deadline = loop.time() + lasts_s
        timeout = asyncio.timeout_at(deadline)
        member = Member(
            self._selector,
            self._form,
            sink.write,
            self._end,
            bookmarks=self._query.options.allow_bookmarks,
        )
        try:
            async with timeout:
                await self._run(member, deadline)
        except TimeoutError:
            if not timeout.expired():
                raise
        except Ended:
            return
        except Expired as error:
            self._statistics.expired += 1
            sink.write(Frame(error_line(error)))
        except (NotReady, NotServed):
            self._statistics.lost += 1
        except ShoalError as error:
            sink.write(Frame(error_line(error)))
        finally:
            self._hub.leave(self._partitions, member)

    def _end(self, error: ShoalError | None) -> None:
        if not self._ended.done():
            self._ended.set_result(error)

    # -- the course of it ------------------------------------------------------------------------------------

    async def _run(self, member: Member, deadline: float) -> None:
        basis = self._basis
        replay: Replay | None = None
        self._check()
        match basis:
            case InitialEvents():
                replay = self._replay(await self._initial(basis, member))
            case FromVersion(version=version):
                replay = self._replay_from(version)
            case FromNow(not_older_than=version):
                if version > self._hub.oldest(self._partitions):
                    replay = self._replay_from(version)
        self._check()
        if replay is None:
            self._hub.join(self._partitions, member)
        else:
            await self._catch_up(replay, member)
        self._hub.go_live(self._partitions, member)
        await self._live(member, deadline)

    def _replay_from(self, version: Version) -> Replay:
        return self._replay(dict.fromkeys(self._partitions, version))

    def _replay(self, positions: Mapping[PartitionId, Version]) -> Replay:
        hub = self._hub
        return Replay(
            self._asking, self._selector, positions, exact=len(hub.partitions) == 1, siblings=hub.siblings
        )

    async def _live(self, member: Member, deadline: float) -> None:
        """Waits; the hub writes."""
        loop = asyncio.get_running_loop()
        rest_s = deadline - BOOKMARK_BEFORE_END_S - loop.time()
        if member.bookmarks and rest_s > 0:
            await asyncio.wait((self._ended,), timeout=rest_s)
            self._check()
            version = self._hub.shown(self._partitions, member)
            self._lines.append(member.form.bookmark(version, self._type, initial_events_end=False))
            await self._write()
        await asyncio.wait((self._ended,))
        self._check()

    def _check(self) -> None:
        """Leaves if the hub has ended the watch, or is over and would not take it."""
        if self._ended.done():
            raise self._ended.result() or Ended
        if self._hub.over:
            raise Ended

    # -- initial events --------------------------------------------------------------------------------------

    async def _initial(self, basis: InitialEvents, member: Member) -> Mapping[PartitionId, Version]:
        """Tells of every object there is; the positions that changes follow from."""
        ceiling: Version | None = None
        if len(self._partitions) > 1 and not basis.bookmark_end:
            ceiling = self._hub.newest(self._partitions)
            await self._hub.clear(self._partitions, ceiling)
        listing = await self._listed(basis)
        try:
            positions = listing.positions
            if positions.keys() != set(self._partitions):
                raise Ended  # divided anew meanwhile: the client comes back to watches of the new partitions
            if ceiling is not None and max(positions.values()) <= ceiling:
                ceiling = None  # nothing in the list can be newer
            await self._tell_objects(listing.first, ceiling, member)
            async for bodies in listing.rest:
                await self._tell_objects(bodies, ceiling, member)
        finally:
            await listing.aclose()
        if basis.bookmark_end:
            self._lines.append(self._closing(listing.version, member))
        await self._write()
        if ceiling is None:
            return positions
        return {name: min(version, ceiling) for name, version in positions.items()}

    async def _listed(self, basis: InitialEvents) -> Listing:
        """The list, once there is one that is new enough: silence until then."""
        while True:
            try:
                return await self._router.list(self._query, decision=basis.decision)
            except TooLargeVersion:
                await asyncio.sleep(RETRY_FIRST_S)

    async def _tell_objects(self, bodies: Sequence[bytes], ceiling: Version | None, member: Member) -> None:
        for body in bodies:
            if ceiling is not None:
                metadata = at_any_depth(_OBJECT.decode, body).metadata
                if int(metadata.resourceVersion) > ceiling:
                    self._unseen.add(key_of(metadata.namespace, metadata.name))
                    continue
            self._add(member, "ADDED", body)
            if self._size > FRAME_BYTES:
                await self._write()

    def _closing(self, version: Version, member: Member) -> bytes:
        return member.form.bookmark(version, self._type, initial_events_end=True)

    # -- catching up -----------------------------------------------------------------------------------------

    async def _catch_up(self, replay: Replay, member: Member) -> None:
        """Tells what has happened since the positions of `replay`, until everything else was kept, and tells that."""
        while True:
            audience = await self._round(replay, member)
            self._unseen.clear()
            await self._write()
            member.positions = replay.positions
            while (kept := audience.take(member)) is not None:
                if not kept:
                    return
                if audience.tell(member, kept):
                    replay.told(kept)
                    await self._sink.drained()
                self._check()
            self._statistics.overrun += 1

    async def _round(self, replay: Replay, member: Member) -> Audience:
        """One round, asked for until it is answered; what is given out from its beginning on is kept."""
        loop = asyncio.get_running_loop()
        troubled_at: float | None = None
        retry_s = RETRY_FIRST_S
        while True:
            self._check()
            audience = self._hub.join(self._partitions, member)
            try:
                await replay.round(self._hub.clear, lambda change: self._tell_change(change, member))
            except TooLargeVersion:
                troubled_at, retry_s = None, RETRY_FIRST_S  # the shards answer: the version is still to come
            except (NotReady, NotServed) as error:
                now = loop.time()
                troubled_at = now if troubled_at is None else troubled_at
                if now - troubled_at >= self._settings.patience_s:
                    raise
                if isinstance(error, NotServed):
                    await self._asking.routing.refresh(Epoch(error.epoch - 1), retry_s)
                retry_s = min(retry_s * 2, RETRY_MAX_S)
            else:
                return audience
            await asyncio.sleep(retry_s)

    async def _tell_change(self, change: Change, member: Member) -> None:
        event_type = change.type
        if change.key in self._unseen:
            if event_type == "DELETED":
                return  # and still unseen, if the round has to be told anew
            self._unseen.discard(change.key)
            event_type = "ADDED"
        self._add(member, event_type, change.body)
        if self._size > FRAME_BYTES:
            await self._write()

    # -- lines -----------------------------------------------------------------------------------------------

    def _add(self, member: Member, event_type: str, body: bytes) -> None:
        line = member.form.line(event_type, body, self._type)
        member.form = member.form.following
        self._lines.append(line)
        self._size += len(line)

    async def _write(self) -> None:
        """Writes what was added, and waits while the client does not take it."""
        lines, self._lines, self._size = self._lines, [], 0
        if not lines:
            return
        if not self._sink.write(Frame(b"".join(lines), len(lines))):
            self._statistics.slow += 1
            raise Ended
        await self._sink.drained()
        self._check()
