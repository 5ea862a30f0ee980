"""What an informer holds and tells its listener of: late events, versions given twice, selectors, threads."""

import msgspec
import pytest

from shoal.cluster.informers.narrowing import Narrowing
from shoal.cluster.informers.store import DELETIONS_REMEMBERED, InformerStore, deleted_object, object_of
from shoal.shards.api.requests import list_request, watch_request
from shoal.shards.model.errors import BadRequest
from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import ExceptNamespaces, Partition
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings

PODS = ResourceType(
    resource=Resource("", "v1", "pods"), kind="Pod", namespaced=True, selectable_fields=("spec.nodeName",)
)


class Listening:
    def __init__(self):
        self.told = []
        self.lists = 0
        self.older = []

    def changed(self, key, before, after, at, gone, body=None):  # noqa: PLR0917
        assert body is None or body == after.body()
        self.told.append((key, before and before.version, after and after.version, gone))

    def listed(self):
        self.lists += 1

    def went_back(self, objects):
        self.older.append(objects)

    def take(self):
        told, self.told = self.told, []
        return told


class Bench:
    def __init__(self, **narrowing):
        self.listener = Listening()
        self.store = InformerStore(
            Partition(PODS.resource),
            PODS,
            settings=StoreSettings(),
            clock=lambda: 0.0,
            narrowing=Narrowing.parse(**narrowing),
            reshape=None,
            listener=self.listener,
        )

    def list(self, version, *observations):
        self.store.begin()
        for observation in observations:
            self.store.put(observation)
        self.store.finish(Version(version))
        return self.listener.take()

    def apply(self, observation):
        self.store.apply(observation)
        return self.listener.take()


def pod(name, version, *, deleted=False, uid="", node="", labels=b"", namespace="default", note=""):
    document = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": str(version), "note": note},
    }
    return Observation(
        deleted,
        Key(f"{namespace}/{name}"),
        namespace,
        uid or name,
        version,
        labels,
        (node,),
        msgspec.json.encode(document),
    )


def test_each_difference_is_told_after_it_can_be_read():
    bench = Bench()
    assert bench.list(5, pod("a", 3), pod("b", 4)) == [
        ("default/a", None, 3, None),
        ("default/b", None, 4, None),
    ]
    assert bench.apply(pod("a", 6)) == [("default/a", 3, 6, None)]
    assert bench.apply(pod("b", 7, deleted=True)) == [("default/b", 4, None, 7)]
    assert bench.apply(pod("b", 7, deleted=True)) == []
    assert bench.list(9, pod("c", 8)) == [("default/a", 6, None, None), ("default/c", None, 8, None)]
    assert bench.listener.lists == 2
    assert bench.store.history_statistics().events == 0, "an informer keeps no past"


def test_a_past_that_was_lost_is_told_as_a_difference():
    bench = Bench()
    bench.list(9, pod("a", 8), pod("b", 4), pod("c", 5))
    assert sorted(bench.list(6, pod("a", 3), pod("b", 4), pod("d", 6))) == [
        ("default/a", 8, 3, None),
        ("default/c", 5, None, None),
        ("default/d", None, 6, None),
    ]
    assert bench.listener.older == [1]
    assert bench.apply(pod("a", 7)) == [("default/a", 3, 7, None)]


def test_a_version_that_was_given_twice_is_told_if_the_object_differs():
    """A server restored from a backup counts on from there: the same version is another state."""
    bench = Bench()
    bench.list(9, pod("a", 8, note="lost"), pod("b", 4))
    assert bench.list(8, pod("a", 8, note="new"), pod("b", 4)) == [("default/a", 8, 8, None)]
    assert object_of(bench.store.entry(Key("default/a"))).metadata.note == "new"
    # Also where the server has gone on since, so that nobody can tell that it went back.
    assert bench.list(12, pod("a", 8, note="newer"), pod("b", 4)) == [("default/a", 8, 8, None)]


