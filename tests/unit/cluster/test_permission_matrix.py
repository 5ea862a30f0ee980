"""Who may read what through the gateway is who may read it from the API server: status, text and details.

Users, verbs, resources, namespaces and names are crossed, and everything is asked of both: of the embedded server,
which decides by the roles stored in it, and of a gateway that asks it.
"""

import asyncio
import itertools

import pytest
from support.apiserver import in_virtual_time
from support.guarded import RBAC, Guarded, bearer

from shoal.cluster.simulator.settings import User
from shoal.shards.api.requests import ApiRequest

READ = ["get", "list", "watch"]
USERS = (
    User(name="admin", token="t-admin", groups=("system:masters",)),
    User(name="reader", token="t-reader"),
    User(name="lister", token="t-lister"),
    User(name="jane", token="t-jane", groups=("devs",), uid="7", extra={"scopes": ("a", "b")}),
    User(name="named", token="t-named"),
    User(name="status", token="t-status"),
    User(name="dangling", token="t-dangling"),
    User(name="system:serviceaccount:alpha:robot", token="t-robot", groups=("system:serviceaccounts",)),
    User(name='o"dd\\ n\u00e4me', token="t-odd"),
    User(name="nobody", token="t-nobody"),
)
TOKENS = tuple(user.token for user in USERS)
UNKNOWN = "t-unknown"
NAMESPACES = ("alpha", "beta", "absent")
RESOURCES = ("pods", "configmaps")
NAMES = ("one", "two", "absent")
HEALTH = ("/healthz", "/livez", "/readyz")
PATHS = (
    *("/", "/api", "/apis", "/api/v1", "/apis/apps/v1", "/version", "/metrics", "/nowhere"),
    *(
        "/openapi/v9",
        "/shoal/v1/status",
        *HEALTH,
    ),  # real OpenAPI is made in threads, which virtual time lacks
)
LIFE_S = 11.0
"""More than any verdict counts."""


def rule(*resources, verbs=READ, group="", names=()):
    found = {"verbs": list(verbs), "apiGroups": [group], "resources": list(resources)}
    return found | ({"resourceNames": list(names)} if names else {})


