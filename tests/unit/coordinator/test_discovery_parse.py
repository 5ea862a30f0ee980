"""Against recorded answers of kube-apiserver v1.36.2."""

import json

import pytest
from support.discovery import recorded_body

from shoal.cluster.simulator.builtin import builtin_types
from shoal.coordinator.definitions import apply_definitions, parse_definition, parse_revisions
from shoal.coordinator.discovery_parse import (
    DiscoveredGroup,
    DiscoveredVersion,
    GroupVersions,
    keep_known,
    parse_resources,
    parse_root,
)
from shoal.shards.model.errors import Garbage
from shoal.shards.model.resources import PrinterColumn, Resource, ResourceType, SubresourceType


def types(groups):
    return {
        str(known.resource): known
        for group in groups
        for version in group.versions
        for known in version.resources
    }


def test_the_core_group_in_aggregated_form():
    found = parse_root(recorded_body("discovery-aggregated-api"), "/api")
    assert found.legacy is None
    assert [group.name for group in found.groups] == [""]
    pods = types(found.groups)["v1/pods"]
    assert pods.kind == "Pod"
    assert pods.namespaced
    assert pods.singular == "pod"
    assert pods.short_names == ("po",)
    assert pods.categories == ("all",)
    assert {"list", "watch"} <= set(pods.verbs)
    assert "status" in pods.subresources
    assert "spec.nodeName" in pods.selectable_fields
    assert not pods.custom
    assert types(found.groups)["v1/nodes"].namespaced is False


def test_named_groups_keep_the_servers_order_of_versions():
    found = parse_root(recorded_body("discovery-aggregated-apis"), "/apis")
    versions = {group.name: [version.version for version in group.versions] for group in found.groups}
    assert versions["autoscaling"] == ["v2", "v1"]
    assert len(found.groups) == 20
    assert not any(version.stale for group in found.groups for version in group.versions)
    assert not any(known.custom for known in types(found.groups).values())


def test_the_older_aggregated_form_reads_the_same():
    body = recorded_body("discovery-aggregated-apis")
    older = body.replace(b"apidiscovery.k8s.io/v2", b"apidiscovery.k8s.io/v2beta1")
    assert parse_root(older, "/apis") == parse_root(body, "/apis")


@pytest.mark.parametrize(
    ("recording", "aggregated", "group"),
    [
        ("discovery-legacy-api-v1", "discovery-aggregated-api", ""),
        ("discovery-legacy-apps-v1", "discovery-aggregated-apis", "apps"),
    ],
)
def test_both_forms_say_the_same(recording, aggregated, group):
    legacy = parse_resources(recorded_body(recording), group, "v1")
    groups = parse_root(recorded_body(aggregated), "/apis").groups
    whole = next(entry for entry in groups if entry.name == group).versions[0]
    assert {known.resource: known for known in legacy.resources} == {
        known.resource: known for known in whole.resources
    }


@pytest.mark.parametrize("form", ["aggregated", "legacy"])
def test_subresources_have_the_kinds_and_verbs_of_the_server(form):
    if form == "legacy":
        found = parse_resources(recorded_body("discovery-legacy-api-v1"), "", "v1").resources
    else:
        found = types(parse_root(recorded_body("discovery-aggregated-api"), "/api").groups).values()
    pods = next(known for known in found if known.resource.name == "pods")
    below = {entry.name: entry for entry in pods.subresource_types}
    assert below["eviction"] == SubresourceType(
        name="eviction", kind="Eviction", group="policy", version="v1", verbs=("create",)
    )
    assert below["status"] == SubresourceType(name="status", kind="Pod", verbs=("get", "patch", "update"))
    assert (below["exec"].kind, below["exec"].group) == ("PodExecOptions", "")
    assert pods.subresources == tuple(below)
    assert {known.resource: known.subresource_types for known in found} == {
        known.resource: known.subresource_types
        for known in builtin_types()
        if known.resource.api_version == "v1"
    }


def test_legacy_roots_say_what_to_ask_next():
    assert parse_root(recorded_body("discovery-legacy-api"), "/api").legacy == (GroupVersions("", ("v1",)),)
    groups = parse_root(recorded_body("discovery-legacy-apis"), "/apis").legacy
    assert groups is not None
    assert GroupVersions("autoscaling", ("v2", "v1")) in groups


def test_a_legacy_preferred_version_comes_first():
    body = {
        "kind": "APIGroupList",
        "groups": [
            {
                "name": "g",
                "versions": [{"version": "v2alpha1"}, {"version": "v1"}],
                "preferredVersion": {"version": "v1"},
            }
        ],
    }
    assert parse_root(json.dumps(body).encode(), "/apis").legacy == (GroupVersions("g", ("v1", "v2alpha1")),)


