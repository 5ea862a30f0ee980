"""Stores that are moved: filled with a random past, asked for everything there is to ask, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hypothesis import strategies as st
from support.observed import PODS, observed, query

from shoal.shards.model.errors import Expired, TooLargeVersion
from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import (
    EVERYTHING,
    HASH_END,
    Cover,
    Epoch,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    fnv1a64,
)
from shoal.shards.model.queries import ChangesQuery, CountQuery
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.entries import Entry
from shoal.shards.store.objects import PartitionStore
from shoal.shards.store.past import Event
from shoal.shards.store.transfer import Arrival, Extract, join

NAMESPACES = ("a", "a-b", "b")
NAMES = ("p", "q", "r")
UIDS = ("one", "two", "three", "four")
SETTLING_S = 20.0
FIRST = 10
"""The version before the first object."""

MIDDLE = sorted(fnv1a64(uid) for uid in UIDS)[2]
BETWEEN = sorted(fnv1a64(namespace) for namespace in NAMESPACES)[1]
DIVISIONS: dict[str, tuple[Cover, ...]] = {
    "whole": (EVERYTHING,),
    "carved": (OneNamespace("a"), ExceptNamespaces(("a",))),
    "carved twice": (OneNamespace("a"), OneNamespace("b"), ExceptNamespaces(("a", "b"))),
    "by namespace": (HashRange("namespace", 0, BETWEEN), HashRange("namespace", BETWEEN, HASH_END)),
    "by uid": (HashRange("uid", 0, MIDDLE), HashRange("uid", MIDDLE, HASH_END)),
    "one by uid": (
        HashRange("uid", 0, MIDDLE, "a"),
        HashRange("uid", MIDDLE, HASH_END, "a"),
        ExceptNamespaces(("a",)),
    ),
    "the rest by uid": (
        OneNamespace("a"),
        HashRange("uid", 0, MIDDLE, None, ("a",)),
        HashRange("uid", MIDDLE, HASH_END, None, ("a",)),
    ),
}
BY_UID = frozenset(name for name in DIVISIONS if "uid" in name)

OBJECTS = st.fixed_dictionaries(
    {
        "namespace": st.sampled_from(NAMESPACES),
        "name": st.sampled_from(NAMES),
        "uid": st.sampled_from(UIDS),
        "labels": st.dictionaries(st.just("app"), st.sampled_from(["web", "db"])),
        "node": st.sampled_from(["", "node-1", "node-ü"]),
    }
)


def pod(wanted: dict[str, Any], version: int, *, deleted: bool = False) -> Observation:
    """An object as the server tells it."""
    fields = [""] * len(PODS.selectable_fields)
    fields[PODS.selectable_fields.index("spec.nodeName")] = wanted["node"]
    return observed(
        wanted["name"],
        version,
        namespace=wanted["namespace"],
        uid=wanted["uid"],
        labels=wanted["labels"],
        fields=tuple(fields),
        deleted=deleted,
    )


class Clock:
    """A clock whose numbers add up exactly."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def new_store(clock: Callable[[], float], cover: Cover = EVERYTHING, **settings: Any) -> PartitionStore:
    """An empty store; its history is short, so that it loses events."""
    wanted = {"history_s": 60.0, "history_bytes": 8000, "settling_s": SETTLING_S} | settings
    return PartitionStore(
        Partition(PODS.resource, cover), PODS, settings=StoreSettings(**wanted), clock=clock
    )


def sent(extract: Extract, *, max_bytes: int = 700) -> Extract:
    """What arrives of it, in small frames."""
    arrival = Arrival()
    for frame in extract.frames(max_bytes):
        arrival.take(frame)
    return arrival.finish()


def moved(
    extracts: Sequence[Extract], clock: Callable[[], float], cover: Cover, **settings: Any
) -> PartitionStore:
    """A store made of them."""
    store = new_store(clock, cover, **settings)
    store.restore(join(extracts, cover))
    return store


def thing(name: str, namespace: str = "a", uid: str = "", **more: Any) -> dict[str, Any]:
    """What `pod` makes an object of."""
    named = {"namespace": namespace, "name": name, "uid": uid or f"uid-{namespace}-{name}"}
    return named | {"labels": {"app": "web"}, "node": "node-1"} | more


def listed(store: PartitionStore, version: int, *names: str) -> PartitionStore:
    """The store after a list of these objects, by ``namespace/name``."""
    store.begin()
    for number, name in enumerate(names):
        namespace, _, rest = name.rpartition("/")
        store.put(pod(thing(rest, namespace or "a"), number + 1))
    store.finish(Version(version))
    return store


def apply(store: PartitionStore, name: str, version: int, **more: Any) -> None:
    """An event about ``namespace/name`` arrives."""
    namespace, _, rest = name.rpartition("/")
    store.apply(pod(thing(rest, namespace or "a"), version, **more))


