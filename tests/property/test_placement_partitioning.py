"""Cutting resources: the covers of one resource never overlap and together are everything."""

from hypothesis import given
from hypothesis import strategies as st

from shoal.coordinator.partitioning import partition_resources
from shoal.shards.model.resources import Resource, ResourceType

NAMES = ("pods", "events", "deployments", "nodes")
TYPES = tuple(
    ResourceType(
        resource=Resource("apps" if name == "deployments" else "", "v1", name),
        kind="K",
        namespaced=name != "nodes",
    )
    for name in NAMES
)
namespaces = st.sampled_from(("a", "b", "c", "kube-system", "default"))
keys = st.sampled_from(
    ("pods", "v1/pods", "events", "deployments.apps", "apps/v1/deployments", "nodes", "absent")
)
carvings = st.dictionaries(keys, st.lists(namespaces, min_size=1, max_size=4).map(tuple), max_size=5)


@given(st.sets(st.sampled_from(TYPES)), carvings, namespaces | st.just("other"), st.text(max_size=5))
def test_every_object_is_in_exactly_one_partition(followed, carve, namespace, uid):
    partitions = partition_resources(sorted(followed, key=lambda known: known.resource), carve).partitions
    assert len({partition.id for partition in partitions}) == len(partitions)
    for known in followed:
        where = namespace if known.namespaced else ""
        holding = [p for p in partitions if p.resource == known.resource and p.cover.admits(where, uid)]
        assert len(holding) == 1
        assert holding[0].may_hold(where)
    assert {partition.resource for partition in partitions} == {known.resource for known in followed}


@given(carvings)
def test_what_has_no_effect_is_said(carve):
    result = partition_resources(TYPES, carve)
    about_nodes = [warning for warning in result.warnings if "has no namespaces" in warning]
    assert len(about_nodes) == ("nodes" in carve)
    assert [warning for warning in result.warnings if "matches no resource" in warning] == (
        ["follow.carve['absent'] matches no resource that is followed"] if "absent" in carve else []
    )


@given(carvings)
def test_cutting_is_the_same_whatever_the_order(carve):
    turned = {key: tuple(reversed(few)) for key, few in reversed(carve.items())}
    assert partition_resources(TYPES, carve).partitions == partition_resources(TYPES, turned).partitions
