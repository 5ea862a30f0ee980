"""A resource in several partitions that are handed over, cut and joined, and clients who watch all of it.

Clients are shown versions as `cluster.watching.lanes` shows them: of several partitions, once the others have been told
(`overtake`); of a single one as it comes. They go away and come back at *any* version they were ever shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from support.moved_stores import FIRST, SETTLING_S, Clock, new_store, pod, sent

from shoal.shards.model.covers import disjoint
from shoal.shards.model.errors import Expired
from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import Cover, Epoch
from shoal.shards.model.queries import Change, ChangesQuery
from shoal.shards.model.refs import Key
from shoal.shards.model.selectors import LabelSelector
from shoal.shards.model.versions import Version
from shoal.shards.store.changes import feed_event
from shoal.shards.store.history import Event
from shoal.shards.store.objects import PartitionStore
from shoal.shards.store.transfer import Extract, extract, join


@dataclass(eq=False)
class Client:
    """Somebody who watches all partitions with a selector."""

    selector: str
    known: dict[str, int]
    """Versions of the objects it has, by key."""
    shown: set[int]
    """Every version it may resume at."""
    connected: bool = True
    newest: dict[str, int] = field(default_factory=dict)
    """The newest version it was told of each object, deletions included."""
    before: set[int] = field(default_factory=set)
    """What of `shown` was shown before the partition was the only one."""

    def resumable(self, *, divided: bool) -> list[int]:
        """Where it may come back without asking for what it has had already: a partition that is alone replays event by
        event, as the API server does, and newest states only to those who were shown several.
        """
        return sorted(self.shown) if divided else sorted({*self.before, max(self.shown)})

    def tell(self, kind: str, key: str, version: int, held: int) -> None:
        """One line of its watch; `held` is the version of the state."""
        if kind == "DELETED" and key not in self.known:
            # When it went is known better after a list that revealed it was taken back.
            version = max(version, self.newest.get(key, 0))
        assert version >= self.newest.get(key, 0), f"{key} went back from {self.newest[key]} to {version}"
        self.newest[key] = version
        if kind == "DELETED":
            self.known.pop(key, None)
        else:
            assert held >= self.known.get(key, 0), f"{key} went back from {self.known[key]} to {held}"
            self.known[key] = held
        self.shown.add(held if kind != "DELETED" else version)


class Part:
    """One partition at one shard, and the part of the server's log it has received."""

    def __init__(self, world: World, store: PartitionStore, clock: Clock) -> None:
        self.world = world
        self.store = store
        self.clock = clock
        self.told = store.frontier
        """Everything in the log up to this version was received."""

    @property
    def cover(self) -> Cover:
        return self.store.partition.cover

    def record(self, event: Event) -> None:
        self.world.live(self, event)

    def restarted(self) -> None:
        raise AssertionError("this server loses nothing")

    def pending(self) -> list[Observation]:
        """What the server has sent and has not arrived."""
        return [
            event
            for event in self.world.log
            if event.version > self.told and self.cover.admits(event.namespace, event.uid)
        ]

    def receive(self, count: int) -> None:
        """Some of it arrives."""
        for event in self.pending()[:count]:
            self.told = event.version
            self.store.apply(event)

    def reach(self, version: int) -> None:
        """The frontier is proved to be as new as `version`, by the server's newest."""
        if self.store.frontier < version:
            self.receive(len(self.world.log))
            self.told = Version(self.world.version)
            self.store.proven(self.told)

    def list_all(self) -> None:
        self.store.begin()
        for held in self.world.state.values():
            self.store.put(held)
        self.told = Version(self.world.version)
        self.store.finish(self.told)


@dataclass(eq=False)
class Arriving:
    """A partition that is on its way."""

    cover: Cover
    sources: list[Part]
    extracts: list[Extract] = field(default_factory=list)
    part: Part | None = None


