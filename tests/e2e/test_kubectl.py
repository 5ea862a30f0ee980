"""kubectl and the Python client against the gateway: every kind, every form, and kinds that come and go."""

import json
import time

import kubernetes
import pytest
import yaml

pytestmark = pytest.mark.e2e

CRD_SEEN_S = 5.0
"""The acceptance of a new definition: how soon it has to be served."""


@pytest.fixture
def at_source(shoal, source, folder):
    """kubectl against the API server itself."""

    def run(*arguments):
        done = shoal(
            "--kubeconfig",
            source.kubeconfig,
            "--cache-dir",
            folder / "source-cache",
            *arguments,
            program=("kubectl",),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def listable(kubectl):
    names = kubectl("api-resources", "--verbs=list", "-o", "name")
    assert names.returncode == 0, names.stderr
    return names.stdout.split()


def test_every_kind_is_listed_as_the_api_server_lists_it(kubectl, at_source):
    kinds = listable(kubectl)
    assert len(kinds) > 50
    for form in ("json", "wide"):
        everything = kubectl("get", ",".join(kinds), "-A", "-o", form)
        assert everything.returncode == 0, everything.stderr
        if form == "json":
            ours = json.loads(everything.stdout)["items"]
            theirs = json.loads(at_source("get", ",".join(kinds), "-A", "-o", form))["items"]
            for item in theirs:
                item["metadata"].pop("managedFields", None)
            assert len(ours) > 1000
            assert ours == theirs


@pytest.mark.parametrize("form", ["yaml", "name"])
def test_other_forms_are_the_same_as_the_api_servers(kubectl, at_source, form):
    kinds = ",".join(kind for kind in listable(kubectl) if kind not in ("pods", "events"))
    ours = kubectl("get", kinds, "-A", "-o", form)
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout == at_source("get", kinds, "-A", "-o", form)


def test_one_object_by_name_and_described(kubectl, at_source):
    namespace, name = at_source("get", "pods", "-A", "--no-headers").splitlines()[0].split()[:2]
    found = kubectl("get", "pod", name, "-n", namespace, "-o", "json")
    assert json.loads(found.stdout)["metadata"]["name"] == name
    described = kubectl("describe", "pod", name, "-n", namespace)
    assert described.returncode == 0, described.stderr
    assert f"Name:             {name}\n" in described.stdout
    missing = kubectl("get", "pod", "nosuch", "-n", namespace)
    assert missing.returncode == 1
    assert missing.stderr == 'Error from server (NotFound): pods "nosuch" not found\n'


@pytest.mark.parametrize(
    "selection",
    [
        ("-l", "app"),
        ("-l", "!app"),
        ("--field-selector", "status.phase=Running"),
        ("--field-selector", "status.phase!=Running,metadata.namespace!=default"),
        ("--chunk-size", "200"),
        ("--chunk-size", "0"),
        ("--sort-by", ".metadata.creationTimestamp"),
    ],
    ids=" ".join,
)
def test_selectors_and_chunks_select_what_the_api_server_selects(kubectl, at_source, selection):
    ours = kubectl("get", "pods", "-A", "-o", "name", *selection)
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout == at_source("get", "pods", "-A", "-o", "name", *selection)


def test_the_python_client_reads_unmodified(server):
    configuration = kubernetes.client.Configuration()
    configuration.host = server
    with kubernetes.client.ApiClient(configuration) as client:
        core = kubernetes.client.CoreV1Api(client)
        first = core.list_pod_for_all_namespaces(limit=10)
        second = core.list_pod_for_all_namespaces(limit=10, _continue=first.metadata._continue)
        assert len(first.items) == len(second.items) == 10
        pod = first.items[0].metadata
        assert core.read_namespaced_pod(pod.name, pod.namespace).metadata.uid == pod.uid
        assert kubernetes.client.AppsV1Api(client).list_deployment_for_all_namespaces().items
        with pytest.raises(kubernetes.client.ApiException) as caught:
            core.read_namespaced_pod("nosuch", "default")
        assert caught.value.status == 404
        assert json.loads(caught.value.body)["reason"] == "NotFound"


DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "boats.e2e.example.com"},
    "spec": {
        "group": "e2e.example.com",
        "scope": "Namespaced",
        "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "shortNames": ["bt"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}
BOAT = {
    "apiVersion": "e2e.example.com/v1",
    "kind": "Boat",
    "metadata": {"name": "marie", "namespace": "default"},
    "spec": {"metres": 12},
}


def within(seconds, what, check):
    """How long it took; fails after four times that, so that what fails is the measured time, not a timeout."""
    began = time.monotonic()
    while not check():
        assert time.monotonic() - began < 4 * seconds, what
    return time.monotonic() - began


def test_a_new_definition_is_served_within_seconds_and_goes_again(kubectl, at_source, folder):
    for name, document in (("definition", DEFINITION), ("boat", BOAT)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    at_source("create", "--validate=false", "-f", folder / "definition.yaml")
    try:
        took = within(
            CRD_SEEN_S, "the kind is discovered", lambda: "boats.e2e.example.com" in listable(kubectl)
        )
        assert took < CRD_SEEN_S
        at_source("create", "--validate=false", "-f", folder / "boat.yaml")
        within(CRD_SEEN_S, "its objects are served", lambda: kubectl("get", "bt", "marie").returncode == 0)
        boats = kubectl("get", "boats", "-A", "-o", "jsonpath={.items[*].spec.metres}")
        assert boats.stdout == "12"
    finally:
        at_source("delete", "crd", "boats.e2e.example.com", "--wait=false")
    within(CRD_SEEN_S, "the kind has gone", lambda: "boats.e2e.example.com" not in listable(kubectl))
    assert kubectl("get", "boats.e2e.example.com").returncode == 1


def test_what_may_not_be_written_is_refused(kubectl):
    refused = kubectl("delete", "namespace", "default")
    assert refused.returncode == 1
    assert "read-only" in refused.stderr
