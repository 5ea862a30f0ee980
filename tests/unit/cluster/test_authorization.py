"""Whether somebody may: the API server's verdicts, how long they count, and what an open watch learns of them."""

import asyncio
import random
from urllib.parse import parse_qsl

import pytest
from support.apiserver import Caller, in_virtual_time, virtual_now
from support.guarded import RBAC, ROOT, SHOAL, Away, bearer, binding

from shoal.cluster.gateway.authentication import Caller as Known
from shoal.cluster.gateway.authorization import Authorizer, EverythingAllowed
from shoal.cluster.gateway.reviews import AccessVerdict, Reviewer, access_spec
from shoal.cluster.gateway.settings import AuthorizationSettings
from shoal.cluster.serving.identity import Attributes, User, forbidden, request_attributes
from shoal.cluster.simulator import settings as simulator
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.model.errors import Forbidden, NotReady, TooManyRequests, Unauthorized

DELEGATE = simulator.User(name="shoal", token=SHOAL.token, groups=("system:masters",))
JANE = User("jane", groups=("devs", "system:authenticated"))
PODS = Attributes("list", "", "v1", "pods", namespace="default", path="/api/v1/namespaces/default/pods")
REFUSED = (
    'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default"'
)


class Side:
    """An authorizer that asks an embedded server, in which jane may read pods or may not."""

    def __init__(self, **settings):
        self.app = build_app(SimulatorSettings(seed=1, users=(DELEGATE, ROOT), rbac=True), now=virtual_now)
        self.api = Caller(self.app)
        self.connection = Away(self.app, SHOAL.token)
        self.settings = AuthorizationSettings(**settings)
        self.authorizer = Authorizer(Reviewer(self.connection), self.settings, rng=random.Random(1))

    async def grant(self):
        rules = [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]
        await self._root("POST", "clusterroles", {"metadata": {"name": "pods"}, "rules": rules})
        await self.bind()

    async def bind(self):
        await self._root(
            "POST", "clusterrolebindings", binding("pods", "ClusterRole", "pods", "Group", "devs")
        )

    async def withdraw(self):
        await self._root("DELETE", "clusterrolebindings/pods", None)

    async def _root(self, method, path, document):
        status, answer = await self.api.ask(method, f"{RBAC}/{path}", document, headers=bearer(ROOT.token))
        assert status < 300, answer

    async def allowed(self, user=JANE, attributes=PODS):
        try:
            await self.authorizer.require(user, attributes)
        except Forbidden:
            return False
        return True

    @property
    def reviews(self):
        return self.connection.reviews("subjectaccessreviews")


def test_a_refusal_has_the_api_servers_words():
    async def main():
        with pytest.raises(Forbidden) as caught:
            await Side().authorizer.require(JANE, PODS)
        assert (caught.value.message, caught.value.details) == (REFUSED, {"kind": "pods"})

    in_virtual_time(main())


def test_a_refusal_passes_on_what_the_authorizer_says_about_it():
    async def main():
        side = Side()
        await side.bind()
        with pytest.raises(Forbidden) as caught:
            await side.authorizer.require(JANE, PODS)
        reason = 'RBAC: clusterrole.rbac.authorization.k8s.io "pods" not found'
        assert caught.value.message == f"{REFUSED}: {reason}"

    in_virtual_time(main())


def test_a_permission_counts_for_its_time_and_no_longer():
    async def main():
        side = Side()
        await side.grant()
        assert await side.allowed()
        await side.withdraw()
        await asyncio.sleep(9.9)
        assert await side.allowed()
        assert side.reviews == 1
        await asyncio.sleep(0.2)
        assert not await side.allowed()
        await side.bind()
        await asyncio.sleep(4.8)
        assert not await side.allowed()
        assert side.reviews == 2
        await asyncio.sleep(0.3)
        assert await side.allowed()

    in_virtual_time(main())


def test_the_life_of_a_verdict_begins_with_the_question():
    async def main():
        side = Side()
        await side.grant()
        side.app.faults.arm(Fault(kind="slow", seconds=6.0))
        assert await side.allowed()
        await side.withdraw()
        await asyncio.sleep(4.1)
        assert not await side.allowed()

    in_virtual_time(main())


