"""A store that was moved answers every question as the one it came from, and goes on as that one would have.

A random past, with lists, late events, corrections, gaps, marks, refutations and evictions; then the partition is moved
as frames. Every answer, at every version, is compared; and again after more of the same has happened to both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support.moved_stores import (
    BY_UID,
    DIVISIONS,
    FIRST,
    OBJECTS,
    Clock,
    answers,
    asked,
    differences,
    moved,
    new_store,
    pod,
    sent,
    state,
    told,
    versions,
    within,
)
from support.observed import query

from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import EVERYTHING, Cover
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version
from shoal.shards.store.arrival import contradiction
from shoal.shards.store.audit import digest
from shoal.shards.store.objects import PartitionStore
from shoal.shards.store.transfer import join

PICK = st.integers(0, 10**6)


def said(store: PartitionStore, question: str, version: Version) -> Any:
    """What history answers, in values."""
    return asked(lambda: [told(event) for event in getattr(store._history, question)(version)])


class Moving(RuleBasedStateMachine):
    """One server; a store that follows it; and stores that took over from that and follow it as well."""

    def __init__(self) -> None:
        super().__init__()
        self.clocks = [Clock(100.0)]
        self.stores = [new_store(self.clocks[0])]
        self.version = FIRST
        self.state: dict[Key, tuple[dict[str, Any], Observation]] = {}

    @property
    def source(self) -> PartitionStore:
        return self.stores[0]

    def all(self, act: Callable[[PartitionStore], object]) -> None:
        for store in self.stores:
            act(store)

    # -- what happens ----------------------------------------------------------------------------------------

    @initialize(objects=st.lists(OBJECTS, max_size=8))
    def first_list(self, objects: list[dict[str, Any]]) -> None:
        for wanted in objects:
            self.change(wanted, deleted=False)
        self.list_all(0)

    def change(self, wanted: dict[str, Any], *, deleted: bool) -> Observation | None:
        key = pod(wanted, 0).key
        if deleted and key not in self.state:
            return None
        self.version += 1
        if deleted:
            held, _ = self.state.pop(key)
            return pod(held, self.version, deleted=True)
        event = pod(wanted, self.version)
        self.state[key] = (wanted, event)
        return event

    @rule(wanted=OBJECTS, deleted=st.booleans(), skipped=st.integers(0, 2))
    def event(self, wanted: dict[str, Any], *, deleted: bool, skipped: int) -> None:
        self.version += skipped
        event = self.change(wanted, deleted=deleted)
        if event is not None:
            self.all(lambda store: store.apply(event))

    @rule(wanted=OBJECTS)
    def deletion_at_the_version_of_the_last_state(self, wanted: dict[str, Any]) -> None:
        """As kube-apiserver before 1.17 told it: a correction."""
        held = self.change(wanted, deleted=False)
        assert held is not None
        del self.state[held.key]
        self.all(lambda store: store.apply(held))
        self.all(lambda store: store.apply(pod(wanted, self.version, deleted=True)))

    @rule(skipped=st.integers(0, 4))
    def bookmark(self, skipped: int) -> None:
        self.version += skipped
        self.all(lambda store: store.advance(Version(self.version)))

    @rule(changes=st.lists(st.tuples(OBJECTS, st.booleans()), max_size=4), gap=st.integers(0, 3))
    def relist(self, changes: list[tuple[dict[str, Any], bool]], gap: int) -> None:
        for wanted, deleted in changes:
            self.change(wanted, deleted=deleted)
        self.list_all(gap)

    def list_all(self, gap: int) -> None:
        self.version += gap
        for store in self.stores:
            store.begin()
            for _, held in sorted(self.state.values(), key=lambda both: both[1].key):
                store.put(held)
            store.finish(Version(self.version))

    @rule(beyond=st.integers(1, 8), late=st.lists(OBJECTS, max_size=3))
    def shown_elsewhere(self, beyond: int, late: list[dict[str, Any]]) -> None:
        """A version of another partition is shown, and events below it come late."""
        self.all(lambda store: store.overtake(Version(self.version + beyond)))
        for wanted in late:
            self.event(wanted, deleted=False, skipped=0)

    @rule()
    def asked_where_it_is(self) -> None:
        """Refutes marks that are too new, and settles."""
        for store in self.stores:
            store.told(Version(self.version), store.moment)

    @rule(shown=st.integers(-3, 6))
    def shown_before(self, shown: int) -> None:
        self.all(lambda store: store.take_over(Version(max(FIRST, self.version + shown))))

    @rule(seconds=st.sampled_from([0.5, 3.0, 21.0, 45.0, 61.0]), expire=st.booleans())
    def time_passes(self, seconds: float, *, expire: bool) -> None:
        for clock in self.clocks:
            clock.now += seconds
        if expire:
            self.all(lambda store: store.expire())

    # -- moves -----------------------------------------------------------------------------------------------

    @rule(offset=st.sampled_from([-4096.0, 0.0, 8192.0]), wire=st.booleans())
    def moves(self, offset: float, *, wire: bool) -> None:
        clock = Clock(self.clocks[0].now + offset)
        whole = self.source.extract()
        store = moved([sent(whole) if wire else whole], clock, EVERYTHING)
        assert not differences(answers(self.source), answers(store))
        self.clocks.append(clock)
        self.stores.append(store)
        # Of what it takes over from nothing was shown without its knowing: nothing is different from then on.
        self.all(lambda one: one._history.__setattr__("_brought", None))

    @precondition(lambda self: len(self.stores) > 1)
    @rule()
    def goes_on_as_the_other_would(self) -> None:
        first = answers(self.source)
        for store in self.stores[1:]:
            assert not differences(first, answers(store))

    @rule(division=st.sampled_from(sorted(DIVISIONS)), wire=st.booleans())
    def divided(self, division: str, *, wire: bool) -> None:
        """Each part answers as the whole does about it."""
        covers = DIVISIONS[division]
        whole = self.source.extract()
        for cover in covers:
            part = whole.restricted(cover)
            store = moved([sent(part) if wire else part], Clock(7.0), cover)
            self.answers_for(store, exactly=division not in BY_UID)

    @rule(division=st.sampled_from(sorted(DIVISIONS)), wire=st.booleans())
    def divided_and_joined(self, division: str, *, wire: bool) -> None:
        """All parts together are the whole again."""
        whole = self.source.extract()
        parts = [whole.restricted(cover) for cover in DIVISIONS[division]]
        one = join([sent(part) if wire else part for part in parts], EVERYTHING)
        assert not contradiction(one)
        store = moved([one], Clock(7.0), EVERYTHING)
        self.is_the_whole(store, exactly=division not in BY_UID)

    def is_the_whole(self, store: PartitionStore, *, exactly: bool) -> None:
        source = self.source
        same = (
            "frontier",
            "oldest_version",
            "shown_before",
            "overtaken",
            "frontier_age_s",
            "audit",
            "body_bytes",
        )
        for name in same:
            assert getattr(store, name) == getattr(source, name), name
        for version in map(Version, versions(source)):
            assert asked(lambda at=version: state(store, at)) == asked(lambda at=version: state(source, at))
            assert store._history.corrected(version) >= source._history.corrected(version)
            for question in ("replay", "window"):
                mine, others = (said(one, question, version) for one in (store, source))
                if isinstance(others, str) or isinstance(mine, str):
                    assert mine == others
                elif exactly and question == "replay":
                    # Those of one version have no order among partitions.
                    assert sorted(mine, key=str) == sorted(others, key=str)
                elif exactly:
                    assert set(mine) >= set(others)
                else:
                    assert {event[1] for event in mine} >= {event[1] for event in others}

    def answers_for(self, part: PartitionStore, *, exactly: bool) -> None:
        cover, source = part.partition.cover, self.source
        admitted = {
            key for key, entry in source._entries.items() if cover.admits(key.rpartition("/")[0], entry.uid)
        }
        assert set(state(part)) == admitted
        assert part.audit == digest((entry.uid, entry.version) for entry in part._entries.values())
        assert part.frontier_age_s == source.frontier_age_s
        for name in ("frontier", "oldest_version", "shown_before", "divided_until", "overtaken"):
            assert getattr(part, name) == getattr(source, name)
        for version in versions(source):
            corrected = part._history.corrected(Version(version))
            assert source._history.corrected(Version(version)) or not corrected
            for question in ("replay", "window"):
                mine, all_of_it = (said(one, question, Version(version)) for one in (part, source))
                if isinstance(all_of_it, str) or isinstance(mine, str):
                    assert mine == all_of_it
                elif exactly or question == "replay":
                    assert mine == within(cover, all_of_it)
                else:
                    assert set(mine) >= set(within(cover, all_of_it))
            assert asked(lambda at=version: state(part, at)) == asked(lambda at=version: self.was(at, cover))

    def was(self, at: int, cover: Cover) -> dict[Key, bytes]:
        """What the whole held of a part."""
        source = self.source
        return {
            entry.key: entry.body()
            for entry in source._snapshot(Version(at)).found(source._select(query()))
            if cover.admits(entry.key.rpartition("/")[0], entry.uid)
        }


Moving.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestMoving = Moving.TestCase