def test_events_below_the_frontier_are_old_unless_a_gateway_tells_them():
    bench = Bench()
    bench.list(10, pod("a", 3))
    assert bench.apply(pod("a", 7)) == []
    bench.store.behind_gateway = True
    assert bench.apply(pod("a", 7)) == [("default/a", 3, 7, None)]
    assert bench.apply(pod("a", 7)) == []
    assert bench.apply(pod("a", 6)) == []
    assert bench.apply(pod("b", 8)) == [("default/b", None, 8, None)]
    assert bench.apply(pod("b", 9, deleted=True)) == [("default/b", 8, None, 9)]
    assert bench.apply(pod("b", 8)) == [], "what is gone is not brought back by what was before"
    assert bench.store.frontier == 10
    assert bench.store.late == 3
    for number in range(DELETIONS_REMEMBERED + 5):
        bench.apply(pod("c", 20 + 2 * number, uid=str(number)))
        bench.apply(pod(f"d{number}", 21 + 2 * number))
        bench.apply(pod(f"d{number}", 21 + 2 * number, deleted=True))
    assert len(bench.store._deletions) <= DELETIONS_REMEMBERED


def test_a_list_through_a_gateway_may_be_older_than_what_was_shown():
    bench = Bench()
    bench.store.behind_gateway = True
    bench.list(10, pod("a", 3))
    bench.apply(pod("a", 15))
    # The frontier of an idle partition; its objects are as new as before.
    assert bench.list(12, pod("a", 15), pod("b", 11)) == [("default/b", None, 11, None)]
    assert bench.listener.older == [], "nothing was lost"


def test_what_is_not_selected_is_not_held():
    bench = Bench(labels="app=web", fields="spec.nodeName!=n2,metadata.name!=x,spec.other=1")
    web, other = b'{"app":"web"}', b'{"app":"db"}'
    assert bench.list(
        9,
        pod("a", 3, labels=web),
        pod("b", 4, labels=other),
        pod("x", 5, labels=web),
        pod("c", 6, labels=web, node="n2"),
    ) == [("default/a", None, 3, None)]
    assert bench.apply(pod("c", 10, labels=web, node="n1")) == [("default/c", None, 10, None)]
    assert bench.apply(pod("a", 11, labels=other)) == [("default/a", 3, None, 11)]
    assert bench.apply(pod("b", 12, labels=other)) == []
    assert bench.store.dropped == 4
    assert bench.store.frontier == 12


def test_a_vanished_resource_has_nothing_and_nothing_happens_twice():
    bench = Bench()
    bench.store.begin()
    bench.store.put(pod("a", 1))
    bench.store.clear()
    assert not bench.store.synced
    bench.list(5, pod("a", 3))
    bench.store.clear()
    assert bench.listener.take() == [("default/a", 3, None, None)]
    assert len(bench.store) == 0
    assert bench.store.synced


def test_the_last_state_of_a_deleted_object_carries_the_version_of_its_deletion():
    bench = Bench()
    bench.list(5, pod("a", 3))
    obj = deleted_object(bench.store.entry(Key("default/a")), Version(9))
    assert (obj.resource_version, obj.metadata.resourceVersion, obj.uid) == ("9", "9", "a")


def test_selectors_join_those_that_a_partition_has():
    narrowing = Narrowing.parse("b=c , a in (x)", "spec.nodeName=n1")
    assert narrowing == Narrowing.parse("b=c,a in (x)", "spec.nodeName=n1")
    partition = Partition(PODS.resource, ExceptNamespaces(("kube-system",)))
    narrowed = dict(narrowing.narrowed(list_request(partition, limit=1).query))
    assert narrowed["fieldSelector"] == "metadata.namespace!=kube-system,spec.nodeName=n1"
    assert narrowed["limit"] == "1"
    watched = dict(
        narrowing.narrowed(watch_request(Partition(PODS.resource), version=Version(7), timeout_s=9).query)
    )
    assert (watched["resourceVersion"], watched["fieldSelector"]) == ("7", "spec.nodeName=n1")
    assert watched["labelSelector"] == str(narrowing.labels)
    assert not Narrowing.parse()
    assert Narrowing.parse().tester(PODS) is None


@pytest.mark.parametrize("text", ["a in b", "a==", "-x"])
def test_a_selector_that_cannot_be_read_is_an_error(text):
    if text == "a==":
        assert Narrowing.parse(text)
        return
    with pytest.raises(BadRequest):
        Narrowing.parse(text)
