"""The store against a dict: random lists, events, bookmarks and broken-off lists; every past state stays
readable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.observed import PODS, observed, query

from shoal.shards.model.errors import Expired
from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import Partition
from shoal.shards.model.refs import Key
from shoal.shards.model.selectors import FieldSelector, LabelSelector
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.audit import digest
from shoal.shards.store.objects import PartitionStore

State = Mapping[Key, Observation]

NAMESPACES = st.sampled_from(["a", "a-b", "b"])
NAMES = st.sampled_from(["p", "q", "r", "s"])
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["web", "db"]), max_size=2)
NODES = st.sampled_from(["", "node-1", "node-2"])
PHASES = st.sampled_from(["Running", "Pending"])
LABEL_SELECTORS = st.sampled_from(
    [
        "",
        "app",
        "!app",
        "app=web",
        "app!=web",
        "app in (web,db)",
        "app notin (web),tier",
        "tier=db,app",
        "!tier,!app",
        "app=none",
    ]
)
FIELD_SELECTORS = st.sampled_from(
    [
        "",
        "spec.nodeName=node-1",
        "spec.nodeName!=node-1",
        "spec.nodeName=",
        "status.phase=Running,spec.nodeName=node-2",
        "metadata.name=p",
        "metadata.name=p,metadata.namespace=a",
        "metadata.namespace=a",
        "metadata.namespace!=a,metadata.namespace!=a-b",
        "metadata.name!=q",
        "metadata.namespace=a,metadata.namespace=b",
    ]
)
OBJECTS = st.fixed_dictionaries(
    {"namespace": NAMESPACES, "name": NAMES, "labels": LABELS, "node": NODES, "phase": PHASES}
)


def made(wanted: Mapping[str, Any], version: int, *, deleted: bool = False) -> Observation:
    fields = [""] * len(PODS.selectable_fields)
    fields[PODS.selectable_fields.index("spec.nodeName")] = wanted["node"]
    fields[PODS.selectable_fields.index("status.phase")] = wanted["phase"]
    return observed(
        wanted["name"],
        version,
        namespace=wanted["namespace"],
        labels=wanted["labels"],
        fields=tuple(fields),
        deleted=deleted,
    )


def expected(
    state: State, *, namespace: str | None = None, labels: str = "", fields: str = "", after: str = ""
) -> list[tuple[Key, bytes]]:
    """The slow oracle: every object is looked at."""
    label_selector, field_selector = LabelSelector.parse(labels), FieldSelector.parse(fields)
    return [
        (key, held.body)
        for key, held in sorted(state.items())
        if key > after
        and (namespace is None or held.namespace == namespace)
        and label_selector.matches(json.loads(held.labels or b"{}"))
        and field_selector.matches(field_of(held))
    ]


def field_of(held: Observation) -> Callable[[str], str]:
    values = dict(zip(PODS.selectable_fields, held.fields, strict=True))
    values["metadata.name"] = held.key.rpartition("/")[2]
    values["metadata.namespace"] = held.namespace
    return values.__getitem__


class StoreAgainstDict(RuleBasedStateMachine):
    """One server state that moves on, told to the store in every way a reflector can."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.store = PartitionStore(
            Partition(PODS.resource),
            PODS,
            settings=StoreSettings(history_s=50.0, history_bytes=40_000, dictionary_samples=8),
            clock=lambda: self.now,
        )
        self.state: dict[Key, Observation] = {}
        self.version = 10
        self.past: dict[int, State] = {}
        self.frontier_moves = 0
        self.store.subscribe(self.moved)

    def moved(self) -> None:
        self.frontier_moves += 1

    def record(self) -> None:
        self.past[self.version] = dict(self.state)

    def change(self, wanted: Mapping[str, Any], *, deleted: bool) -> Observation | None:
        """The server changes an object; the event it would send."""
        key = made(wanted, 0).key
        if deleted and key not in self.state:
            return None
        self.version += 1
        event = made(wanted, self.version, deleted=deleted)
        if deleted:
            del self.state[key]
        else:
            self.state[key] = event
        return event

    def list_all(self) -> None:
        self.store.begin()
        for _, held in sorted(self.state.items()):
            self.store.put(held)
        self.store.finish(Version(self.version))
        self.record()

    @initialize(objects=st.lists(OBJECTS, max_size=12))
    def first_list(self, objects: list[Mapping[str, Any]]) -> None:
        for wanted in objects:
            self.change(wanted, deleted=False)
        self.list_all()

    @rule(wanted=OBJECTS, deleted=st.booleans(), skipped=st.integers(0, 3))
    def event(self, wanted: Mapping[str, Any], *, deleted: bool, skipped: int) -> None:
        if deleted and made(wanted, 0).key not in self.state:
            return
        self.version += skipped  # other resources take versions as well
        event = self.change(wanted, deleted=deleted)
        if event is not None:
            self.store.apply(event)
            self.record()

    @rule(skipped=st.integers(0, 5))
    def bookmark(self, skipped: int) -> None:
        self.version += skipped
        self.store.advance(Version(self.version))
        self.record()

    @rule(changes=st.lists(st.tuples(OBJECTS, st.booleans()), max_size=6), gap=st.integers(0, 3))
    def relist(self, changes: list[tuple[Mapping[str, Any], bool]], gap: int) -> None:
        """Events are missed, then everything is listed."""
        for wanted, deleted in changes:
            self.change(wanted, deleted=deleted)
        self.version += gap
        self.list_all()

    @rule(objects=st.lists(OBJECTS, max_size=4), wanted=OBJECTS)
    def broken_list(self, objects: list[Mapping[str, Any]], wanted: Mapping[str, Any]) -> None:
        """A list breaks off; readers and later events must not notice."""
        self.store.begin()
        for other in objects:
            self.store.put(made(other, self.version + 1))
        self.store.abandon()
        event = self.change(wanted, deleted=False)
        assert event is not None
        self.store.apply(event)
        self.record()

    @rule(wanted=OBJECTS, deleted=st.booleans(), age=st.integers(0, 30))
    def late_event(self, wanted: Mapping[str, Any], *, deleted: bool, age: int) -> None:
        late = made(wanted, max(1, self.version - age), deleted=deleted)
        held = self.state.get(late.key)
        if held is not None and held.version == late.version:
            return  # that very state, or the deletion some servers report with it
        ignored = self.store.ignored
        self.store.apply(late)
        assert self.store.ignored == ignored + 1

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.past)
    @rule(
        pick=st.randoms(use_true_random=False),
        namespace=st.none() | NAMESPACES,
        labels=LABEL_SELECTORS,
        fields=FIELD_SELECTORS,
        limit=st.integers(1, 5),
    )
    def read(self, pick: Any, namespace: str | None, labels: str, fields: str, limit: int) -> None:
        """Pages of a state, present or past, are that state; older ones are expired."""
        version = pick.choice(sorted(self.past)[-12:])
        wanted = {"namespace": namespace, "labels": labels, "fields": fields}
        truth = expected(self.past[version], **wanted)
        after, seen = "", []
        while True:
            asked = query(at=Version(version), after=after, limit=limit, **wanted)
            try:
                page = self.store.page(asked)
            except Expired:
                assert version < self.store.oldest_version
                return
            assert page.version == version
            assert page.remaining == len(truth) - len(seen) - len(page.keys)
            assert page.more == (page.remaining > 0)
            seen += list(zip(page.keys, page.bodies, strict=True))
            if not page.more:
                break
            after = page.keys[-1]
        assert seen == truth
        assert self.store.count(query(at=Version(version), **wanted)) == len(truth)

    @invariant()
    def newest_state_is_the_servers(self) -> None:
        if not self.store.synced:
            return
        page = self.store.page(query(limit=1000))
        assert list(zip(page.keys, page.bodies, strict=True)) == expected(self.state)
        assert (page.version, page.remaining, page.more) == (self.version, 0, False)
        assert len(self.store) == len(self.state)
        assert all(self.store.get(key) == held.body for key, held in self.state.items())

    @invariant()
    def counters_are_what_recounting_gives(self) -> None:
        store = self.store
        assert store.audit == digest((held.uid, held.version) for held in self.state.values())
        assert store.body_bytes == sum(len(entry.packed) for entry in store._entries.values())
        assert list(store._keys) == sorted(store._entries)
        history = store._history
        assert history.bytes == sum(event.weight for event in history)
        assert all(event.version >= store.oldest_version for event in history)
        sizes = store._index.sizes()
        assert sizes["label_sets"] == len({held.labels for held in self.state.values()})
        assert sizes["pairs"] == len(
            {pair for held in self.state.values() for pair in json.loads(held.labels or b"{}").items()}
        )


StoreAgainstDict.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestStoreAgainstDict = StoreAgainstDict.TestCase
