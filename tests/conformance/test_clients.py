"""kubectl and the Python client, unmodified, against the embedded API server."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shoal.cluster.simulator.server import ApiServer
from shoal.cluster.simulator.settings import SimulatorSettings

KUBECTL = shutil.which("kubectl")
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            }
        ],
    },
}


def pod(name: str, image: str = "registry.example.com/app:1") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": image}]},
    }


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer(settings=SimulatorSettings(seed=1)) as running:
        yield running


class Kubectl:
    """Runs kubectl against a server, with files and caches of its own."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self._server = server
        self._folder = folder

    async def __call__(self, *arguments: str, stdin: Any = None, fails: bool = False) -> str:
        assert KUBECTL is not None
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            "--server",
            self._server.url,
            "--cache-dir",
            str(self._folder / "cache"),
            "--kubeconfig",
            str(self._folder / "none"),
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        given = b"" if stdin is None else json.dumps(stdin).encode()
        async with asyncio.timeout(60):
            out, err = await process.communicate(given)
        assert (process.returncode != 0) is fails, f"{arguments}: {err.decode()}"
        return (err if fails else out).decode()


@pytest.fixture
def kubectl(server: ApiServer, tmp_path: Path) -> Kubectl:
    if KUBECTL is None:
        pytest.skip("kubectl is not installed")
    (tmp_path / "none").write_text("")
    return Kubectl(server, tmp_path)