def test_a_custom_resource_in_legacy_form():
    (widgets,) = parse_resources(recorded_body("crd-discovery-legacy"), "example.com", "v1").resources
    assert (widgets.kind, widgets.short_names, widgets.custom) == ("Widget", ("wd",), True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"404 page not found\n",
        b"{",
        b'{"kind":"Status"}',
        b"[]",
        b'{"kind":"APIGroupDiscoveryList","items":[{"versions":[{}]}]}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_discovery_is_garbage(body):
    with pytest.raises(Garbage, match="discovery at /apis answered with"):
        parse_root(body, "/apis")


def test_resources_that_are_none_are_garbage():
    with pytest.raises(Garbage, match="discovery at /apis/apps/v1"):
        parse_resources(recorded_body("forbidden"), "apps", "v1")


# -- stale
# ----------------------------------------------------------------------------------------------------


def group(name, *resources, stale=False):
    known = tuple(
        ResourceType(
            resource=Resource(name, "v1", resource), kind="K", namespaced=True, verbs=("list", "watch")
        )
        for resource in resources
    )
    return DiscoveredGroup(name, (DiscoveredVersion("v1", known, stale=stale),))


def test_a_stale_group_keeps_what_was_known():
    before = (group("metrics.example.com", "things"),)
    groups, stale = keep_known(
        before, (group("metrics.example.com", stale=True), group("apps", "deployments"))
    )
    assert set(types(groups)) == {"metrics.example.com/v1/things", "apps/v1/deployments"}
    assert stale == ("metrics.example.com/v1",)


def test_a_stale_group_that_still_lists_resources_is_believed():
    before = (group("g", "a", "b"),)
    groups, _ = keep_known(before, (group("g", "a", stale=True),))
    assert set(types(groups)) == {"g/v1/a"}


def test_a_group_that_is_gone_is_not_kept_for_that():
    groups, stale = keep_known((group("g", "a"),), ())
    assert (groups, stale) == ((), ())


# -- definitions
# ----------------------------------------------------------------------------------------------


def test_a_recorded_definition_is_read():
    definition = parse_definition(recorded_body("crd-create"))
    assert (definition.group, definition.plural) == ("example.com", "widgets")
    assert definition.revision == ("33828553-c245-432c-a7d8-74a6869189c6", 1)
    assert definition.served == (Resource("example.com", "v1", "widgets"),)
    (column,) = definition.versions["v1"].printer_columns
    assert column == PrinterColumn(name="Size", type="string", json_path=".spec.size")


def test_definitions_complete_custom_resources_and_nothing_else():
    definition = parse_definition(recorded_body("crd-create"))
    groups = (group("example.com", "widgets", "compiled"), group("apps", "deployments"))
    applied = types(apply_definitions(groups, [definition]))
    assert applied["example.com/v1/widgets"].custom
    assert applied["example.com/v1/widgets"].printer_columns
    assert not applied["example.com/v1/compiled"].custom
    assert not applied["apps/v1/deployments"].custom
    assert apply_definitions(groups, None) == groups


@pytest.mark.parametrize(("list_kind", "kept"), [("WidgetList", ""), ("Widgetry", "Widgetry")])
def test_a_list_kind_is_kept_where_it_is_unusual(list_kind, kept):
    document = json.loads(recorded_body("crd-create"))
    document["spec"]["names"]["listKind"] = list_kind
    definition = parse_definition(json.dumps(document).encode())
    (applied,) = types(apply_definitions((group("example.com", "widgets"),), [definition])).values()
    assert applied.list_kind == kept


def test_selectable_fields_lose_the_leading_dot():
    document = json.loads(recorded_body("crd-create"))
    document["spec"]["versions"][0]["selectableFields"] = [{"jsonPath": ".spec.color"}]
    definition = parse_definition(json.dumps(document).encode())
    assert definition.versions["v1"].selectable_fields == ("spec.color",)


def test_definitions_being_deleted_do_not_count():
    kept = {"metadata": {"name": "a", "uid": "1", "generation": 2}}
    leaving = {
        "metadata": {"name": "b", "uid": "2", "generation": 1, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    }
    body = json.dumps({"metadata": {"continue": "t"}, "items": [kept, leaving]})
    page = parse_revisions(body.encode())
    assert page.revisions == {"a": ("1", 2)}
    assert page.continue_token == "t"
    with pytest.raises(Garbage, match="no definition"):
        parse_definition(b"{}")
