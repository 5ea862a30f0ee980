"""What a client that resumes is told, against a model of all clients there may be.

One partition of a resource whose other partitions exist as versions only. Clients list, are told what happens live, are
shown versions of other partitions (which the partition has to acknowledge), and come back later at *any* version they
were ever shown. Then what they know must be what the partition holds, and nothing they knew may have gone back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.observed import CONFIG_MAPS, observed

from shoal.shards.model.errors import Expired, TooLargeVersion
from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import Epoch, Partition
from shoal.shards.model.queries import ChangesQuery
from shoal.shards.model.selectors import LabelSelector
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.changes import feed_event
from shoal.shards.store.history import Event
from shoal.shards.store.objects import PartitionStore

SETTLING_S = 20.0
NAMES = st.sampled_from(["a", "b", "c"])
LABELS = st.sampled_from([{}, {"app": "web"}, {"app": "db"}])
SELECTORS = ["", "app=web", "app!=web"]
PICK = st.integers(0, 10**6)


@dataclass
class Client:
    """Somebody who watches all partitions with a selector."""

    selector: str
    known: dict[str, int]
    """Versions of the partition's objects it has, by key."""
    shown: set[int]
    """Every version it may resume at."""
    connected: bool = True
    newest: dict[str, int] = field(default_factory=dict)
    """The newest version it was told of each object, deletions included."""

    def tell(self, kind: str, key: str, version: int, held: int) -> None:
        """One line of its watch; `held` is the version of the state."""
        assert version >= self.newest.get(key, 0), "an object went back"
        self.newest[key] = version
        if kind == "DELETED":
            self.known.pop(key, None)
        else:
            assert held >= self.known.get(key, 0)
            self.known[key] = held
        self.shown.add(held if kind != "DELETED" else version)