async def test_kubectl_reads(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", "-", stdin=pod("a"))
    assert "a      0/1     Pending" in await kubectl("get", "pods")
    assert "node-1" in await kubectl("get", "pods", "-o", "wide")
    assert json.loads(await kubectl("get", "pod", "a", "-o", "json"))["spec"]["restartPolicy"] == "Always"
    assert await kubectl("get", "pods", "-A", "-l", "app=web", "-o", "name") == "pod/a\n"
    assert await kubectl("get", "pods", "--field-selector", "spec.nodeName=node-2", "-o", "name") == ""
    assert "field label not supported" in await kubectl(
        "get", "pods", "--field-selector", "data.x=1", fails=True
    )
    assert 'pods "b" not found' in await kubectl("get", "pod", "b", fails=True)
    assert "deployments" in await kubectl("api-resources")
    assert "v1.36.2" in await kubectl("version")
    assert await kubectl("get", "--raw", "/readyz") == "ok"


async def test_kubectl_writes(kubectl: Kubectl) -> None:
    assert "created" in await kubectl("apply", "-f", "-", stdin=pod("a"))
    assert "unchanged" in await kubectl("apply", "-f", "-", stdin=pod("a"))
    assert "configured" in await kubectl("apply", "-f", "-", stdin=pod("a", "registry.example.com/app:2"))
    image = await kubectl("get", "pod", "a", "-o", "jsonpath={.spec.containers[0].image}")
    assert image == "registry.example.com/app:2"
    await kubectl("label", "pod", "a", "tier=front")
    await kubectl("patch", "pod", "a", "-p", '{"spec":{"containers":[{"name":"main","env":[{"name":"X"}]}]}}')
    found = json.loads(await kubectl("get", "pod", "a", "-o", "json"))
    assert found["metadata"]["labels"] == {"app": "web", "tier": "front"}
    assert found["spec"]["containers"][0]["image"] == image, "the strategic merge kept it"
    assert "not available" in await kubectl("apply", "--server-side", "-f", "-", stdin=pod("a"), fails=True)
    assert "deleted" in await kubectl("delete", "pod", "a")
    assert await kubectl("get", "pods", "-o", "name") == ""


async def test_kubectl_creates_from_arguments(kubectl: Kubectl) -> None:
    """These commands send protobuf."""
    await kubectl("create", "namespace", "n")
    await kubectl("create", "configmap", "c", "-n", "n", "--from-literal=k=v")
    await kubectl("create", "secret", "generic", "s", "-n", "n", "--from-literal=k=v")
    await kubectl("create", "serviceaccount", "sa", "-n", "n")
    await kubectl("create", "deployment", "d", "-n", "n", "--image=i:1", "--replicas=2", "--port=80")
    await kubectl("create", "service", "clusterip", "d", "-n", "n", "--tcp=80:8080")
    await kubectl("create", "job", "j", "-n", "n", "--image=i:1", "--", "echo", "x")
    await kubectl("create", "cronjob", "cj", "-n", "n", "--image=i:1", "--schedule=* * * * *")
    await kubectl("create", "role", "r", "-n", "n", "--verb=get", "--resource=pods")
    await kubectl("create", "rolebinding", "rb", "-n", "n", "--role=r", "--user=u")
    await kubectl("create", "clusterrole", "cr", "--verb=get,list", "--resource=pods")
    await kubectl("create", "quota", "q", "-n", "n", "--hard=pods=5")
    await kubectl("create", "poddisruptionbudget", "b", "-n", "n", "--selector=a=b", "--min-available=50%")
    await kubectl("create", "priorityclass", "p", "--value=10")
    found = {
        name: json.loads(await kubectl("get", *name.split("/"), "-n", "n", "-o", "json"))
        for name in (
            "configmap/c",
            "secret/s",
            "deployment/d",
            "service/d",
            "job/j",
            "quota/q",
            "pdb/b",
            "role/r",
        )
    }
    assert found["configmap/c"]["data"] == {"k": "v"}
    assert found["secret/s"]["data"] == {"k": "dg=="}
    assert found["deployment/d"]["spec"]["replicas"] == 2
    (container,) = found["deployment/d"]["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["ports"]) == ("i:1", [{"containerPort": 80}])
    assert found["service/d"]["spec"]["ports"][0]["targetPort"] == 8080
    assert found["job/j"]["spec"]["template"]["spec"]["containers"][0]["command"] == ["echo", "x"]
    assert found["quota/q"]["spec"]["hard"] == {"pods": "5"}
    assert found["pdb/b"]["spec"]["minAvailable"] == "50%"
    assert found["role/r"]["rules"][0]["verbs"] == ["get"]
    await kubectl("scale", "deployment", "d", "-n", "n", "--replicas=0")
    assert await kubectl("get", "deployment", "d", "-n", "n", "-o", "jsonpath={.spec.replicas}") == "0"
    assert await kubectl("auth", "can-i", "get", "pods") == "yes\n"
    assert "system:admin" in await kubectl("auth", "whoami")
    await kubectl("delete", "namespace", "n")
    assert await kubectl("get", "configmaps", "-A", "-o", "name") == ""


async def test_kubectl_and_custom_resources(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=DEFINITION)
    await kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=20s")
    widget = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w"},
        "spec": {"size": 3},
    }
    await kubectl("apply", "-f", "-", stdin=widget)
    widget["spec"] = {"size": 4}
    await kubectl("apply", "-f", "-", stdin=widget)
    assert (await kubectl("get", "wd")).split() == ["NAME", "SIZE", "w", "4"]
    await kubectl("delete", "crd", "widgets.example.com")
    assert "the server could not find the requested resource" in await kubectl("get", "wd", fails=True)


async def test_kubectl_watches(kubectl: Kubectl, server: ApiServer) -> None:
    await kubectl("create", "-f", "-", stdin=pod("a"))
    waiting = asyncio.create_task(
        kubectl("wait", "pod/a", "--for=jsonpath={.status.phase}=Running", "--timeout=30s")
    )
    while not server.app.streams:
        await asyncio.sleep(0.01)
    patch = '{"status":{"phase":"Running"}}'
    await kubectl("patch", "pod", "a", "--subresource=status", "--type=merge", "-p", patch)
    assert "condition met" in await waiting


# -- the kubernetes package -------------------------------------------------------------------------


def python_client(url: str) -> list[str]:
    """What a program written for any cluster does; returns what its watch saw."""
    from kubernetes import client, watch

    configuration = client.Configuration()
    configuration.host = url
    with client.ApiClient(configuration) as api:
        core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name="n")))
        core.create_namespaced_pod("n", pod("a"))
        assert core.read_namespaced_pod("a", "n").status.phase == "Pending"
        core.patch_namespaced_pod("a", "n", {"metadata": {"labels": {"x": "y"}}})
        listed = core.list_pod_for_all_namespaces(label_selector="x=y", limit=1)
        assert [item.metadata.name for item in listed.items] == ["a"]
        with pytest.raises(client.ApiException) as caught:
            core.create_namespaced_pod("n", pod("a"))
        assert caught.value.status == 409
        client.ApiextensionsV1Api(api).create_custom_resource_definition(DEFINITION)
        widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
        custom.create_namespaced_custom_object("example.com", "v1", "n", "widgets", widget)
        widgets = custom.list_cluster_custom_object("example.com", "v1", "widgets")["items"]
        assert [one["metadata"]["name"] for one in widgets] == ["w"]
        core.delete_namespaced_pod("a", "n")
        stream = watch.Watch().stream(core.list_namespaced_pod, "n", resource_version="5", timeout_seconds=2)
        return [f"{event['type']} {event['object'].metadata.name}" for event in stream]


async def test_the_python_client(server: ApiServer) -> None:
    events = await asyncio.to_thread(python_client, server.url)
    assert events == ["ADDED a", "MODIFIED a", "DELETED a"]