async def populate(guarded):
    for namespace in ("alpha", "beta"):
        await guarded.root("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        for name in ("one", "two"):
            document = {"metadata": {"name": name}, "data": {"x": "y"}}
            await guarded.root("POST", f"/api/v1/namespaces/{namespace}/configmaps", document)
    await guarded.cluster_role("reads", rule("pods", "configmaps", "namespaces"))
    await guarded.cluster_role("lists", rule("*", verbs=["list"]))
    await guarded.cluster_role("subresources", rule("*/status", verbs=["get"]))
    await guarded.bind_cluster("reader", "reads", "User", "reader")
    await guarded.bind_cluster("lister", "lists", "User", "lister")
    await guarded.bind_cluster("status", "subresources", "User", "status")
    await guarded.bind_cluster("dangling", "nowhere", "User", "dangling")
    await guarded.bind_cluster("dangling-2", "no-where", "User", "dangling")
    await guarded.bind_cluster("odd", "reads", "User", USERS[-2].name)
    await guarded.role("alpha", "pods", rule("pods"), rule("namespaces", verbs=["get"]))
    await guarded.role("beta", "one", rule("configmaps", names=["one"]))
    await guarded.bind("alpha", "devs", "pods", "Group", "devs")
    await guarded.bind("alpha", "robot", "pods", "ServiceAccount", "robot")
    await guarded.bind("beta", "named", "one", "User", "named")
    await guarded.bind(
        "beta", "robot", "reads", "ServiceAccount", "robot", role_kind="ClusterRole", namespace="alpha"
    )
    await guarded.bind("alpha", "dangling", "gone", "User", "dangling")


def targets():
    for resource in RESOURCES:
        yield f"/api/v1/{resource}"
        yield f"/api/v1/{resource}?fieldSelector=metadata.name%3Done"
        for namespace in NAMESPACES:
            collection = f"/api/v1/namespaces/{namespace}/{resource}"
            yield from (collection, f"{collection}?limit=1", f"{collection}?labelSelector=a%3Db")
            yield f"{collection}?fieldSelector=metadata.name%3Done"
            yield f"{collection}?fieldSelector=metadata.name%21%3Done"
            yield f"{collection}?fieldSelector=metadata.name%3Done,metadata.namespace%3D{namespace}"
            yield from (f"{collection}/{name}" for name in NAMES)
    yield "/api/v1/namespaces"
    yield from (f"/api/v1/namespaces/{namespace}" for namespace in NAMESPACES)
    yield from PATHS


def verdict(answer, path):
    """What has to agree: of a refusal everything, of objects the status, of other pages whether they were refused."""
    status, document = answer
    if status in (401, 403):
        return status, document
    return (status if path.startswith("/api/v1/") else "not refused"), None


async def compare(guarded, tokens, paths, method="GET"):
    differences, refused, allowed = [], 0, 0
    for token, path in itertools.product(tokens, paths):
        if token == UNKNOWN and path in HEALTH:
            continue  # the gateway tells everybody whether it lives, and asks nobody
        said, ours = await guarded.both(method, path, token)
        if verdict(said, path) != verdict(ours, path):
            differences.append((token, path, said, ours))
        refused += said[0] in (401, 403)
        allowed += said[0] < 300
    assert not differences, f"{len(differences)} differ, the first: {differences[0]}"
    return refused, allowed


async def watched(guarded, token, path):
    """Status, and document of a refusal, of a watch that is left at once, by the API server and by the gateway."""
    found = []
    for side in (guarded.api, guarded.gateway):
        separator = "&" if "?" in path else "?"
        found.append(
            await side.ask("GET", f"{path}{separator}watch=1&timeoutSeconds=1", headers=bearer(token))
        )
    return [(status, document if status == 403 else None) for status, document in found]


def test_gets_and_lists_are_allowed_to_whom_the_api_server_allows_them():
    async def main():
        guarded = Guarded(*USERS)
        async with guarded.running():
            await populate(guarded)
            await asyncio.sleep(5)
            refused, allowed = await compare(guarded, ("", UNKNOWN, *TOKENS), tuple(targets()))
            assert refused > 300
            assert allowed > 100

    in_virtual_time(main())


def test_refusals_look_alike_to_the_last_header():
    async def main():
        guarded = Guarded(*USERS)
        async with guarded.running():
            seen = []
            for token, expected in (("t-nobody", 403), (UNKNOWN, 401)):
                headers = (("Accept", "application/json"), *bearer(token).items())
                for side in (guarded.api, guarded.gateway):
                    async with side.connection.open(
                        ApiRequest("GET", "/api/v1/pods", (), headers)
                    ) as response:
                        seen.append((response.status, dict(response.headers), await response.read()))
                assert seen[-1] == seen[-2]
                assert seen[-1][0] == expected

    in_virtual_time(main())


def test_watches_are_allowed_to_whom_the_api_server_allows_them():
    async def main():
        guarded = Guarded(*USERS)
        async with guarded.running():
            await populate(guarded)
            await asyncio.sleep(5)
            seen = set()
            paths = [path for path in targets() if path.startswith("/api/v1/") and "limit" not in path]
            for token, path in itertools.product(TOKENS, paths):
                if path.partition("?")[0].rpartition("/")[2] in (*NAMES, "alpha", "beta"):
                    continue
                said, ours = await watched(guarded, token, path)
                assert said == ours, (token, path)
                seen.add(said[0])
            assert seen == {200, 403}

    in_virtual_time(main())


CHANGES = (
    ("a role binding is deleted", "t-jane", "DELETE", f"{RBAC}/namespaces/alpha/rolebindings/devs", None),
    ("a cluster role loses its rules", "t-reader", "PUT", f"{RBAC}/clusterroles/reads", {"rules": []}),
    ("a cluster role is deleted", "t-lister", "DELETE", f"{RBAC}/clusterroles/lists", None),
    (
        "somebody becomes a reader",
        "t-nobody",
        "POST",
        f"{RBAC}/clusterrolebindings",
        {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reads"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"}],
        },
    ),
)


@pytest.mark.parametrize(
    ("token", "method", "path", "change"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES]
)
def test_changed_roles_count_once_verdicts_have_had_their_time(token, method, path, change):
    async def main():
        guarded = Guarded(*USERS)
        async with guarded.running():
            await populate(guarded)
            await asyncio.sleep(5)
            asked = [target for target in targets() if "pods" in target]
            before = [
                (await guarded.gateway.ask("GET", target, headers=bearer(token)))[0] for target in asked
            ]
            if change is not None:
                change["metadata"] = {"name": path.rpartition("/")[2] if method == "PUT" else "later"}
            await guarded.root(method, path, change)
            await asyncio.sleep(LIFE_S)
            await compare(guarded, TOKENS, tuple(targets()))
            after = [(await guarded.gateway.ask("GET", target, headers=bearer(token)))[0] for target in asked]
            assert before != after

    in_virtual_time(main())


