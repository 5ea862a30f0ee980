"""Acting as somebody else, in the gateway and in the embedded server alike."""

import asyncio
import json

import pytest
from support.apiserver import Caller, in_virtual_time, virtual_now
from support.guarded import RBAC, ROOT, SHOAL, Away, bearer, binding

from shoal.cluster.gateway.authentication import Authenticator
from shoal.cluster.gateway.authorization import Authorizer
from shoal.cluster.gateway.http import Request
from shoal.cluster.gateway.reviews import Reviewer
from shoal.cluster.gateway.settings import AuthenticationSettings, AuthorizationSettings
from shoal.cluster.serving.identity import User, impersonated, impersonation_asked, service_account
from shoal.cluster.simulator import settings as simulator
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import BadRequest, ShoalError

PROXY = simulator.User(name="proxy", token="t-proxy")
DELEGATE = simulator.User(name="shoal", token=SHOAL.token, groups=("system:masters",))
WHO_AM_I = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


class Sides:
    """The embedded server and an authenticator that asks it."""

    def __init__(self):
        users = (DELEGATE, ROOT, PROXY)
        self.app = build_app(SimulatorSettings(seed=1, users=users, rbac=True), now=virtual_now)
        self.api = Caller(self.app)
        self.connection = Away(self.app, SHOAL.token)
        reviewer = Reviewer(self.connection)
        settings = AuthenticationSettings(tokens=True)
        self.authenticator = Authenticator(settings, reviewer, Authorizer(reviewer, AuthorizationSettings()))

    async def allow(self, *rules):
        for path, document in (
            ("clusterroles", {"metadata": {"name": "acts"}, "rules": list(rules)}),
            ("clusterrolebindings", binding("acts", "ClusterRole", "acts", "User", "proxy")),
        ):
            status, answer = await self.api.ask(
                "POST", f"{RBAC}/{path}", document, headers=bearer(ROOT.token)
            )
            assert status == 201, answer

    async def both(self, headers, token=PROXY.token):
        """Name, groups, uid and extra, or status, message and details of the refusal, by either."""
        given = (*bearer(token).items(), *headers)
        return await self._server(given), await self._gateway(given)

    async def _server(self, given):
        request = ApiRequest("POST", WHO_AM_I, (), (("Content-Type", "application/json"), *given), b"{}")
        async with self.api.connection.open(request) as response:
            document = json.loads(await response.read())
        if response.status != 201:
            return response.status, document["message"], document.get("details")
        found = document["status"]["userInfo"]
        extra = {key: tuple(values) for key, values in found.get("extra", {}).items()}
        return found["username"], tuple(found.get("groups", ())), found.get("uid", ""), extra

    async def _gateway(self, given):
        fields = tuple((name.lower(), value.encode().decode("latin-1")) for name, value in given)
        try:
            user = await self.authenticator.authenticate(Request("GET", "/", (), dict(fields), fields=fields))
        except ShoalError as error:
            return error.code, error.message, error.details
        return user.name, user.groups, user.uid, dict(user.extra)


def may(resource, *names, group=""):
    rule = {"verbs": ["impersonate"], "apiGroups": [group], "resources": [resource]}
    return rule | ({"resourceNames": list(names)} if names else {})


AUTHENTICATION = "authentication.k8s.io"
EVERYTHING = (
    may("users"),
    may("groups"),
    may("serviceaccounts"),
    may("uids", group=AUTHENTICATION),
    may("userextras/scopes", group=AUTHENTICATION),
    {"verbs": ["create"], "apiGroups": [AUTHENTICATION], "resources": ["selfsubjectreviews"]},
)
AS_JANE = ("Impersonate-User", "jane")
KNOWN = "system:authenticated"
ROBOT = "system:serviceaccount:alpha:robot"

ALLOWED = [
    ([AS_JANE], ("jane", (KNOWN,), "", {})),
    (
        [AS_JANE, ("Impersonate-Group", "a, b"), ("Impersonate-Group", "c")],
        ("jane", ("a, b", "c", KNOWN), "", {}),
    ),
    ([AS_JANE, ("Impersonate-Uid", "7")], ("jane", (KNOWN,), "7", {})),
    (
        [AS_JANE, ("Impersonate-Extra-Scopes", "x"), ("Impersonate-Extra-Scopes", "y")],
        ("jane", (KNOWN,), "", {"scopes": ("x", "y")}),
    ),
    ([AS_JANE, ("Impersonate-Extra-Sc%6fpes", "x")], ("jane", (KNOWN,), "", {"scopes": ("x",)})),
    ([AS_JANE, ("Impersonate-Group", KNOWN)], ("jane", (KNOWN,), "", {})),
    (
        [AS_JANE, ("Impersonate-Group", "system:unauthenticated")],
        ("jane", ("system:unauthenticated",), "", {}),
    ),
    (
        [("Impersonate-User", ROBOT)],
        (ROBOT, ("system:serviceaccounts", "system:serviceaccounts:alpha", KNOWN), "", {}),
    ),
    ([("Impersonate-User", ROBOT), ("Impersonate-Group", "x")], (ROBOT, ("x", KNOWN), "", {})),
    ([AS_JANE, ("Impersonate-User", "joan")], ("jane", (KNOWN,), "", {})),
    ([AS_JANE, ("Impersonate-Group", "system:masters")], ("jane", ("system:masters", KNOWN), "", {})),
    ([("Impersonate-User", "j\u00f6rg")], ("j\u00f6rg", (KNOWN,), "", {})),
    ([("Impersonate-User", "")], ("proxy", (KNOWN,), "", {})),
]


