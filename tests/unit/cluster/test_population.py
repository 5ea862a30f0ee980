"""A made cluster: the same for the same arguments, of real size, and true to itself."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from itertools import islice

import pytest

from shoal.cluster.serving.tables import rows
from shoal.cluster.simulator.builtin import builtin_types
from shoal.cluster.simulator.population import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
    pod_bodies,
    population,
)
from shoal.cluster.simulator.templates import Template, slot

TYPES = {known.resource: known for known in builtin_types()}
PODS_MADE = 600


@pytest.fixture(scope="module")
def objects():
    return [(made.resource, json.loads(made.body)) for made in population(PODS_MADE)]


def of(objects, resource):
    return [document for known, document in objects if known == resource]


def test_the_same_arguments_give_the_same_bytes_and_others_do_not():
    first = list(population(50, seed=3))
    assert first == list(population(50, seed=3))
    assert first != list(population(50, seed=4))


def test_it_is_as_large_as_asked_for(objects):
    kinds = Counter(resource.name for resource, _ in objects)
    assert kinds["pods"] == PODS_MADE
    assert kinds["nodes"] == kinds["leases"] == PODS_MADE // 40
    assert kinds["deployments"] == kinds["replicasets"] == kinds["services"] == kinds["secrets"] > 10
    assert kinds["events"] > PODS_MADE // 6
    assert kinds["serviceaccounts"] == kinds["configmaps"] == kinds["deployments"]


@pytest.mark.parametrize("pods", [0, 1, 7])
def test_small_ones_are_complete_too(pods):
    made = Counter(resource.name for resource, _ in population(pods))
    assert made["pods"] == pods
    assert made["namespaces"] >= 4
    assert bool(made["deployments"]) == bool(pods)


def test_a_negative_number_of_pods_is_refused_at_once():
    with pytest.raises(ValueError, match="-1 pods"):
        population(-1)


def test_pods_have_the_size_of_real_ones():
    bodies = list(pod_bodies(2000))
    bare = []
    for body in bodies:
        document = json.loads(body)
        del document["metadata"]["managedFields"]
        bare.append(len(json.dumps(document, separators=(",", ":"))))
    assert 8_500 < sum(map(len, bodies)) / len(bodies) < 9_500
    assert 4_600 < sum(bare) / len(bare) < 5_200


def test_objects_come_in_an_order_they_can_be_created_in(objects):
    spaces, nodes, seen = set(), set(), set()
    for resource, document in objects:
        metadata = document["metadata"]
        for reference in metadata.get("ownerReferences", ()):
            assert reference["uid"] in seen
        if "namespace" in metadata:
            assert metadata["namespace"] in spaces
        if resource == NAMESPACES:
            spaces.add(metadata["name"])
        elif resource == NODES:
            nodes.add(metadata["name"])
        elif resource == PODS and "nodeName" in document["spec"]:
            assert document["spec"]["nodeName"] in nodes
        seen.add(metadata["uid"])


def test_identities_are_unique_and_versions_grow(objects):
    versions = [int(document["metadata"]["resourceVersion"]) for _, document in objects]
    assert versions == list(range(1000, 1000 + len(objects)))
    assert len({document["metadata"]["uid"] for _, document in objects}) == len(objects)
    keys = {
        (resource, document["metadata"].get("namespace"), document["metadata"]["name"])
        for resource, document in objects
    }
    assert len(keys) == len(objects)


def test_bodies_have_the_form_of_the_server(objects):
    for made in islice(population(30), 200):
        known = TYPES[made.resource]
        prefix = f'{{"kind":"{known.kind}","apiVersion":"{known.resource.api_version}","metadata":{{"name":'
        assert made.body.startswith(prefix.encode())
        assert b"@{" not in made.body
    for resource, document in objects:
        metadata = document["metadata"]
        assert bool(metadata.get("namespace")) == TYPES[resource].namespaced
        assert {entry["fieldsType"] for entry in metadata["managedFields"]} == {"FieldsV1"}


def test_controllers_count_the_pods_there_are(objects):
    owners = {document["metadata"]["uid"]: document for document in of(objects, REPLICA_SETS)}
    deployments = {document["metadata"]["uid"]: document for document in of(objects, DEPLOYMENTS)}
    pods, ready = Counter(), Counter()
    for pod in of(objects, PODS):
        uid = pod["metadata"]["ownerReferences"][0]["uid"]
        pods[uid] += 1
        conditions = {entry["type"]: entry["status"] for entry in pod["status"]["conditions"]}
        ready[uid] += conditions.get("Ready") == "True"
    for uid, replica_set in owners.items():
        assert replica_set["status"]["replicas"] == pods[uid]
        assert replica_set["status"]["readyReplicas"] == ready[uid]
        deployment = deployments[replica_set["metadata"]["ownerReferences"][0]["uid"]]
        assert deployment["spec"]["replicas"] == pods[uid]
        assert deployment["status"]["readyReplicas"] == ready[uid]


def test_endpoints_are_the_services_pods(objects):
    pods = {document["metadata"]["uid"]: document for document in of(objects, PODS)}
    services = {document["metadata"]["uid"] for document in of(objects, SERVICES)}
    addressed = set()
    for endpoint_slice in of(objects, ENDPOINT_SLICES):
        assert endpoint_slice["metadata"]["ownerReferences"][0]["uid"] in services
        assert len(endpoint_slice["endpoints"]) <= 100
        for endpoint in endpoint_slice["endpoints"]:
            pod = pods[endpoint["targetRef"]["uid"]]
            assert endpoint["addresses"] == [pod["status"]["podIP"]]
            assert endpoint["nodeName"] == pod["spec"]["nodeName"]
            addressed.add(endpoint["targetRef"]["uid"])
    assert addressed == {uid for uid, pod in pods.items() if "podIP" in pod["status"]}


def test_pods_are_in_the_states_of_a_real_cluster(objects):
    now = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    bodies = list(pod_bodies(2000))
    states = Counter(json.loads(row)["cells"][2] for row in rows(TYPES[PODS], bodies, now=now))
    assert set(states) == {"Running", "CrashLoopBackOff", "Pending"}
    assert states["Running"] > 0.9 * len(bodies)


def test_the_secrets_hold_none(objects):
    values = {value for document in of(objects, SECRETS) for value in document["data"].values()}
    assert values == {"bm90LWEtcmVhbC1zZWNyZXQ=", "ZXhhbXBsZQ=="}


def test_leases_belong_to_their_nodes(objects):
    nodes = {document["metadata"]["uid"]: document["metadata"]["name"] for document in of(objects, NODES)}
    for lease in of(objects, LEASES):
        reference = lease["metadata"]["ownerReferences"][0]
        assert nodes[reference["uid"]] == reference["name"] == lease["spec"]["holderIdentity"]


def test_a_template_fills_its_slots_and_names_a_missing_one():
    template = Template({"metadata": {"name": slot("name")}, "note": f"100% {slot('name')}"}, TYPES[NODES])
    assert template.slots == {"name"}
    filled = json.loads(template.fill({b"name": b"n", b"more": b"x"}))
    assert (filled["metadata"]["name"], filled["note"]) == ("n", "100% n")
    with pytest.raises(KeyError, match="name"):
        template.fill({})