def test_an_open_watch_ends_after_its_role_binding_is_deleted():
    async def main():
        guarded = Guarded(*USERS)
        loop = asyncio.get_running_loop()
        async with guarded.running():
            await populate(guarded)
            await asyncio.sleep(5)
            async with (
                guarded.watch("/api/v1/namespaces/alpha/pods?timeoutSeconds=3000", "t-jane") as janes,
                guarded.watch("/api/v1/namespaces/alpha/pods?timeoutSeconds=3000", "t-reader") as readers,
            ):
                await asyncio.sleep(100)
                await guarded.root("DELETE", f"{RBAC}/namespaces/alpha/rolebindings/devs")
                withdrawn = loop.time()
                lines = await janes.rest()
                bounds = guarded.settings.authorization
                assert loop.time() - withdrawn <= bounds.recheck_s + bounds.allowed_life_s + 1
                assert [kind for kind, _ in lines if kind != "BOOKMARK"] in ([], ["ERROR"])
                pod = {"metadata": {"name": "later"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
                await guarded.root("POST", "/api/v1/namespaces/alpha/pods", pod)
                kind, document = await readers.next()
                assert (kind, document["metadata"]["name"]) == ("ADDED", "later")

    in_virtual_time(main())


def test_an_open_watch_ends_after_its_token_is_revoked():
    async def main():
        guarded = Guarded(*USERS)
        loop = asyncio.get_running_loop()
        async with guarded.running():
            await populate(guarded)
            async with guarded.watch(
                "/api/v1/configmaps?timeoutSeconds=3000&resourceVersion=0", "t-reader"
            ) as lines:
                await asyncio.sleep(100)
                guarded.source.access.forget("t-reader")
                revoked = loop.time()
                await lines.rest()
                assert loop.time() - revoked <= 41

    in_virtual_time(main())


def test_an_open_watch_ends_after_its_user_may_not_be_impersonated_any_more():
    async def main():
        guarded = Guarded(*USERS)
        loop = asyncio.get_running_loop()
        async with guarded.running():
            await populate(guarded)
            acts = {
                "verbs": ["impersonate"],
                "apiGroups": [""],
                "resources": ["users"],
                "resourceNames": ["reader"],
            }
            await guarded.cluster_role("acts", acts)
            await guarded.bind_cluster("acts", "acts", "User", "nobody")
            as_reader = {"Impersonate-User": "reader"}
            said, ours = await guarded.both("GET", "/api/v1/pods", "t-nobody", **as_reader)
            assert said[0] == ours[0] == 200
            async with guarded.watch("/api/v1/pods?timeoutSeconds=3000", "t-nobody", **as_reader) as lines:
                await asyncio.sleep(100)
                await guarded.root("DELETE", f"{RBAC}/clusterrolebindings/acts")
                withdrawn = loop.time()
                await lines.rest()
                assert loop.time() - withdrawn <= 41
            said, ours = await guarded.both("GET", "/api/v1/pods", "t-nobody", **as_reader)
            assert said == ours
            assert said[0] == 403

    in_virtual_time(main())


def test_open_watches_outlive_an_api_server_that_answers_no_reviews_for_a_minute():
    async def main():
        guarded = Guarded(*USERS)
        async with guarded.running():
            await populate(guarded)
            async with guarded.watch("/api/v1/pods?timeoutSeconds=3000", "t-reader") as lines:
                await asyncio.sleep(100)
                guarded.ours.away = True
                await asyncio.sleep(60)
                assert (await guarded.gateway.ask("GET", "/api/v1/pods", headers=bearer("t-reader")))[
                    0
                ] == 503
                guarded.ours.away = False
                pod = {"metadata": {"name": "later"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
                await guarded.root("POST", "/api/v1/namespaces/alpha/pods", pod)
                kind, document = await lines.next()
                assert (kind, document["metadata"]["name"]) == ("ADDED", "later")
                assert (await guarded.gateway.ask("GET", "/api/v1/pods", headers=bearer("t-reader")))[
                    0
                ] == 200

    in_virtual_time(main())