DIFFERENT = [
    (User("joan", groups=JANE.groups), PODS),
    (User("jane", groups=("system:authenticated",)), PODS),
    (User("jane", "7", JANE.groups), PODS),
    (User("jane", "", JANE.groups, {"scopes": ("a",)}), PODS),
    (JANE, request_attributes("GET", "/api/v1/namespaces/other/pods", ())),
    (JANE, request_attributes("GET", "/api/v1/namespaces/default/pods", (("watch", "1"),))),
    (JANE, request_attributes("GET", "/api/v1/namespaces/default/pods/a", ())),
    (JANE, request_attributes("GET", "/api/v1/namespaces/default/pods/a/log", ())),
    (JANE, request_attributes("GET", "/apis/metrics.k8s.io/v1/namespaces/default/pods", ())),
    (JANE, request_attributes("GET", "/metrics", ())),
]


@pytest.mark.parametrize(("user", "attributes"), DIFFERENT)
def test_no_verdict_counts_for_another_question(user, attributes):
    async def main():
        side = Side()
        await side.grant()
        assert await side.allowed()
        await side.allowed(user, attributes)
        assert side.reviews >= 2

    in_virtual_time(main())


def test_many_at_once_are_one_question_and_too_many_are_429():
    async def main():
        side = Side(reviews_at_once=1, reviews_waiting=1)
        await side.grant()
        assert all(await asyncio.gather(*(side.allowed() for _ in range(50))))
        assert side.reviews == 1
        side.app.faults.arm(Fault(kind="slow", seconds=1.0, count=None))
        others = [User(str(number)) for number in range(5)]
        found = await asyncio.gather(*(side.allowed(user) for user in others), return_exceptions=True)
        assert [type(one) for one in found] == [bool, bool, *[TooManyRequests] * 3]

    in_virtual_time(main())


def test_what_is_remembered_is_bounded():
    async def main():
        side = Side(remembered=3)
        for number in range(20):
            await side.allowed(User(str(number)))
        assert len(side.authorizer._verdicts) == 3

    in_virtual_time(main())


def test_selectors_are_asked_about_only_where_everything_is_refused():
    async def main():
        side = Side()
        everything, selected = [], []

        async def access(user, attributes):
            (selected if attributes.field_selector else everything).append(attributes)
            return AccessVerdict(user.name == "admin" or attributes.field_selector == "spec.nodeName=n1")

        side.authorizer._reviewer.access = access
        mine = request_attributes("GET", "/api/v1/pods", (("fieldSelector", "spec.nodeName=n1"),))
        other = request_attributes("GET", "/api/v1/pods", (("fieldSelector", "spec.nodeName=n2"),))
        assert await side.allowed(User("node"), mine)
        assert not await side.allowed(User("node"), other)
        assert (len(everything), len(selected)) == (1, 2)
        assert await side.allowed(User("admin"), mine)
        assert await side.allowed(User("admin"), other)
        assert (len(everything), len(selected)) == (2, 2)

    in_virtual_time(main())


def test_while_the_api_server_is_away_verdicts_live_to_their_end_and_then_it_is_503():
    async def main():
        side = Side()
        await side.grant()
        assert await side.allowed()
        side.connection.away = True
        await asyncio.sleep(9.9)
        assert await side.allowed()
        await asyncio.sleep(0.2)
        for user in (JANE, User("system:admin", groups=("system:masters",))):
            with pytest.raises(NotReady) as caught:
                await side.authorizer.require(user, PODS)
            assert caught.value.code == 503
        side.connection.away = False
        assert await side.allowed()

    in_virtual_time(main())


def test_masters_have_no_short_cut_here():
    async def main():
        side = Side()
        assert await side.allowed(User("root", groups=("system:masters",)))
        assert side.reviews == 1

    in_virtual_time(main())


