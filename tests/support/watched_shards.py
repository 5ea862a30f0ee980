"""Shards for tests of watches: real stores and feeds, written to by the test instead of by reflectors.

A `Written` cluster counts versions as an API server does; each partition hears of its part in order, whenever the
test lets it (`Part.hear`), so that one may be far ahead of another. `Way` is a gateway's `ShardHandle` to such a
shard: what it carries back arrives in order, after a delay the test chooses, and it can be cut.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from shoal.coordinator.routes import Route, RouteTable
from shoal.shards.feeds import PartitionFeeds
from shoal.shards.model.covers import disjoint
from shoal.shards.model.errors import NotReady, NotServed, TooLargeVersion
from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import Epoch, Partition, PartitionId, ShardId
from shoal.shards.model.queries import (
    ChangesPage,
    ChangesQuery,
    CountQuery,
    FeedBatch,
    FeedQuery,
    OvertakeQuery,
    PageAnswer,
    PageQuery,
    PartitionCount,
)
from shoal.shards.model.refs import Key, key_of
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version
from shoal.shards.settings import FeedSettings, StoreSettings
from shoal.shards.store.joining import join
from shoal.shards.store.objects import PartitionStore

PODS = ResourceType(
    resource=Resource("", "v1", "pods"),
    kind="Pod",
    namespaced=True,
    verbs=("get", "list", "watch"),
    selectable_fields=("spec.nodeName", "status.phase"),
)


def body_of(
    namespace: str, name: str, uid: str, version: int, labels: Mapping[str, str], *, node: str = ""
) -> bytes:
    """An object as a store keeps it."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-11-20T09:01:04Z",
    }
    if labels:
        metadata["labels"] = dict(labels)
    document = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"nodeName": node}}
    return json.dumps(document, separators=(",", ":")).encode()


@dataclass(frozen=True)
class State:
    """One state of one object."""

    namespace: str
    name: str
    uid: str
    version: int
    labels: Mapping[str, str] = field(default_factory=dict)
    node: str = ""

    def observation(self, *, deleted: bool = False) -> Observation:
        body = body_of(self.namespace, self.name, self.uid, self.version, self.labels, node=self.node)
        labels = json.dumps(dict(self.labels)).encode() if self.labels else b""
        return Observation(
            deleted=deleted,
            key=key_of(self.namespace, self.name),
            namespace=self.namespace,
            uid=self.uid,
            version=Version(self.version),
            labels=labels,
            fields=(self.node, ""),
            body=body,
        )