class Resuming(RuleBasedStateMachine):
    """A server, the partition's store behind it, and clients."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.version = 10
        self.state: dict[str, Observation] = {}
        self.past: dict[int, dict[str, Observation]] = {}
        self.sent: list[Observation] = []
        """By the server, and not arrived yet."""
        self.clients: list[Client] = []
        self.store = PartitionStore(
            Partition(CONFIG_MAPS.resource),
            CONFIG_MAPS,
            settings=StoreSettings(history_s=60.0, history_bytes=4000, settling_s=SETTLING_S),
            clock=lambda: self.now,
        )

    # -- live ------------------------------------------------------------------------------------------------

    def record(self, event: Event) -> None:
        if event.version <= self.store.frontier:
            # A correction of what was told: feeds end, and their clients list again.
            self.clients = [client for client in self.clients if not client.connected]
            return
        told = feed_event(event)
        for client in self.clients:
            if client.connected:
                self.live(client, event, told.type)

    def live(self, client: Client, event: Event, kind: str) -> None:
        matches = LabelSelector.parse(client.selector).matches
        was = event.before is not None and matches(event.before.labels.labels())
        is_now = event.after is not None and matches(event.after.labels.labels())
        if is_now and event.after is not None:
            client.tell(kind, event.key, event.version, event.after.version)
        elif was:
            client.tell("DELETED", event.key, event.version, event.version)

    def restarted(self) -> None:
        raise AssertionError("this server loses nothing")

    # -- the server ------------------------------------------------------------------------------------------

    @initialize(names=st.lists(NAMES, unique=True), settled=st.booleans())
    def first_list(self, names: list[str], *, settled: bool) -> None:
        for name in names:
            self.change(name, {}, deleted=False)
        self.sent.clear()
        self.list_all()
        self.listed = self.version
        self.store.recorder = self
        if settled:
            self.now += SETTLING_S + 2

    def list_all(self) -> None:
        self.store.begin()
        for observation in self.state.values():
            self.store.put(observation)
        self.store.finish(Version(self.version))

    def change(self, name: str, labels: dict[str, str], *, deleted: bool) -> None:
        self.version += 1
        event = observed(name, self.version, labels=labels, deleted=deleted)
        if deleted:
            del self.state[event.key]
        else:
            self.state[event.key] = event
        self.past[self.version] = dict(self.state)
        self.sent.append(event)

    @rule(name=NAMES, labels=LABELS, deleted=st.booleans(), arrives=st.booleans())
    def event(self, name: str, labels: dict[str, str], *, deleted: bool, arrives: bool) -> None:
        if not deleted or f"default/{name}" in self.state:
            self.change(name, labels, deleted=deleted)
        if arrives:
            self.arrive(len(self.sent))

    @rule(count=st.integers(1, 3))
    def elsewhere(self, count: int) -> None:
        """Other partitions and resources take versions."""
        self.version += count

    @rule(count=st.integers(1, 4))
    def arrive(self, count: int) -> None:
        for event in self.sent[:count]:
            self.store.apply(event)
        del self.sent[:count]

    @rule()
    def bookmark(self) -> None:
        if not self.sent:
            self.store.advance(Version(self.version))

    @rule()
    def relist(self) -> None:
        self.sent.clear()
        self.list_all()

    @rule(seconds=st.sampled_from([1.0, 25.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.store.expire()

    # -- clients ---------------------------------------------------------------------------------------------

    def matching(self, selector: str) -> dict[str, int]:
        matches = LabelSelector.parse(selector).matches
        return {
            key: entry.version for key, entry in self.store._entries.items() if matches(entry.labels.labels())
        }

    @rule(selector=st.sampled_from(SELECTORS), behind=st.integers(0, 6))
    def a_client_lists(self, selector: str, behind: int) -> None:
        """The version of its list is that of the partition furthest behind."""
        frontier = self.store.frontier
        self.clients.append(Client(selector, self.matching(selector), {max(1, frontier - behind)}))

    @precondition(lambda self: self.now < SETTLING_S)
    @rule(selector=st.sampled_from(SELECTORS), at=PICK, shown=PICK)
    def a_client_of_the_owner_before(self, selector: str, at: int, shown: int) -> None:
        """The partition moves: its owner before was not behind our list, and let versions be shown."""
        reached = self.listed + at % (self.version - self.listed + 1)
        version = reached + shown % (self.version - reached + 1)
        then = max((known for known in self.past if known <= reached), default=None)
        state = {} if then is None else self.past[then]
        matches = LabelSelector.parse(selector).matches
        known = {
            key: int(held.version) for key, held in state.items() if matches(json.loads(held.labels or b"{}"))
        }
        self.clients.append(Client(selector, known, {version}, connected=False))

    @rule(version=PICK)
    def shown_from_elsewhere(self, version: int) -> None:
        """A version of another partition goes out to everybody, once this one is cleared to it."""
        version = 1 + version % self.version
        if version > self.store.frontier:
            self.store.overtake(Version(version))
        for client in self.clients:
            if client.connected:
                client.shown.add(version)

    @precondition(lambda self: any(client.connected for client in self.clients))
    @rule(which=PICK, name=NAMES, labels=LABELS, more=st.booleans(), gone=st.booleans())
    def a_client_goes_away_before_a_late_event(
        self, which: int, name: str, labels: dict[str, str], *, more: bool, gone: bool
    ) -> None:
        """What all of this is about, in one step."""
        self.arrive(len(self.sent))
        self.change(name, labels, deleted=gone and f"default/{name}" in self.state)
        late = len(self.sent)
        self.elsewhere(1)
        self.shown_from_elsewhere(self.version - 1)
        if more:
            self.change(name, {}, deleted=False)
        connected = [client for client in self.clients if client.connected]
        connected[which % len(connected)].connected = False
        self.arrive(late)

    @precondition(lambda self: self.clients)
    @rule(which=PICK)
    def a_client_goes_away(self, which: int) -> None:
        self.clients[which % len(self.clients)].connected = False

    @precondition(lambda self: any(not client.connected for client in self.clients))
    @rule(which=PICK, version=PICK, size=st.sampled_from([1, 1 << 20]))
    def a_client_comes_back(self, which: int, version: int, size: int) -> None:
        away = [client for client in self.clients if not client.connected]
        client = away[which % len(away)]
        since = sorted(client.shown)[version % len(client.shown)]
        query = ChangesQuery(
            partition=self.store.partition.id,
            epoch=Epoch(1),
            since=Version(since),
            labels=client.selector,
            exact=False,
            max_bytes=size,
        )
        try:
            pages = list(self.store.changes(query))
        except Expired:
            self.clients.remove(client)
            return
        except TooLargeVersion:
            assert since > max(self.store.frontier, self.store.overtaken)
            return
        changes = [change for page in pages for change in page.changes]
        assert [change.version for change in changes] == sorted(change.version for change in changes)
        assert len({change.key for change in changes}) == len(changes), "each object once"
        for change in changes:
            body: dict[str, Any] = json.loads(change.body)
            client.tell(change.type, change.key, change.version, int(body["metadata"]["resourceVersion"]))
        client.connected = True

    @invariant()
    def who_is_connected_knows_what_is_held(self) -> None:
        for client in self.clients:
            if client.connected:
                assert client.known == self.matching(client.selector)


Resuming.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestResuming = Resuming.TestCase