@pytest.mark.parametrize(("headers", "expected"), ALLOWED)
def test_who_may_is_somebody_else(headers, expected):
    async def main():
        sides = Sides()
        await sides.allow(*EVERYTHING)
        # Somebody in the group of the unknown may not ask who they are: there the gateway alone says it.
        said, ours = await sides.both(headers)
        assert ours == expected
        assert said == expected or "system:unauthenticated" in expected[1]

    in_virtual_time(main())


def refused(resource, name, group="", scope="at the cluster scope", combined=""):
    qualified = f"{resource}.{group}" if group else resource
    named = f' "{name}"' if name else ""
    message = (
        f'{qualified}{named} is forbidden: User "proxy" cannot impersonate resource "{combined or resource}" '
        f'in API group "{group}" {scope}'
    )
    details = {"name": name, "group": group, "kind": resource}
    return 403, message, {key: value for key, value in details.items() if value}


REFUSED = [
    ([AS_JANE], refused("users", "jane")),
    ([("Impersonate-User", "joe"), ("Impersonate-Group", "masters")], refused("groups", "masters")),
    (
        [("Impersonate-User", "joe"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")],
        refused("groups", "b"),
    ),
    (
        [("Impersonate-User", "joe"), ("Impersonate-Uid", "8")],
        refused("uids", "8", AUTHENTICATION),
    ),
    (
        [("Impersonate-User", "joe"), ("Impersonate-Extra-Scopes", "y")],
        refused("userextras", "y", AUTHENTICATION, combined="userextras/scopes"),
    ),
    (
        [("Impersonate-User", ROBOT)],
        refused("serviceaccounts", "robot", scope='in the namespace "alpha"'),
    ),
    ([("Impersonate-User", "system:serviceaccount:alpha")], refused("users", "system:serviceaccount:alpha")),
    (
        [("Impersonate-Group", "devs")],
        (400, "requested [{Group  devs    }] without impersonating a user", None),
    ),
    (
        [("Impersonate-Uid", "7")],
        (400, "requested [{UID  7  authentication.k8s.io/v1  }] without impersonating a user", None),
    ),
    (
        [("Impersonate-Extra-Scopes", "x")],
        (
            400,
            "requested [{UserExtra  x  authentication.k8s.io/v1  scopes}] without impersonating a user",
            None,
        ),
    ),
]


@pytest.mark.parametrize(("headers", "expected"), REFUSED)
def test_who_may_not_is_told_what_is_missing(headers, expected):
    async def main():
        sides = Sides()
        await sides.allow(
            may("users", "joe"),
            may("groups", "a"),
            may("uids", "7", group=AUTHENTICATION),
            may("userextras/scopes", "x", group=AUTHENTICATION),
        )
        assert await sides.both(headers) == (expected, expected)

    in_virtual_time(main())


def test_whoever_is_unknown_impersonates_nobody():
    async def main():
        sides = Sides()
        await sides.allow(*EVERYTHING)
        said, ours = await sides.both([AS_JANE], token="nobody's")
        assert said[:2] == ours[:2] == (401, "Unauthorized")

    in_virtual_time(main())


def test_masters_are_asked_about_like_everybody():
    async def main():
        sides = Sides()
        said, ours = await sides.both([AS_JANE], token=ROOT.token)
        assert said == ours == ("jane", (KNOWN,), "", {})
        assert sides.connection.reviews("subjectaccessreviews") == 1

    in_virtual_time(main())


def test_more_names_than_anybody_sends_are_refused_before_they_are_asked_about():
    async def main():
        sides = Sides()
        headers = [AS_JANE, *(("Impersonate-Group", str(number)) for number in range(300))]
        _, ours = await sides.both(headers)
        assert ours[:2] == (400, "the request impersonates 301 users, groups and extras: at most 256")

    in_virtual_time(main())


def test_renewing_asks_both_for_the_token_and_for_the_permission():
    async def main():
        sides = Sides()
        await sides.allow(*EVERYTHING)
        fields = (
            *((name.lower(), value) for name, value in bearer(PROXY.token).items()),
            ("impersonate-user", "jane"),
        )
        user = await sides.authenticator.authenticate(Request("GET", "/", (), {}, fields=fields))
        await asyncio.sleep(11)
        assert (await user.renew()).name == "jane"
        await sides.api.ask("DELETE", f"{RBAC}/clusterrolebindings/acts", headers=bearer(ROOT.token))
        await asyncio.sleep(11)
        with pytest.raises(ShoalError, match="cannot impersonate"):
            await user.renew()
        sides.app.access.forget(PROXY.token)
        await asyncio.sleep(11)
        with pytest.raises(ShoalError, match="Unauthorized"):
            await user.renew()

    in_virtual_time(main())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (ROBOT, ("alpha", "robot")),
        ("system:serviceaccount:alpha:a.b", ("alpha", "a.b")),
        ("system:serviceaccount:alpha", None),
        ("system:serviceaccount:Alpha:robot", None),
        ("system:serviceaccount:alpha:robot:x", None),
        ("system:serviceaccount::robot", None),
        ("jane", None),
    ],
)
def test_the_name_of_a_service_account(name, expected):
    assert service_account(name) == expected


def test_nobody_is_in_the_group_of_the_unknown():
    assert impersonated(User("system:anonymous")).groups == ("system:unauthenticated",)


def test_other_headers_ask_for_nobody():
    assert impersonation_asked([("authorization", "Bearer x"), ("impersonate-nonsense", "x")]) is None
    with pytest.raises(BadRequest):
        impersonation_asked([("impersonate-group", "")])