class World:
    """The server, who follows it, and who watches."""

    def __init__(self, covers: tuple[Cover, ...], *, history_bytes: int) -> None:
        self.now = 100.0
        self.history_bytes = history_bytes
        self.version = FIRST
        self.state: dict[Key, Observation] = {}
        self.log: list[Observation] = []
        self.parts = [self.new_part(cover) for cover in covers]
        self.arriving: list[Arriving] = []
        self.clients: list[Client] = []

    # -- the server ------------------------------------------------------------------------------------------

    def change(self, wanted: dict[str, Any], *, deleted: bool) -> None:
        """An object is written; nobody has been told yet. One that is made again has another uid."""
        key = pod(wanted, 0).key
        held = self.state.get(key)
        if held is not None:
            wanted = wanted | {"uid": held.uid}
        self.version += 1
        event = pod(wanted, self.version, deleted=deleted)
        if deleted and held is None:
            return
        if deleted:
            del self.state[key]
        else:
            self.state[key] = event
        self.log.append(event)

    def pass_time(self, seconds: float) -> None:
        """It passes everywhere."""
        self.now += seconds
        for part in self.followers():
            part.clock.now += seconds
            part.store.expire()
        for arriving in self.arriving:
            arriving.extracts = [taken.aged(seconds) for taken in arriving.extracts]

    # -- shards ----------------------------------------------------------------------------------------------

    def new_part(self, cover: Cover, extracts: list[Extract] | None = None) -> Part:
        """One that begins with a list, or goes on from elsewhere; each shard has a clock of its own."""
        clock = Clock(self.now * 2)
        store = new_store(clock, cover, history_bytes=self.history_bytes)
        if extracts is not None:
            store.restore(join(extracts, cover))
        part = Part(self, store, clock)
        if extracts is None:
            part.list_all()
        store.recorder = part
        return part

    def followers(self) -> list[Part]:
        """All that follow the server."""
        return self.parts + [arriving.part for arriving in self.arriving if arriving.part is not None]

    @property
    def divided(self) -> bool:
        return len(self.parts) > 1

    def begin(self, covers: tuple[Cover, ...]) -> None:
        """Others are to hold everything."""
        self.arriving = [
            Arriving(cover, [part for part in self.parts if not disjoint(cover, part.cover)])
            for cover in covers
        ]

    def capture(self, arriving: Arriving, *, wire: bool) -> None:
        """The next source of a partition is asked for what it has, or it is made of what came."""
        if len(arriving.extracts) < len(arriving.sources):
            source = arriving.sources[len(arriving.extracts)]
            taken = extract(source.store, arriving.cover)
            arriving.extracts.append(sent(taken) if wire else taken)
            return
        try:
            arriving.part = self.new_part(arriving.cover, arriving.extracts)
        except Expired:
            self.arriving = []

    def switch(self) -> None:
        """All have arrived: who served stops, and says what was shown; who takes over catches up, and is told."""
        divided = self.divided
        for arriving in self.arriving:
            part = arriving.part
            assert part is not None
            frontier = max(source.store.frontier for source in arriving.sources)
            part.reach(frontier)
            shown = max(source.store.overtaken for source in arriving.sources)
            part.store.take_over(shown, frontier)
        self.parts = [arriving.part for arriving in self.arriving if arriving.part is not None]
        self.arriving = []
        for client in self.clients if divided else ():
            client.before |= client.shown
        self.hang_up()

    def die(self, part: Part) -> None:
        """A shard is lost with all it knew; another one begins anew."""
        # Nobody was shown the very version that the server is asked for.
        self.version += 1
        self.parts[self.parts.index(part)] = other = self.new_part(part.cover)
        other.store.take_over(Version(self.version), divided=self.divided)
        self.arriving = []
        self.hang_up()

    # -- clients ---------------------------------------------------------------------------------------------

    def hang_up(self) -> None:
        for client in self.clients:
            client.connected = False

    def matching(self, selector: str) -> dict[str, int]:
        """What a list of all partitions shows now."""
        matches = LabelSelector.parse(selector).matches
        return {
            key: entry.version
            for part in self.parts
            for key, entry in part.store._entries.items()
            if matches(entry.labels.labels())
        }

    def list(self, selector: str, behind: int) -> None:
        """A client lists: with the version of whoever is furthest behind."""
        version = min(part.store.frontier for part in self.parts)
        if self.divided:
            version = max(FIRST, version - behind)
        self.clients.append(Client(selector, self.matching(selector), {version}))

    def cleared(self, version: int, but: Part | None = None) -> None:
        """Before anybody is shown a version, all others are told."""
        for part in self.parts:
            if part is not but and part.store.frontier < version:
                part.store.overtake(Version(version))

    def live(self, part: Part, event: Event) -> None:
        """An event arrived at a shard."""
        if part not in self.parts:
            return
        if event.version <= part.store.frontier:
            self.hang_up()
            self.clients.clear()
            return
        if self.divided:
            self.cleared(event.version, but=part)
        kind = feed_event(event).type
        for client in self.clients:
            if client.connected:
                self._live(client, event, kind)

    def _live(self, client: Client, event: Event, kind: str) -> None:
        matches = LabelSelector.parse(client.selector).matches
        was = event.before is not None and matches(event.before.labels.labels())
        is_now = event.after is not None and matches(event.after.labels.labels())
        if is_now and event.after is not None:
            client.tell(kind, event.key, event.version, event.after.version)
        elif was:
            client.tell("DELETED", event.key, event.version, event.version)

    def bookmark(self, version: int) -> None:
        """Clients are shown a version that holds none of their objects."""
        version = min(version, self.version)
        if not self.divided:
            version = min(version, self.parts[0].store.frontier)
        self.cleared(version)
        for client in self.clients:
            if client.connected:
                client.shown.add(version)

    def resume(self, client: Client, since: int) -> None:
        """It comes back, and is told what it has missed; or has to list again."""
        if not self.divided:
            self.parts[0].reach(since)
        try:
            answers = [self._changes(part, client, since) for part in self.parts]
        except Expired:
            self.clients.remove(client)
            return
        changes = sorted((change for answer in answers for change in answer), key=lambda one: one.version)
        if self.divided:
            self.cleared(max(part.store.frontier for part in self.parts))
        for change in changes:
            body: dict[str, Any] = json.loads(change.body)
            client.tell(change.type, change.key, change.version, int(body["metadata"]["resourceVersion"]))
        client.connected = True

    def _changes(self, part: Part, client: Client, since: int) -> list[Change]:
        query = ChangesQuery(
            partition=part.store.partition.id,
            epoch=Epoch(1),
            since=Version(since),
            labels=client.selector,
            exact=not self.divided,
        )
        if since > part.store.answerable(query):
            part.reach(since)
        return [change for page in part.store.changes(query) for change in page.changes]


SETTLED_S = SETTLING_S + 1