def test_a_gateway_that_asks_nobody_allows_everything():
    async def main():
        open_ = EverythingAllowed()
        await open_.require(JANE, PODS)
        waiting = asyncio.create_task(open_.revoked(JANE, PODS))
        await asyncio.sleep(100_000)
        assert not waiting.done()
        waiting.cancel()
        await open_.aclose()

    in_virtual_time(main())


# -- open watches --------------------------------------------------------------------------------------------


async def timed(side, user, change, *, before=100.0):
    """Seconds from `change` until a watch is told, and what it is told."""
    loop = asyncio.get_running_loop()
    watching = asyncio.create_task(side.authorizer.revoked(user, PODS))
    await asyncio.sleep(before)
    assert not watching.done()
    result = change()
    if result is not None:
        await result
    since = loop.time()
    async with asyncio.timeout(1000):
        told = await watching
    return loop.time() - since, told


@pytest.mark.parametrize("before", [1.0, 29.0, 100.0, 111.1, 1000.0])
def test_a_watch_learns_in_time_that_its_permission_is_withdrawn(before):
    async def main():
        side = Side()
        await side.grant()
        assert await side.allowed()
        took, told = await timed(side, JANE, side.withdraw, before=before)
        assert took <= side.settings.recheck_s + side.settings.allowed_life_s
        assert told.message == REFUSED

    in_virtual_time(main())


def test_a_watch_learns_that_its_token_is_nobodys():
    async def main():
        side = Side()
        await side.grant()
        revoked = False

        async def renew():
            if revoked:
                raise Unauthorized("Unauthorized")
            return JANE

        def revoke():
            nonlocal revoked
            revoked = True

        took, told = await timed(side, Known("jane", "", JANE.groups, {}, "token", renew), revoke)
        assert took <= side.settings.recheck_s
        assert told.code == 401

    in_virtual_time(main())


def test_a_watch_is_judged_by_what_its_token_stands_for_now():
    async def main():
        side = Side()
        await side.grant()
        now = JANE

        async def renew():
            return now

        def leave():
            nonlocal now
            now = User("jane", groups=("system:authenticated",))

        took, told = await timed(side, Known("jane", "", JANE.groups, {}, "token", renew), leave)
        assert took <= side.settings.recheck_s
        assert told.code == 403

    in_virtual_time(main())


def test_a_watch_outlives_an_api_server_that_is_away_for_a_while_and_no_longer():
    async def main():
        side = Side()
        await side.grant()

        def leave():
            side.connection.away = True

        took, told = await timed(side, JANE, leave)
        assert side.settings.unproven_s - side.settings.recheck_s <= took <= side.settings.unproven_s + 30
        assert (told.code, told.retry_after_s) == (503, 1)

        side = Side()
        await side.grant()
        watching = asyncio.create_task(side.authorizer.revoked(JANE, PODS))
        for _ in range(5):
            side.connection.away = True
            await asyncio.sleep(60)
            side.connection.away = False
            await asyncio.sleep(60)
        assert not watching.done()
        await side.withdraw()
        assert (await watching).code == 403

    in_virtual_time(main())


def test_a_thousand_watches_of_one_user_are_one_question_at_a_time():
    async def main():
        side = Side()
        await side.grant()
        watches = [asyncio.create_task(side.authorizer.revoked(JANE, PODS)) for _ in range(1000)]
        await asyncio.sleep(305)
        assert side.reviews <= 31
        await side.withdraw()
        assert {told.code for told in await asyncio.gather(*watches)} == {403}

    in_virtual_time(main())


# -- what is asked -------------------------------------------------------------------------------------------


