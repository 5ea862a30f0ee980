"""What kubectl relies on when it takes the gateway for an API server: both are asked the same."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.apiserver import in_virtual_time
from support.gateway_installation import running
from support.guarded import TOKENS, Guarded, bearer
from support.local_shards import PODS, LocalInstallation, made

from shoal.cluster.gateway.settings import AuthenticationSettings
from shoal.cluster.serving.discovery import DiscoveryDocuments
from shoal.cluster.settings import GatewaySettings
from shoal.cluster.simulator.settings import User
from shoal.coordinator.settings import FollowSettings
from shoal.shards.model.resources import Resource, ResourceType

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
WITH_SUBRESOURCES = (
    "pods",
    "nodes",
    "namespaces",
    "serviceaccounts",
    "services",
    "replicationcontrollers",
    "deployments.apps",
    "statefulsets.apps",
    "jobs.batch",
    "certificatesigningrequests.certificates.k8s.io",
    "widgets.example.com",
)
WIDGETS = {
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"plural": "widgets", "kind": "Widget"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"},
                },
            }
        ],
    },
}
ADA = User(name="ada", uid="7", token="t-ada", groups=("devs",), extra={"scopes": ("a",)})
SSAR = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
SSR = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
FORWARDING = GatewaySettings(authentication=TOKENS, writes="forward")
OPEN = AuthenticationSettings()


def below(document: Any) -> dict[tuple[str, ...], Any]:
    """Subresources of an aggregated answer."""
    return {
        (group["metadata"].get("name", ""), version["version"], resource["resource"]): resource.get(
            "subresources"
        )
        for group in document["items"]
        for version in group["versions"]
        for resource in version["resources"]
    }


@pytest.mark.parametrize("aggregated", [True, False], ids=["aggregated", "legacy"])
def test_discovery_of_subresources_is_the_servers(aggregated: bool) -> None:
    async def compare() -> None:
        guarded = Guarded(settings=FORWARDING, aggregated_discovery=aggregated)
        await guarded.root("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", WIDGETS)
        async with guarded.running(follow=WITH_SUBRESOURCES):
            given = bearer("token-of-root")
            looked_at: set[str] = set()
            for path in ("/api/v1", "/apis/apps/v1", "/apis/batch/v1", "/apis/example.com/v1"):
                (_, server), (_, ours) = await guarded.both("GET", path, "token-of-root")
                names = {entry["name"] for entry in ours["resources"]}
                followed = {name.partition("/")[0] for name in names}
                expected = [e for e in server["resources"] if e["name"].partition("/")[0] in followed]
                assert [e for e in ours["resources"] if "/" in e["name"]] == [
                    e for e in expected if "/" in e["name"]
                ]
                looked_at |= names
            assert {"pods/eviction", "pods/exec", "serviceaccounts/token", "widgets/scale"} <= looked_at
            if not aggregated:
                return  # that server has no other form to compare with
            for path in ("/api", "/apis"):
                accept = {"Accept": AGGREGATED}
                server = below(await guarded.api.get(path, **given, **accept))
                ours = below(await guarded.gateway.get(path, **given, **accept))
                assert ours == {key: server[key] for key in ours}
            eviction = next(
                sub
                for sub in below(await guarded.gateway.get("/api", **given, Accept=AGGREGATED))[
                    "", "v1", "pods"
                ]
                if sub["subresource"] == "eviction"
            )
            assert eviction["responseKind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
            assert eviction["verbs"] == ["create"]

    in_virtual_time(compare())


def test_a_write_is_refused_wherever_the_server_would_take_it() -> None:
    async def compare() -> None:
        guarded = Guarded()
        async with guarded.running(follow=("pods",)):
            for method, path in (
                ("POST", "/api/v1/namespaces/default/configmaps"),
                ("DELETE", "/apis/apps/v1/namespaces/default/deployments/web"),
                ("POST", "/api/v1/namespaces/default/pods/web/eviction"),
                ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
            ):
                headers = bearer("token-of-root")
                status, answer = await guarded.gateway.ask(method, path, headers=headers)
                assert (status, answer["reason"]) == (405, "MethodNotAllowed"), path
                assert "Shoal is read-only" in answer["message"]
            for path in ("/api/v1/namespaces/default/gadgets", "/apis/none.example.com/v1/things"):
                (theirs, _), (ours, _) = await guarded.both("POST", path, "token-of-root")
                assert ours == theirs == 404

    in_virtual_time(compare())


# -- reviews of oneself ---------------------------------------------------------------------------------------


async def asked(guarded: Guarded, token: str, **spec: Any) -> Any:
    headers = bearer(token) if token else {}
    status, answer = await guarded.gateway.ask("POST", SSAR, {"spec": spec}, headers=headers)
    assert status == 201, answer
    assert (answer["kind"], answer["spec"]) == ("SelfSubjectAccessReview", spec)
    return answer["status"]


def resource(verb: str, name: str = "pods", **more: str) -> dict[str, str]:
    return {"verb": verb, "resource": name, **more}


@pytest.mark.parametrize("writes", ["refuse", "forward"])
def test_whoever_asks_what_they_may_is_told_what_this_gateway_would_let_them(writes: Any) -> None:
    async def ask() -> None:
        guarded = Guarded(ADA, settings=GatewaySettings(authentication=TOKENS, writes=writes))
        rule = {"verbs": ["get", "create"], "apiGroups": [""], "resources": ["pods"]}
        await guarded.cluster_role("some", rule, {"verbs": ["get"], "nonResourceURLs": ["/metrics"]})
        await guarded.bind_cluster("some", "some", "User", "ada")
        async with guarded.running():
            assert (await asked(guarded, ADA.token, resourceAttributes=resource("get")))["allowed"] is True
            assert not (await asked(guarded, ADA.token, resourceAttributes=resource("list")))["allowed"]
            path = {"path": "/metrics", "verb": "get"}
            assert (await asked(guarded, ADA.token, nonResourceAttributes=path))["allowed"] is True
            written = await asked(guarded, ADA.token, resourceAttributes=resource("create"))
            denied = await asked(guarded, ADA.token, resourceAttributes=resource("delete"))
            everything = await asked(
                guarded, "token-of-root", resourceAttributes=resource("*", "*", group="*")
            )
            if writes == "refuse":
                assert written == denied == everything == {"allowed": False, "reason": "Shoal is read-only"}
            else:
                assert (written["allowed"], denied["allowed"], everything["allowed"]) == (True, False, True)

    in_virtual_time(ask())


@pytest.mark.parametrize("writes", ["refuse", "forward"])
def test_whoever_asks_who_they_are_is_told_as_the_server_tells(writes: Any) -> None:
    async def ask() -> None:
        guarded = Guarded(ADA, settings=GatewaySettings(authentication=TOKENS, writes=writes))
        async with guarded.running():
            for headers in (
                bearer(ADA.token),
                bearer("token-of-root"),
                {**bearer("token-of-root"), "Impersonate-User": "eve", "Impersonate-Group": "crew"},
                {},
            ):
                theirs = await guarded.api.ask("POST", SSR, {}, headers=headers)
                ours = await guarded.gateway.ask("POST", SSR, {}, headers=headers)
                assert ours[0] == theirs[0]
                assert ours[1].get("status") == theirs[1].get("status")
            who = await guarded.gateway.ask("POST", SSR, {}, headers=bearer(ADA.token))
            assert who[1]["status"]["userInfo"]["username"] == "ada"
            assert who[1]["status"]["userInfo"]["extra"] == {"scopes": ["a"]}

    in_virtual_time(ask())


def test_without_authentication_everybody_reads_and_writes_as_whoever_the_server_takes_them_for() -> None:
    async def both() -> None:
        guarded = Guarded(ADA, settings=GatewaySettings(authentication=OPEN))
        async with guarded.running():
            assert (await asked(guarded, ADA.token, resourceAttributes=resource("list")))["allowed"] is True
            status = await asked(guarded, "token-of-root", resourceAttributes=resource("delete"))
            assert status == {"allowed": False, "reason": "Shoal is read-only"}
            _, who = await guarded.gateway.ask("POST", SSR, {}, headers=bearer(ADA.token))
            assert who["status"]["userInfo"]["username"] == "system:anonymous"
        guarded = Guarded(ADA, settings=GatewaySettings(authentication=OPEN, writes="forward"))
        async with guarded.running():
            status = await asked(guarded, "token-of-root", resourceAttributes=resource("delete"))
            assert status["allowed"] is True
            status = await asked(guarded, ADA.token, resourceAttributes=resource("delete"))
            assert status["allowed"] is False
            assert (await asked(guarded, ADA.token, resourceAttributes=resource("list")))["allowed"] is True
            _, who = await guarded.gateway.ask("POST", SSR, {}, headers=bearer(ADA.token))
            assert who["status"]["userInfo"]["username"] == "ada"

    in_virtual_time(both())


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"spec": {"resourceAttributes": 3}}', "application/json", 400),
        (b'{"kind": "Pod"}', "application/json", 400),
        (b'{"apiVersion": "v1"}', "application/json", 400),
        (b'{"spec": ' + b"[" * 30_000, "application/json", 400),
        (b"{}", "application/json", 422),
        (b'{"spec": {"resourceAttributes": {}, "nonResourceAttributes": {}}}', "application/json", 422),
        (b"k8s\x00\xff", "application/vnd.kubernetes.protobuf", 400),
        (b"a: b", "text/plain", 415),
        (b" " * (65 << 10), "application/json", 413),
    ],
)
async def test_what_is_no_review_is_refused(body: bytes, content_type: str, code: int) -> None:
    built = LocalInstallation(1)
    built.hold(PODS)
    built.publish()
    assert (await post(built.gateway, SSAR, body, content_type))[0] == code


async def test_a_review_in_protobuf_is_read() -> None:
    """The body is one that ``kubectl auth can-i delete pods`` sends."""
    built = LocalInstallation(1)
    built.hold(PODS)
    built.publish()
    attributes = b"\x0a\x00\x12\x06delete\x1a\x00\x22\x00\x2a\x04pods\x32\x00\x3a\x00"
    spec = b"\x0a" + bytes([len(attributes)]) + attributes
    review = b"\x0a\x00\x12" + bytes([len(spec)]) + spec + b"\x1a\x06\x08\x00\x12\x00\x1a\x00"
    kind = b"\x0a\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview"
    body = b"k8s\x00\x0a" + bytes([len(kind)]) + kind + b"\x12" + bytes([len(review)]) + review
    code, answer = await post(built.gateway, SSAR, body, "application/vnd.kubernetes.protobuf")
    assert code == 201, answer
    document = json.loads(answer)
    assert document["spec"]["resourceAttributes"] == {"verb": "delete", "resource": "pods"}
    assert document["status"] == {"allowed": False, "reason": "Shoal is read-only"}


async def post(app: Any, path: str, body: bytes, content_type: str) -> tuple[int, bytes]:
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", content_type.encode())],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def kubectl_of(url: str, folder: Path) -> Callable[..., Awaitable[tuple[int | None, str]]]:
    """kubectl, with nothing of this machine's configuration: its exit code, and all it says."""

    async def kubectl(*arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            f"--server={url}",
            f"--cache-dir={folder}",
            *arguments,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "KUBECONFIG": "/dev/null"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    return kubectl


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("writes", ["refuse", "forward"])
async def test_kubectl_asks_what_it_may_and_who_it_is(writes: str, tmp_path: Path) -> None:
    async with running(writes=writes) as installation:
        kubectl = kubectl_of(installation.url, tmp_path)
        code, output = await kubectl("auth", "can-i", "list", "pods")
        assert (code, output) == (0, "yes\n")
        code, output = await kubectl("auth", "can-i", "delete", "pods")
        if writes == "refuse":
            assert code == 1
            assert "no - Shoal is read-only" in output
        else:
            assert (code, output) == (0, "yes\n")
        code, output = await kubectl("auth", "whoami", "-o", "json")
        assert code == 0, output
        assert json.loads(output)["status"]["userInfo"]["username"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
async def test_kubectl_drain_evicts_and_so_heeds_budgets(tmp_path: Path) -> None:
    async with (
        running(writes="forward") as installation,
        aiohttp.ClientSession(installation.source.url) as server,
    ):

        async def create(path: str, document: Any) -> None:
            async with server.post(path, json=document) as answer:
                assert answer.status == 201, await answer.text()

        await create("/api/v1/nodes", {"metadata": {"name": "node-1"}})
        for name in ("kept", "moved"):
            spec = {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]}
            pod = {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}
            await create("/api/v1/namespaces/default/pods", {**pod, "status": {"phase": "Running"}})
        budget = {"metadata": {"name": "kept"}, "spec": {"selector": {"matchLabels": {"app": "kept"}}}}
        await create("/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget)
        kubectl = kubectl_of(installation.url, tmp_path)
        async with asyncio.timeout(20):
            while "kept" not in (await kubectl("get", "pods"))[1]:
                pass
        code, output = await kubectl("drain", "node-1", "--force", "--timeout=1s")
        assert code != 0
        assert "evicting pod default/moved" in output
        assert "violate the pod's disruption budget" in output
        async with server.get("/api/v1/namespaces/default/pods") as answer:
            assert [item["metadata"]["name"] for item in (await answer.json())["items"]] == ["kept"]


# -- forms and pages ------------------------------------------------------------------------------------------


def test_status_of_an_object_is_the_object_and_other_subresources_are_not_here() -> None:
    async def compare() -> None:
        guarded = Guarded()
        async with guarded.running(follow=FollowSettings(include=("deployments.apps", "configmaps"))):
            path = "/apis/apps/v1/namespaces/default/deployments"
            template = {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            }
            spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
            await guarded.root("POST", path, {"metadata": {"name": "web"}, "spec": spec})
            await guarded.root(
                "POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "settings"}}
            )
            await asyncio.sleep(1)
            theirs, ours = await guarded.both("GET", f"{path}/web/status", "token-of-root")
            del theirs[1]["metadata"]["managedFields"]  # which Shoal does not hold
            assert ours == theirs
            assert ours[0] == 200
            status, answer = await guarded.gateway.ask(
                "GET", f"{path}/web/scale", headers=bearer("token-of-root")
            )
            assert status == 404
            assert "Shoal does not serve subresources" in answer["message"]
            # Where there is no such subresource there is none here either.
            theirs, ours = await guarded.both(
                "GET", "/api/v1/namespaces/default/configmaps/settings/status", "token-of-root"
            )
            assert ours[0] == theirs[0] == 404

    in_virtual_time(compare())


def test_what_is_not_there_is_404_in_whatever_form_it_is_asked_for() -> None:
    async def compare() -> None:
        guarded = Guarded()
        async with guarded.running():
            accept = "application/json;g=meta.k8s.io;v=v1;as=PartialObjectMetadataList"
            for name, code in (("kube-system", 406), ("absent", 404)):
                (theirs, _), (ours, answer) = await guarded.both(
                    "GET", f"/api/v1/namespaces/{name}", "token-of-root", Accept=accept
                )
                assert ours == theirs == code, answer

    in_virtual_time(compare())


def test_of_a_group_or_a_version_alone_there_is_no_aggregated_form() -> None:
    async def compare() -> None:
        guarded = Guarded()
        async with guarded.running(follow=("pods", "deployments.apps")):
            for path in ("/api/v1", "/apis/apps", "/apis/apps/v1"):
                for accept, code in ((AGGREGATED, 406), (f"{AGGREGATED},application/json", 200)):
                    (theirs, _), (ours, _) = await guarded.both("GET", path, "token-of-root", Accept=accept)
                    assert ours == theirs == code

    in_virtual_time(compare())


async def test_the_list_of_pages_names_groups_and_openapi_and_pings_answer() -> None:
    async with running() as installation, aiohttp.ClientSession(installation.url) as session:
        async with session.get("/") as answer:
            paths = (await answer.json())["paths"]
        assert {"/apis/apps", "/apis/apps/v1", "/openapi/v2", "/openapi/v3", "/livez/ping"} <= set(paths)
        for page in ("/livez/ping", "/readyz/ping", "/healthz/ping"):
            async with session.get(page) as answer:
                assert (answer.status, await answer.text()) == (200, "ok")
        async with session.post("/livez/ping") as answer:
            assert answer.status == 405


async def test_without_openapi_it_is_not_among_the_pages() -> None:
    built = LocalInstallation(1)
    built.hold(PODS, [made(PODS, "web-0", namespace="a")])
    built.publish()
    assert not [path for path in (await built.ask("/")).json["paths"] if path.startswith("/openapi")]


def test_a_built_in_kind_without_described_subresources_shows_none() -> None:
    known = ResourceType(
        resource=Resource("", "v1", "pods"),
        kind="Pod",
        namespaced=True,
        verbs=("get",),
        subresources=("eviction",),
    )
    (entry,) = json.loads(DiscoveryDocuments([known]).resources("", "v1") or b"")["resources"]
    assert entry["name"] == "pods"
