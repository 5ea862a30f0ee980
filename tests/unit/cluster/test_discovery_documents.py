"""Discovery rendered from the built-in types equals what the recorded server said, ETags included."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest
import yaml
from support.apiserver import Caller, virtual_apiserver
from support.local_shards import DEPLOYMENTS, PODS, LocalInstallation

from shoal.cluster.serving.discovery import DiscoveryDocuments, version_rank
from shoal.cluster.simulator.builtin import builtin_types
from shoal.shards.model.resources import Resource, ResourceType, SubresourceType

WIRE = Path(__file__).parents[2] / "wire"
CRD_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
WIDGET = ResourceType(
    resource=Resource("example.com", "v1", "widgets"),
    kind="Widget",
    namespaced=True,
    singular="widget",
    short_names=("wd",),
    verbs=CRD_VERBS,
    custom=True,
)
READ_ONLY = frozenset({"get", "list", "watch"})


def recorded(name):
    return json.loads((WIRE / f"{name}.json").read_text())["response"]


@pytest.fixture
def documents():
    shuffled = list(builtin_types())
    random.Random(4).shuffle(shuffled)
    return DiscoveryDocuments(shuffled)


@pytest.mark.parametrize(
    ("root", "name"), [("api", "discovery-aggregated-api"), ("apis", "discovery-aggregated-apis")]
)
def test_aggregated_discovery_is_the_servers_bytes_and_etag(documents, root, name):
    body, etag = documents.aggregated(root)
    assert body.decode() == recorded(name)["body"]
    assert etag == recorded(name)["headers"]["Etag"]


def test_legacy_discovery_is_the_servers_bytes(documents):
    assert documents.api_versions("192.0.2.2:16444").decode() == recorded("discovery-legacy-api")["body"]
    assert documents.groups().decode() == recorded("discovery-legacy-apis")["body"]
    assert documents.resources("", "v1").decode() == recorded("discovery-legacy-api-v1")["body"]
    assert documents.resources("apps", "v1").decode() == recorded("discovery-legacy-apps-v1")["body"]


def test_a_group_alone_is_its_entry_of_the_list(documents):
    listed = {group["name"]: group for group in json.loads(documents.groups())["groups"]}
    alone = json.loads(documents.group("autoscaling"))
    assert alone == {"kind": "APIGroup", "apiVersion": "v1"} | listed["autoscaling"]
    assert alone["preferredVersion"]["version"] == "v2"


def test_a_custom_resource_changes_the_etag_to_the_recorded_one():
    documents = DiscoveryDocuments([WIDGET, *builtin_types()])
    body, etag = documents.aggregated("apis")
    assert etag == recorded("crd-discovery-aggregated")["headers"]["Etag"]
    excerpt = recorded("crd-discovery-aggregated")["body"]
    assert body.decode().startswith(excerpt.partition("...<cut")[0])
    assert documents.resources("example.com", "v1").decode() == recorded("crd-discovery-legacy")["body"]


def test_the_older_form_differs_in_its_version_alone(documents):
    new, new_etag = documents.aggregated("apis", "v2")
    old, old_etag = documents.aggregated("apis", "v2beta1")
    assert old == new.replace(b"apidiscovery.k8s.io/v2", b"apidiscovery.k8s.io/v2beta1", 1)
    assert old_etag == new_etag


def test_with_verbs_only_these_are_promised_and_no_subresources():
    documents = DiscoveryDocuments(builtin_types(), verbs=READ_ONLY)
    core = json.loads(documents.aggregated("api")[0])["items"][0]["versions"][0]["resources"]
    names = {entry["resource"]: entry for entry in core}
    assert names["pods"]["verbs"] == ["get", "list", "watch"]
    assert "subresources" not in names["pods"]
    assert names["componentstatuses"]["verbs"] == ["get", "list"]
    assert "bindings" not in names
    legacy = json.loads(documents.resources("", "v1"))["resources"]
    assert [entry["name"] for entry in legacy] == [entry["resource"] for entry in core]
    assert "authentication.k8s.io" not in documents.groups().decode()
    assert documents.group("authentication.k8s.io") is None


def test_what_is_not_served_has_no_document(documents):
    assert documents.resources("apps", "v9") is None
    assert documents.resources("nope.example.com", "v1") is None
    assert documents.group("nope.example.com") is None
    assert documents.group("") is None


def test_a_definitions_subresources_are_rendered_from_their_names():
    scaled = msgspec.structs.replace(WIDGET, subresources=("status", "scale"))
    body = json.loads(DiscoveryDocuments([scaled]).aggregated("apis")[0])
    subresources = body["items"][0]["versions"][0]["resources"][0]["subresources"]
    assert [entry["subresource"] for entry in subresources] == ["status", "scale"]
    assert subresources[0]["responseKind"] == {"group": "example.com", "version": "v1", "kind": "Widget"}
    assert subresources[1]["responseKind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}


def test_groups_of_definitions_come_last_and_versions_by_rank():
    def custom(group, version):
        return msgspec.structs.replace(WIDGET, resource=Resource(group, version, "widgets"))

    catalogue = [custom("b.example.com", v) for v in ("v1alpha1", "v1", "v2beta1", "v10", "x")]
    catalogue += [custom("a.example.com", "v1"), *builtin_types()]
    groups = json.loads(DiscoveryDocuments(catalogue).groups())["groups"]
    assert [group["name"] for group in groups[-3:]] == [
        "flowcontrol.apiserver.k8s.io",
        "a.example.com",
        "b.example.com",
    ]
    versions = [entry["version"] for entry in groups[-1]["versions"]]
    assert versions == ["v10", "v1", "v2beta1", "v1alpha1", "x"] == sorted(versions, key=version_rank)


def test_an_empty_catalogue_is_a_valid_answer():
    documents = DiscoveryDocuments([])
    assert json.loads(documents.aggregated("apis")[0])["items"] == []
    assert json.loads(documents.groups())["groups"] == []
    assert json.loads(documents.api_versions()) == {
        "kind": "APIVersions",
        "versions": [],
        "serverAddressByClientCIDRs": None,
    }


def test_builtin_types_know_what_discovery_says_and_what_can_be_selected():
    types = {known.resource.qualified_name: known for known in builtin_types()}
    pods = types["pods"]
    assert (pods.kind, pods.namespaced, pods.short_names, pods.categories) == ("Pod", True, ("po",), ("all",))
    assert "spec.nodeName" in pods.selectable_fields
    assert types["events.events.k8s.io"].selectable_fields[0] == "regarding.kind"
    assert types["configmaps"].selectable_fields == ()
    scale = SubresourceType(
        name="scale", kind="Scale", group="autoscaling", version="v1", verbs=("get", "patch", "update")
    )
    assert scale in types["deployments.apps"].subresource_types
    for known in types.values():
        assert known.subresources == tuple(sub.name for sub in known.subresource_types)
        assert not known.custom


def test_every_gateway_has_the_same_documents_whatever_order_it_learnt_of_resources():
    texts = set()
    for seed in range(3):
        catalogue = [WIDGET, *builtin_types()]
        random.Random(seed).shuffle(catalogue)
        documents = DiscoveryDocuments(catalogue, verbs=READ_ONLY)
        texts.add((documents.aggregated("api"), documents.aggregated("apis"), documents.groups()))
    assert len(texts) == 1


async def test_a_gateway_answers_discovery_in_the_form_asked_for():
    installation = LocalInstallation(1)
    for known in (PODS, DEPLOYMENTS):
        installation.hold(known)
    installation.publish()
    for path in ("/api", "/apis", "/apis/apps", "/apis/apps/v1", "/api/v1"):
        plain = await installation.ask(path)
        assert plain.headers["cache-control"] == "no-cache, private"
        text = await installation.ask(path, accept="application/yaml")
        assert text.headers["content-type"] == "application/yaml"
        assert yaml.safe_load(text.body) == plain.json
        pretty = await installation.ask(f"{path}?pretty=true")
        assert pretty.json == plain.json
        assert pretty.body.startswith(b'{\n  "kind"')
        assert (await installation.ask(path, accept="text/html")).status == 406
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    first = await installation.ask("/apis", accept=accept)
    for header in (first.headers["etag"], f"W/{first.headers['etag']}", "*"):
        again = await installation.ask("/apis", accept=accept, if_none_match=header)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    # Of a group alone there is no aggregated form.
    assert (await installation.ask("/apis/apps", accept=accept)).status == 406
    assert (await installation.ask("/apis/apps", accept=f"{accept},application/json")).status == 200


async def test_the_embedded_server_answers_discovery_in_yaml_too():
    server = Caller(virtual_apiserver())
    status, text = await server.ask("GET", "/apis/apps/v1", headers={"Accept": "application/yaml"})
    assert status == 200
    assert yaml.safe_load(text) == await server.get("/apis/apps/v1")
    assert (await server.ask("GET", "/apis/apps/v1", headers={"Accept": "text/html"}))[0] == 406