ATTRIBUTES = [
    ("GET", "/api/v1/pods", "", ("list", "", "v1", "pods", "", "", "")),
    ("HEAD", "/api/v1/pods", "", ("list", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/pods", "watch=1", ("watch", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/pods", "watch=", ("watch", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/pods", "watch=0", ("list", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/pods", "watch=False&watch=1", ("list", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/watch/pods", "", ("watch", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/watch/namespaces/a/pods/b", "", ("watch", "", "v1", "pods", "", "a", "b")),
    ("GET", "/api/v1/namespaces/a/pods/b", "watch=1", ("get", "", "v1", "pods", "", "a", "b")),
    ("GET", "/api/v1/namespaces/a/pods/b/log", "", ("get", "", "v1", "pods", "log", "a", "b")),
    (
        "GET",
        "/api/v1/namespaces/a/services/b/proxy/x/y",
        "",
        ("get", "", "v1", "services", "proxy", "a", "b"),
    ),
    ("GET", "/api/v1/namespaces/a", "", ("get", "", "v1", "namespaces", "", "a", "a")),
    ("PUT", "/api/v1/namespaces/a/status", "", ("update", "", "v1", "namespaces", "status", "a", "a")),
    ("GET", "/api/v1/namespaces", "", ("list", "", "v1", "namespaces", "", "", "")),
    (
        "DELETE",
        "/apis/apps/v1/namespaces/a/deployments",
        "",
        ("deletecollection", "apps", "v1", "deployments", "", "a", ""),
    ),
    (
        "POST",
        "/apis/apps/v1/namespaces/a/deployments",
        "",
        ("create", "apps", "v1", "deployments", "", "a", ""),
    ),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/a/deployments/b/scale",
        "",
        ("patch", "apps", "v1", "deployments", "scale", "a", "b"),
    ),
    ("GET", "/api/v1/pods", "fieldSelector=metadata.name%3Db", ("list", "", "v1", "pods", "", "", "b")),
    (
        "GET",
        "/api/v1/pods",
        "watch=1&fieldSelector=metadata.name%3Db",
        ("watch", "", "v1", "pods", "", "", "b"),
    ),
    (
        "GET",
        "/api/v1/pods",
        "fieldSelector=metadata.name%3Db,spec.nodeName%3Dn",
        ("list", "", "v1", "pods", "", "", "b"),
    ),
    ("GET", "/api/v1/pods", "fieldSelector=metadata.name!%3Db", ("list", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/pods", "fieldSelector=metadata.name%3Da%2Fb", ("list", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/pods", "fieldSelector=metadata.name%3D..", ("list", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/pods", "fieldSelector=((", ("list", "", "v1", "pods", "", "", "")),
    ("OPTIONS", "/api/v1/pods", "", ("", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1", "", ("get", "", "", "", "", "", "")),
    ("POST", "/metrics", "", ("post", "", "", "", "", "", "")),
    ("GET", "/shoal/v1/status", "", ("get", "", "", "", "", "", "")),
]


@pytest.mark.parametrize(("method", "path", "query", "expected"), ATTRIBUTES)
def test_what_a_request_is_about(method, path, query, expected):
    found = request_attributes(method, path, parse_qsl(query, keep_blank_values=True))
    seen = (
        found.verb,
        found.group,
        found.version,
        found.resource,
        found.subresource,
        found.namespace,
        found.name,
    )
    assert (seen, found.path) == (expected, path)


def test_a_review_says_everything_an_authorizer_may_look_at():
    user = User("jane", "7", ("devs",), {"scopes": ("a",)})
    query = (("fieldSelector", "spec.nodeName=n"), ("labelSelector", "a=b"))
    assert access_spec(user, request_attributes("GET", "/apis/apps/v1/namespaces/a/pods", query)) == {
        "user": "jane",
        "uid": "7",
        "groups": ("devs",),
        "extra": {"scopes": ("a",)},
        "resourceAttributes": {
            "verb": "list",
            "group": "apps",
            "version": "v1",
            "resource": "pods",
            "namespace": "a",
            "fieldSelector": {"rawSelector": "spec.nodeName=n"},
            "labelSelector": {"rawSelector": "a=b"},
        },
    }
    assert access_spec(User("x"), Attributes("get", path="/metrics")) == {
        "user": "x",
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
    }


def test_names_are_quoted_as_go_does():
    error = forbidden(User('a"b\\c\n\u00e4\u0001\u200b'), Attributes("get", path="/x"))
    assert error.message == 'forbidden: User "a\\"b\\\\c\\n\u00e4\\x01\\u200b" cannot get path "/x"'
