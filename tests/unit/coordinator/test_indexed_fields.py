"""``follow.indexed_fields``: checked, added to what discovery says, carried to the shards."""

import msgspec
import pytest

from shoal.coordinator.catalogue import build_catalogue, compare_catalogues
from shoal.coordinator.discovery_parse import DiscoveredGroup, DiscoveredVersion
from shoal.coordinator.settings import CoordinatorSettings, FollowSettings
from shoal.shards.model.resources import Resource, ResourceType

PODS = ResourceType(
    resource=Resource("", "v1", "pods"),
    kind="Pod",
    namespaced=True,
    verbs=("list", "watch"),
    selectable_fields=("spec.nodeName", "status.phase"),
)
WIDGETS = ResourceType(
    resource=Resource("example.com", "v1", "widgets"),
    kind="Widget",
    namespaced=True,
    verbs=("list", "watch"),
    custom=True,
    selectable_fields=("spec.size",),
)
GROUPS = (
    DiscoveredGroup("", (DiscoveredVersion("v1", (PODS,)),)),
    DiscoveredGroup("example.com", (DiscoveredVersion("v1", (WIDGETS,)),)),
)


def built(**indexed):
    settings = FollowSettings(
        indexed_fields={text.replace("_", "/"): tuple(paths) for text, paths in indexed.items()}
    )
    return build_catalogue(GROUPS, settings)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"V1/pods": ["spec.a"]}, r"follow.indexed_fields\['V1/pods'\]: 'V1/pods' is not a resource pattern"),
        ({"pod*": ["spec.a"]}, "expected one resource"),
        ({"v1/pods": []}, "names no field"),
        ({"v1/pods": ["spec.containers[0].image"]}, "is not the path of a field"),
        ({"v1/pods": ["spec..a"]}, "is not the path of a field"),
        ({"v1/pods": [""]}, "is not the path of a field"),
        ({"v1/pods": ["metadata.name"]}, "can be selected of every resource"),
        ({"v1/pods": ["metadata.labels.app"]}, "labels are indexed always"),
        ({"v1/pods": ["spec.a.b", "spec.a"]}, "spec.a cannot have a value where spec.a.b has one"),
        ({"v1/pods": ["spec.a", "spec.a"]}, "names a field twice"),
        ({"v1/pods": "spec.a"}, "Expected `array`"),
    ],
)
def test_a_wrong_field_says_where_and_what_was_expected(wrong, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({"follow": {"indexed_fields": wrong}}, CoordinatorSettings)


def test_declared_fields_are_selectable_and_indexed_of_custom_resources_too():
    catalogue = built(
        v1_pods=["spec.priorityClassName", "spec.nodeName"], **{"widgets.example.com": ["spec.on"]}
    )
    pods, widgets = catalogue.followed
    assert pods.selectable_fields == ("spec.nodeName", "status.phase", "spec.priorityClassName")
    assert pods.indexed_fields == ("spec.priorityClassName", "spec.nodeName")
    assert (widgets.selectable_fields, widgets.indexed_fields) == (("spec.size", "spec.on"), ("spec.on",))
    assert catalogue.warnings == ()


def test_a_second_look_changes_nothing():
    assert not compare_catalogues(built(v1_pods=["spec.a"]), built(v1_pods=["spec.a"]))
    assert compare_catalogues(built(), built(v1_pods=["spec.a"])).changed == (PODS.resource,)


def test_what_cannot_be_indexed_is_left_out_with_a_warning():
    catalogue = built(v1_pods=["spec.nodeName.x", "status", "spec.b"], v1_none=["spec.a"])
    assert catalogue.followed[0].selectable_fields == ("spec.nodeName", "status.phase", "spec.b")
    assert catalogue.warnings == (
        "follow.indexed_fields['v1/pods']: spec.nodeName.x is left out, spec.nodeName has a value already",
        "follow.indexed_fields['v1/pods']: status is left out, status.phase has a value already",
        "follow.indexed_fields: 'v1/none' is no resource that is followed",
    )
