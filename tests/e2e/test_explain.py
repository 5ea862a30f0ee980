"""``kubectl explain`` and validation by kubectl: the embedded API server's documents, and the gateway's mirror."""

import json
import shutil

import pytest
import yaml
from support.commands import until

pytestmark = pytest.mark.e2e

SHIPS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "ships.explain.example.com"},
    "spec": {
        "group": "explain.example.com",
        "scope": "Namespaced",
        "names": {"plural": "ships", "singular": "ship", "kind": "Ship"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["metres"],
                                "properties": {
                                    "metres": {"type": "integer", "description": "Length over all."},
                                    "cargo": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def at_source(shoal, source, folder):
    """kubectl against the API server itself; the caller looks at what became of it."""

    def run(*arguments):
        cache = folder / "explain-source-cache"
        return shoal(
            "--kubeconfig", source.kubeconfig, "--cache-dir", cache, *arguments, program=("kubectl",)
        )

    return run


@pytest.fixture(scope="module")
def ships(at_source, shoal, server, folder):
    """A kind with a schema, for as long as the module runs: other modules look at every kind there is."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    path = folder / "ships.yaml"
    path.write_text(yaml.safe_dump(SHIPS))
    created = at_source("create", "-f", path)
    assert created.returncode == 0, created.stderr

    def followed():
        return "ships.explain.example.com" in shoal("api-resources", "-o", "name", server=server).stdout

    until("the kind is followed", followed)
    yield
    at_source("delete", "crd", "ships.explain.example.com", "--wait=false")
    until("the kind has gone", lambda: not followed())


def test_fields_of_built_in_kinds_are_explained(ships, at_source):
    containers = at_source("explain", "pods.spec.containers")
    assert containers.returncode == 0, containers.stderr
    assert "KIND:       Pod" in containers.stdout
    assert "FIELD: containers <[]Container>" in containers.stdout
    assert "\n  imagePullPolicy\t<string>\n" in containers.stdout
    assert "\n  name\t<string> -required-\n" in containers.stdout
    limits = at_source("explain", "deployments.spec.template.spec.containers.resources.limits")
    assert "FIELD: limits <map[string]Quantity>" in limits.stdout
    surge = at_source("explain", "deployments.spec.strategy.rollingUpdate.maxSurge")
    assert "FIELD: maxSurge <IntOrString>" in surge.stdout
    for kind in ("cronjobs", "ingresses", "customresourcedefinitions", "leases"):
        whole = at_source("explain", "--recursive", kind)
        assert whole.returncode == 0, whole.stderr
        assert "metadata\t<ObjectMeta>" in whole.stdout


def test_what_there_is_not_is_not_explained(ships, at_source):
    nothing = at_source("explain", "pods.spec.nosuch")
    assert nothing.returncode == 1
    assert 'field "nosuch" does not exist' in nothing.stderr


def test_fields_of_a_custom_kind_are_explained(ships, at_source):
    metres = at_source("explain", "ships.spec.metres")
    assert metres.returncode == 0, metres.stderr
    assert "FIELD: metres <integer>" in metres.stdout
    assert "Length over all." in metres.stdout
    assert "metres\t<integer> -required-" in at_source("explain", "ships", "--recursive").stdout


@pytest.mark.parametrize(
    ("what", "field"),
    [
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "odd"}, "dta": {"a": "b"}},
            'unknown field "dta"',
        ),
        (
            {"apiVersion": "explain.example.com/v1", "kind": "Ship", "metadata": {"name": "odd"}}
            | {"spec": {"metres": 1, "meters": 2, "cargo": {"any": "thing"}}},
            'unknown field "spec.meters"',
        ),
    ],
    ids=["built-in", "custom"],
)
def test_a_misspelt_field_is_refused_or_warned_of(ships, at_source, folder, what, field):
    path = folder / "odd.json"
    path.write_text(json.dumps(what))
    refused = at_source("create", "--validate=strict", "-n", "default", "-f", path)
    assert refused.returncode == 1
    assert f"strict decoding error: {field}" in refused.stderr
    warned = at_source("create", "--validate=warn", "-n", "default", "-f", path)
    assert warned.returncode == 0, warned.stderr
    assert f"Warning: {field}" in warned.stderr
    assert at_source("delete", "-n", "default", "-f", path).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("pods.spec.containers",),
        ("--recursive", "deployments"),
        ("ships.spec",),
        ("nodes.status", "--output=plaintext-openapiv2"),
    ],
    ids=" ".join,
)
def test_the_gateway_explains_the_same(ships, at_source, kubectl, arguments):
    ours, theirs = kubectl("explain", *arguments), at_source("explain", *arguments)
    assert ours.returncode == theirs.returncode == 0, ours.stderr
    assert ours.stdout == theirs.stdout