CARVED, REST = OneNamespace("a"), ExceptNamespaces(("a",))


def two_parts() -> tuple[PartitionStore, PartitionStore]:
    """One namespace and the rest, both listed at 10."""
    carved = listed(new_store(Clock(), CARVED, settling_s=0.0), 10, "a/p", "a/q")
    rest = listed(new_store(Clock(77.0), REST, settling_s=0.0), 10, "b/p")
    return carved, rest


def window(store: PartitionStore, since: int) -> list[int]:
    """Versions told by newest states; see `History.window`."""
    return [event.version for event in store._history.window(Version(since))]


def replay(store: PartitionStore, since: int) -> list[int]:
    """Versions told event by event."""
    return [event.version for event in store._history.replay(Version(since))]


# -- everything there is to ask --------------------------------------------------------------------------------

Told = tuple[int, str, tuple[str, int] | None, tuple[str, int] | None]
"""An event: version, key, uid and version of the state before and after."""


def told(event: Event) -> Told:
    """An event as a value."""
    return event.version, event.key, *(_told(state) for state in (event.before, event.after))


def _told(state: Entry | None) -> tuple[str, int] | None:
    return None if state is None else (state.uid, state.version)


def asked(question: Callable[[], Any]) -> Any:
    """The answer, or which error."""
    try:
        return question()
    except (Expired, TooLargeVersion) as error:
        return type(error).__name__


def state(store: PartitionStore, at: int | None = None) -> dict[str, bytes]:
    """Keys and bodies at a version."""
    page = store.page(query(limit=1000, at=None if at is None else Version(at)))
    return dict(zip(page.keys, page.bodies, strict=True))


def versions(store: PartitionStore) -> range:
    """All that may be asked for, and one more at either end."""
    return range(FIRST, max(store.frontier, store.overtaken) + 2)


def answers(store: PartitionStore) -> dict[str, Any]:
    """What a store says to every question."""
    history = store._history
    found: dict[str, Any] = {
        "objects": {key: store.get(Key(key)) for key in state(store)},
        "count": store.count(query()),
        "labels": store.count(query(labels="app=web")),
        "node": store.count(query(fields="spec.nodeName=node-ü")),
        "groups": store.tally(
            CountQuery(partition=store.partition.id, epoch=Epoch(0), group_by="metadata.labels[app]")
        ),
        "index": store._index.sizes(),
        "audit": store.audit,
        "body_bytes": store.body_bytes,
        "frontier": store.frontier,
        "age": store.frontier_age_s,
        "overtaken": store.overtaken,
        "marks": store._marks.kept,
        "oldest": store.oldest_version,
        "resumable": store.resumable,
        "shown_before": store.shown_before,
        "divided_until": store.divided_until,
        "settle_due": store.settle_due,
        "history": store.history_statistics(),
        "floors": (history._late_floor, history._correction_floor, history._settled, history._unsettled_lost),
        "gaps": list(history._gaps),
        "events": [(told(event), store._clock() - event.at) for event in history],
    }
    for version in versions(store):
        found[f"state {version}"] = asked(lambda at=version: state(store, at))
        found[f"corrected {version}"] = history.corrected(Version(version))
        for name, replayed in (("exact", history.replay), ("newest", history.window)):
            found[f"{name} {version}"] = asked(
                lambda since=version, replayed=replayed: [told(event) for event in replayed(Version(since))]
            )
            found[f"{name} changes {version}"] = asked(
                lambda since=version, exact=name == "exact": changes(store, since, exact=exact)
            )
    return found


def changes(store: PartitionStore, since: int, *, exact: bool, labels: str = "app=web") -> list[Any]:
    """What who resumes there is told."""
    asking = ChangesQuery(
        partition=store.partition.id, epoch=Epoch(0), since=Version(since), exact=exact, labels=labels
    )
    return [
        (change.type, change.key, change.version, change.body)
        for page in store.changes(asking)
        for change in page.changes
    ]


def differences(mine: dict[str, Any], others: dict[str, Any], *, but: Iterable[str] = ()) -> dict[str, Any]:
    """Questions that are answered differently."""
    return {
        question: (mine.get(question), others.get(question))
        for question in mine.keys() | others.keys()
        if mine.get(question) != others.get(question) and not question.startswith(tuple(but))
    }


def within(cover: Cover, happened: Iterable[Told]) -> list[Told]:
    """Events as they look from one part."""
    found: list[Told] = []
    for version, key, before, after in happened:
        namespace = key.rpartition("/")[0]
        mine = [
            side if side is not None and cover.admits(namespace, side[0]) else None
            for side in (before, after)
        ]
        if any(mine):
            found.append((version, key, mine[0], mine[1]))
    return found