class Part:
    """One partition at one shard."""

    def __init__(self, partition: Partition, *, history_bytes: int = 16 << 20) -> None:
        self.partition = partition
        self.to_hear: deque[Observation | Version] = deque()
        """What the API server has told and the shard has not taken yet; a version is a bookmark."""
        self.store = PartitionStore(
            partition,
            PODS,
            settings=StoreSettings(history_bytes=history_bytes, settling_s=0.0),
            clock=asyncio.get_running_loop().time,
        )
        self.feeds = PartitionFeeds(self.store, FeedSettings())
        self.moved = asyncio.Event()
        self.overtaken: list[Version] = []
        self.mute = False
        """Overtakings are not answered."""
        self.released = False
        """The shard has let the partition go."""
        self.store.subscribe(self._moved)

    def _moved(self) -> None:
        self.feeds.moved()
        moved, self.moved = self.moved, asyncio.Event()
        moved.set()

    def release(self) -> None:
        """The shard lets it go."""
        self.released = True
        self.feeds.end(lambda: NotServed(self.partition.id, Epoch(0)))

    def list(self, states: Iterable[State], version: int) -> None:
        """A complete list."""
        self.store.begin()
        for state in states:
            self.store.put(state.observation())
        self.store.finish(Version(version))

    def hear(self, count: int = 1 << 30) -> None:
        """Takes the next of what was told."""
        while self.to_hear and count:
            count -= 1
            told = self.to_hear.popleft()
            if isinstance(told, Observation):
                self.store.apply(told)
            else:
                self.store.advance(told)

    async def reached(self, version: Version, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                while self.store.frontier < version:
                    await self.moved.wait()
        except TimeoutError:
            raise TooLargeVersion(version, self.store.frontier) from None


class Written:
    """The truth: objects of one resource cut into partitions, each at a shard of its own."""

    def __init__(self, *partitions: Partition, history_bytes: int = 16 << 20, revision: int = 100) -> None:
        self.revision = revision
        self.objects: dict[Key, State] = {}
        self.parts = {partition.id: Part(partition, history_bytes=history_bytes) for partition in partitions}
        self.shards = {ShardId(f"shard-{number}"): name for number, name in enumerate(self.parts)}
        self.served = dict.fromkeys(self.parts, True)
        self.table = self._table(Epoch(1))
        self.log: list[tuple[State, Observation]] = []
        """Everything that was written: an object's state, and what is told of it."""
        self._count = 0
        for part in self.parts.values():
            part.list((), self.revision)

    def _table(self, epoch: Epoch) -> RouteTable:
        return RouteTable(
            epoch=epoch,
            catalogue=(PODS,),
            routes=tuple(
                Route(self.parts[name].partition, shard)
                for shard, name in self.shards.items()
                if name in self.parts
            ),
            shards=tuple(self.shards),
        )

    async def routes(self, after: Epoch, timeout_s: float) -> RouteTable:
        """As `RouteSource`."""
        if self.table.epoch <= after:
            await asyncio.sleep(timeout_s)
        return self.table

    # -- writing ---------------------------------------------------------------------------------------------

    def put(self, namespace: str, name: str, *, heard: bool = True, node: str = "", **labels: str) -> int:
        """Creates or changes an object; its version."""
        self.revision += 1
        held = self.objects.get(key_of(namespace, name))
        if held is None:
            self._count += 1
        uid = held.uid if held is not None else f"uid-{self._count}"
        state = State(namespace, name, uid, self.revision, labels, node)
        self.objects[key_of(namespace, name)] = state
        self._tell(state, state.observation(), heard=heard)
        return self.revision

    def delete(self, namespace: str, name: str, *, heard: bool = True) -> int:
        """Deletes an object; the version of its deletion."""
        self.revision += 1
        held = self.objects.pop(key_of(namespace, name))
        gone = State(namespace, name, held.uid, self.revision, held.labels, held.node)
        self._tell(held, gone.observation(deleted=True), heard=heard)
        return self.revision

    def bookmark(self, partition: PartitionId) -> None:
        """The API server proves the partition's frontier."""
        self.parts[partition].to_hear.append(Version(self.revision))

    def _tell(self, state: State, observation: Observation, *, heard: bool) -> None:
        self.log.append((state, observation))
        for part in self.parts.values():
            if part.partition.cover.admits(state.namespace, state.uid):
                part.to_hear.append(observation)
                if heard:
                    part.hear()

    # -- dividing anew ---------------------------------------------------------------------------------------

    def divide(self, *partitions: Partition, heard: bool = True) -> RouteTable:
        """Hands everything over to shards of their own that hold these partitions; the routes to them. What they have
        not `heard` yet follows.
        """
        old = tuple(self.parts.values())
        shown = max(part.store.overtaken for part in old)
        newest = max(part.store.frontier for part in old)
        self.parts = {}
        for partition in partitions:
            part = self.parts[partition.id] = Part(partition)
            sources = [one for one in old if not disjoint(one.partition.cover, partition.cover)]
            part.store.restore(join([one.store.extract() for one in sources], partition.cover))
            for state, observation in self.log:
                news = observation.version > part.store.frontier
                if news and partition.cover.admits(state.namespace, state.uid):
                    part.to_hear.append(observation)
            while part.to_hear and part.to_hear[0].version <= newest:
                part.hear(1)
            part.store.advance(newest)
            part.store.take_over(shown, newest)
            if heard:
                part.hear()
        number = len(self.shards)
        self.shards |= {ShardId(f"shard-{number + at}"): name for at, name in enumerate(self.parts)}
        self.table = self._table(Epoch(self.table.epoch + 1))
        return self.table

    # -- reaching --------------------------------------------------------------------------------------------

    def directory(self, way: Callable[[ShardId, Part], Way] | None = None) -> Callable[[ShardId], Way]:
        """A gateway's ways to all shards."""
        ways: dict[ShardId, Way] = {}

        def find(shard: ShardId) -> Way:
            if shard not in self.shards:
                raise NotReady(f"there is no {shard}")
            if shard not in ways:
                part = self.parts.get(self.shards[shard])
                if part is None:
                    raise NotReady(f"{shard} has nothing any more")
                ways[shard] = way(shard, part) if way is not None else Way(shard, part)
            return ways[shard]

        return find


class Way:
    """A `ShardHandle` as far as watches and lists need one. `delay` gives the seconds each message takes."""

    def __init__(self, shard_id: ShardId, part: Part, delay: Callable[[], float] = lambda: 0.0) -> None:
        self.shard_id = shard_id
        self.part = part
        self.calls: list[Any] = []
        self.away = False
        self._delay = delay
        self._arrives = 0.0
        self._cut = asyncio.Event()

    def cut(self) -> None:
        """Breaks what is under way."""
        cut, self._cut = self._cut, asyncio.Event()
        cut.set()

    async def _travel(self) -> None:
        loop = asyncio.get_running_loop()
        delay = self._delay()
        if delay:
            self._arrives = max(loop.time() + delay, self._arrives + 1e-6)
            await asyncio.sleep(self._arrives - loop.time())

    def _there(self, query: Any) -> Part:
        self.calls.append(query)
        if self.away:
            raise NotReady(f"{self.shard_id} is away")
        if query.partition != self.part.partition.id or self.part.released:
            raise NotServed(query.partition, query.epoch)
        return self.part

    async def _carried(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """What the shard gives, later, and not beyond a cut."""
        cut = self._cut
        queue: asyncio.Queue[Any] = asyncio.Queue(4)

        async def pump() -> None:
            try:
                async with aclosing(pieces):  # type: ignore[type-var]
                    async for piece in pieces:
                        await self._travel()
                        await queue.put((piece, None))
            except Exception as error:  # noqa: BLE001 - it travels as well
                await queue.put((None, error))
            else:
                await queue.put((None, None))

        pumping = asyncio.ensure_future(pump())
        ending = asyncio.ensure_future(cut.wait())
        try:
            while True:
                taking = asyncio.ensure_future(queue.get())
                try:
                    await asyncio.wait((taking, ending), return_when=asyncio.FIRST_COMPLETED)
                    if ending.done():
                        raise NotReady(f"the connection to {self.shard_id} broke")
                    piece, error = taking.result()
                finally:
                    taking.cancel()
                if error is not None:
                    raise error
                if piece is None:
                    return
                yield piece
        finally:
            for task in (pumping, ending):
                task.cancel()
            await asyncio.gather(pumping, ending, return_exceptions=True)

    async def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        part = self._there(query)

        async def pages() -> AsyncIterator[PageAnswer]:
            await part.reached(query.not_older_than, query.wait_s)
            for page in part.store.capture(query):
                yield page

        async with aclosing(self._carried(pages())) as carried:  # type: ignore[type-var]
            async for page in carried:
                yield page

    async def page(self, query: PageQuery) -> PageAnswer:
        part = self._there(query)
        await self._travel()
        await part.reached(query.not_older_than, query.wait_s)
        page = part.store.page(query)
        await self._travel()
        return page

    async def count(self, query: CountQuery) -> PartitionCount:
        part = self._there(query)
        await self._travel()
        await part.reached(query.not_older_than, query.wait_s)
        count = part.store.tally(query)
        await self._travel()
        return count

    async def changes(self, query: ChangesQuery) -> AsyncIterator[ChangesPage]:
        part = self._there(query)

        async def pages() -> AsyncIterator[ChangesPage]:
            await self._travel()
            await part.reached(query.since, query.wait_s)
            for page in part.store.changes(query):
                yield page

        async with aclosing(self._carried(pages())) as carried:  # type: ignore[type-var]
            async for page in carried:
                yield page

    async def feed(self, query: FeedQuery) -> AsyncIterator[FeedBatch]:
        part = self._there(query)
        async with aclosing(self._carried(part.feeds.read(query))) as carried:  # type: ignore[type-var]
            async for batch in carried:
                yield batch

    async def overtake(self, query: OvertakeQuery) -> Version:
        part = self._there(query)
        cut = self._cut
        await self._travel()
        if part.mute:
            await cut.wait()
            raise NotReady(f"the connection to {self.shard_id} broke")
        part.overtaken.append(query.version)
        part.feeds.flush()
        part.store.overtake(query.version)
        frontier = part.store.frontier
        await self._travel()
        if cut.is_set():
            raise NotReady(f"the connection to {self.shard_id} broke")
        return frontier
