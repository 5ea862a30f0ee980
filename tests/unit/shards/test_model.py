"""The vocabulary: keys in the API server's order, covers, versions, resources, errors that survive a process."""

import inspect
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.shards.model import errors
from shoal.shards.model.partitions import (
    EVERYTHING,
    HASH_END,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    fnv1a64,
)
from shoal.shards.model.refs import ObjectRef, key_of, namespace_range, ref_of
from shoal.shards.model.resources import Resource
from shoal.shards.model.versions import oldest, parse_version

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,12}[a-z0-9])?", fullmatch=True)
PODS = Resource("", "v1", "pods")


@given(st.lists(st.tuples(NAMES, NAMES)))
def test_keys_sort_as_etcd_keys_do(refs):
    by_key = sorted(refs, key=lambda ref: key_of(*ref))
    by_etcd = sorted(refs, key=lambda ref: f"/registry/pods/{ref[0]}/{ref[1]}".encode())
    assert by_key == by_etcd


@given(st.one_of(st.just(""), NAMES), NAMES)
def test_a_key_splits_back(namespace, name):
    assert ref_of(key_of(namespace, name)) == ObjectRef(namespace, name)


@given(NAMES, NAMES, NAMES)
def test_a_namespace_is_a_range_of_keys(namespace, other, name):
    low, high = namespace_range(namespace)
    assert (low <= key_of(other, name) < high) == (other == namespace)


@pytest.mark.parametrize(
    ("text", "value"),
    [("", 0xCBF29CE484222325), ("default", 0xEBADA5168620C5FE), ("kube-system", 0xDF65C7BC1D82B35E)],
)
def test_the_hash_is_the_servers(text, value):
    assert fnv1a64(text) == value


def test_a_hash_range_is_written_as_the_server_writes_it():
    assert HashRange("uid", 1 << 63, HASH_END).selector == (
        "shardRange(object.metadata.uid, '0x8000000000000000', '0x10000000000000000')"
    )


@given(st.sets(NAMES, max_size=4), NAMES, st.uuids().map(str))
def test_covers_of_one_resource_never_overlap_and_are_everything(carved, namespace, uid):
    covers = [*map(OneNamespace, carved), ExceptNamespaces(tuple(sorted(carved)))]
    assert sum(cover.admits(namespace, uid) for cover in covers) == 1
    assert EVERYTHING.admits(namespace, uid)
    halves = [HashRange("uid", 0, 1 << 63), HashRange("uid", 1 << 63, HASH_END)]
    assert sum(cover.admits(namespace, uid) for cover in halves) == 1


@given(st.sets(NAMES, max_size=3), NAMES, st.uuids().map(str))
def test_a_partition_that_cannot_hold_a_namespace_admits_none_of_it(carved, namespace, uid):
    for cover in (
        *map(OneNamespace, carved),
        ExceptNamespaces(tuple(sorted(carved))),
        HashRange("namespace", 0, 1 << 63),
    ):
        if not Partition(PODS, cover).may_hold(namespace):
            assert not cover.admits(namespace, uid)


def test_partitions_have_readable_ids():
    assert Partition(PODS).id == "v1/pods"
    assert (
        Partition(Resource.parse("apps/v1/deployments"), ExceptNamespaces(("a", "b"))).id
        == "apps/v1/deployments[!a,b]"
    )


@pytest.mark.parametrize("text", ["", "abc", "-1", "+1", "1.0", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(ValueError, match="is not a resource version"):
        parse_version(text)


def test_a_combined_answer_claims_the_oldest_version():
    assert oldest([parse_version("7"), parse_version("5")]) == 5
    assert oldest([]) == 0


@pytest.mark.parametrize("text", ["pods", "a/b/c/d", "v1/", "/v1/pods"])
def test_what_is_no_resource_is_refused(text):
    with pytest.raises(ValueError, match="is not a resource"):
        Resource.parse(text)


def test_a_resource_has_the_paths_of_the_api():
    deployments = Resource.parse("apps/v1/deployments")
    assert deployments.path("a", "x") == "/apis/apps/v1/namespaces/a/deployments/x"
    assert PODS.path() == "/api/v1/pods"
    assert (str(deployments), deployments.qualified_name) == ("apps/v1/deployments", "deployments.apps")


ERRORS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ShoalError)
]


def made(kind):
    match kind.__name__:
        case "TooLargeVersion":
            return kind(7, 5)
        case "NotServed":
            return kind("v1/pods", 3)
        case "Upstream":
            return kind("no", http_status=500, upstream_status={"code": 500})
        case _:
            return kind("no", details={"kind": "pods"}, metadata={"continue": "x"}, retry_after_s=2)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_crosses_processes_unchanged(kind):
    error = made(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__
    assert again.status() == error.status()
    assert again.status()["code"] == kind.code
