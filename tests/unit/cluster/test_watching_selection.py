"""Which events a kind of watcher sees, and as what; checked against the shard's own replay elsewhere."""

import pytest
from support.watched_shards import PODS, body_of

from shoal.cluster.watching.selection import LiveEvent, Selection, Selector
from shoal.shards.model.partitions import HASH_END, fnv1a64
from shoal.shards.model.queries import FeedEvent

FRONT, BACK = b'{"tier":"front"}', b'{"tier":"back"}'


def event(kind="MODIFIED", *, labels=b"", fields=("", ""), before=None, uid="u", key="a/one"):
    return LiveEvent("v1/pods", FeedEvent(7, kind, key, uid, b"now", labels, fields, before))


def seen(selector, told):
    sight = Selection(selector, PODS).sight(told)
    return None if sight is None else (sight.type, sight.body)


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED"])
def test_without_selectors_an_event_is_what_it_is(kind):
    assert seen(Selector(), event(kind)) == (kind, b"now")
    assert seen(Selector(namespace="a"), event(kind)) == (kind, b"now")
    assert seen(Selector(namespace="aa"), event(kind)) is None


@pytest.mark.parametrize(
    ("after", "before", "expected"),
    [
        (FRONT, None, ("MODIFIED", b"now")),
        (BACK, None, None),
        (FRONT, FRONT, ("MODIFIED", b"now")),
        (FRONT, BACK, ("ADDED", b"now")),
        (FRONT, b"", ("ADDED", b"now")),
        (BACK, FRONT, ("DELETED", b"was")),
        (b"", FRONT, ("DELETED", b"was")),
        (BACK, b"", None),
    ],
)
def test_entering_and_leaving(after, before, expected):
    state = None if before is None else (b"was", before, ("", ""))
    assert seen(Selector(labels="tier=front"), event(labels=after, before=state)) == expected


def test_additions_and_deletions_are_seen_if_their_state_matches():
    for kind in ("ADDED", "DELETED"):
        assert seen(Selector(labels="tier=front"), event(kind, labels=FRONT)) == (kind, b"now")
        assert seen(Selector(labels="tier=front"), event(kind, labels=BACK)) is None
        assert seen(Selector(labels="tier!=front"), event(kind)) == (kind, b"now")


def test_fields_are_those_of_the_resource_and_the_name():
    told = event(fields=("n1", "Running"), before=(b"was", b"", ("n2", "Running")))
    assert seen(Selector(fields="spec.nodeName=n1"), told) == ("ADDED", b"now")
    assert seen(Selector(fields="spec.nodeName=n2"), told) == ("DELETED", b"was")
    assert seen(Selector(fields="spec.nodeName!=n3,status.phase=Running"), told) == ("MODIFIED", b"now")
    assert seen(Selector(fields="metadata.name=one,metadata.namespace!=b"), told) == ("MODIFIED", b"now")
    assert seen(Selector(fields="metadata.name=two"), told) is None


def test_shard_ranges_by_namespace_and_by_the_uid_of_each_state():
    def only(field, value):
        at = fnv1a64(value)
        return Selector(shards=f"shardRange(object.metadata.{field}, '0x{at:016x}', '0x{at + 1:016x}')")

    assert seen(only("namespace", "a"), event()) == ("MODIFIED", b"now")
    assert seen(only("namespace", "b"), event()) is None
    was = body_of("a", "one", "old", 6, {})
    replaced = event(uid="new", before=(was, b"", ("", "")))
    assert seen(only("uid", "new"), replaced) == ("ADDED", b"now")
    assert seen(only("uid", "old"), replaced) == ("DELETED", was)
    everything = Selector(shards=f"shardRange(object.metadata.uid, '0x{0:016x}', '0x{HASH_END:016x}')")
    assert seen(everything, replaced) == ("MODIFIED", b"now")


def test_labels_are_read_once_for_all():
    told = event(labels=FRONT)
    assert told.labels(FRONT) is told.labels(FRONT)
