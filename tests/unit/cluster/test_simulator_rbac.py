"""The embedded server's RBAC, reviews, certificates and impersonation, in the words of kube-apiserver."""

import ssl
from contextlib import asynccontextmanager

import pytest
from support.apiserver import Caller, in_virtual_time, virtual_apiserver
from support.certificates import Authority
from support.guarded import RBAC, ROOT, bearer, binding

from shoal.cluster.serving.identity import Attributes, User
from shoal.cluster.simulator import settings
from shoal.cluster.simulator.rbac import RoleBasedAccess, Verdict
from shoal.cluster.simulator.server import ApiServer, Tls, build_app
from shoal.cluster.simulator.settings import Rule, SimulatorSettings
from shoal.cluster.simulator.verbs import Writer
from shoal.shards.api.client import Endpoint, HttpConnection
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.resources import Resource

JANE = settings.User(name="jane", token="t-jane", groups=("devs",), uid="7", extra={"scopes": ("a",)})
DELEGATE = settings.User(name="delegate", token="t-delegate")
SUBJECT_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


class Rbac:
    """A server without HTTP's users: roles in, verdicts out."""

    def __init__(self):
        self.app = build_app(SimulatorSettings(seed=1, users=(ROOT, JANE, DELEGATE), rbac=True))
        self.api = Caller(self.app)
        self.decide = RoleBasedAccess(self.app.storage)
        namespaces = self.app.verbs.served(Resource("", "v1", "namespaces"))
        for name in ("alpha", "beta"):
            self.app.verbs.create(namespaces, None, {"metadata": {"name": name}}, Writer())

    async def make(self, path, document):
        status, answer = await self.api.ask("POST", f"{RBAC}/{path}", document, headers=bearer(ROOT.token))
        assert status == 201, answer

    async def role(self, name, *rules, namespace=""):
        path = f"namespaces/{namespace}/roles" if namespace else "clusterroles"
        await self.make(path, {"metadata": {"name": name}, "rules": list(rules)})

    async def bind(self, name, role, kind, subject, *, namespace="", role_kind="ClusterRole", **more):
        path = f"namespaces/{namespace}/rolebindings" if namespace else "clusterrolebindings"
        await self.make(path, binding(name, role_kind, role, kind, subject, **more))

    def __call__(self, user, **attributes):
        who = user if isinstance(user, User) else User(user)
        return self.decide.verdict(who, Attributes(**{"verb": "get", "resource": "pods", **attributes}))


def rule(**members):
    return {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], **members}


RULES = [
    (rule(), {}, True),
    (rule(), {"verb": "list"}, False),
    (rule(verbs=["*"]), {"verb": "list"}, True),
    (rule(), {"group": "apps"}, False),
    (rule(apiGroups=["*"]), {"group": "apps"}, True),
    (rule(apiGroups=[]), {}, False),
    (rule(), {"resource": "services"}, False),
    (rule(resources=["*"]), {"resource": "services"}, True),
    (rule(resources=["*"]), {"subresource": "log"}, True),
    (rule(), {"subresource": "log"}, False),
    (rule(resources=["pods/log"]), {"subresource": "log"}, True),
    (rule(resources=["pods/log"]), {}, False),
    (rule(resources=["*/log"]), {"subresource": "log"}, True),
    (rule(resources=["*/log"]), {"subresource": "status"}, False),
    (rule(resources=["pods/*"]), {"subresource": "log"}, False),
    (rule(resourceNames=["a", "b"]), {"name": "b"}, True),
    (rule(resourceNames=["a"]), {"name": "c"}, False),
    (rule(resourceNames=["a"]), {}, False),
    (rule(resourceNames=[]), {"name": "c"}, True),
    ({"verbs": ["get"], "nonResourceURLs": ["/metrics"]}, {"resource": "", "path": "/metrics"}, True),
    ({"verbs": ["get"], "nonResourceURLs": ["/metrics"]}, {"resource": "", "path": "/metrics/a"}, False),
    ({"verbs": ["get"], "nonResourceURLs": ["/metrics/*"]}, {"resource": "", "path": "/metrics/a"}, True),
    ({"verbs": ["get"], "nonResourceURLs": ["/metrics/*"]}, {"resource": "", "path": "/metrics"}, False),
    ({"verbs": ["get"], "nonResourceURLs": ["/met*"]}, {"resource": "", "path": "/metrics"}, True),
    ({"verbs": ["get"], "nonResourceURLs": ["*"]}, {"resource": "", "path": "/anything"}, True),
    (
        {"verbs": ["get"], "nonResourceURLs": ["/metrics"]},
        {"verb": "post", "resource": "", "path": "/metrics"},
        False,
    ),
    (rule(resources=["*"], apiGroups=["*"], verbs=["*"]), {"resource": "", "path": "/metrics"}, False),
]


@pytest.mark.parametrize(("given", "asked", "allowed"), RULES)
async def test_a_rule_allows(given, asked, allowed):
    server = Rbac()
    await server.role("given", given)
    await server.bind("given", "given", "User", "jane")
    expected = 'RBAC: allowed by ClusterRoleBinding "given" of ClusterRole "given" to User "jane"'
    assert server("jane", **asked) == Verdict(allowed, expected if allowed else "")
    assert server("joan", **asked) == Verdict(allowed=False)


async def test_bindings_in_a_namespace_count_there_alone():
    server = Rbac()
    await server.role("here", rule(), namespace="alpha")
    await server.role("shared", rule(resources=["configmaps"]))
    await server.bind("here", "here", "User", "jane", namespace="alpha", role_kind="Role")
    await server.bind("shared", "shared", "Group", "devs", namespace="alpha")
    assert server("jane", namespace="alpha").reason == (
        'RBAC: allowed by RoleBinding "here/alpha" of Role "here" to User "jane"'
    )
    assert not server("jane", namespace="beta").allowed
    assert not server("jane").allowed
    dev = User("other", groups=("devs",))
    assert server(dev, resource="configmaps", namespace="alpha").reason == (
        'RBAC: allowed by RoleBinding "shared/alpha" of ClusterRole "shared" to Group "devs"'
    )
    assert not server(dev, resource="configmaps", namespace="beta").allowed


async def test_service_accounts_are_users_with_a_name_of_their_own():
    server = Rbac()
    await server.role("reads", rule())
    await server.bind("cluster", "reads", "ServiceAccount", "robot", namespace="")
    robot = "system:serviceaccount:alpha:robot"
    assert not server(robot).allowed  # without a namespace it is nobody's
    await server.make(
        "namespaces/beta/rolebindings",
        binding("elsewhere", "ClusterRole", "reads", "ServiceAccount", "robot", namespace="alpha"),
    )
    assert server(robot, namespace="beta").reason == (
        'RBAC: allowed by RoleBinding "elsewhere/beta" of ClusterRole "reads" to ServiceAccount "robot/alpha"'
    )
    assert not server("system:serviceaccount:beta:robot", namespace="beta").allowed
    await server.bind("own", "reads", "ServiceAccount", "local", namespace="alpha")
    assert server("system:serviceaccount:alpha:local", namespace="alpha").allowed


async def test_bindings_to_roles_that_do_not_exist_are_named_in_the_refusal():
    server = Rbac()
    await server.bind("one", "missing", "User", "jane")
    missing = 'clusterrole.rbac.authorization.k8s.io "missing" not found'
    assert server("jane", namespace="alpha") == Verdict(allowed=False, reason=f"RBAC: {missing}")
    await server.bind("again", "missing", "User", "jane")
    assert server("jane").reason == f"RBAC: {missing}"
    await server.bind("two", "gone", "User", "jane", namespace="alpha", role_kind="Role")
    gone = 'role.rbac.authorization.k8s.io "gone" not found'
    assert server("jane", namespace="alpha").reason == f"RBAC: [{missing}, {gone}]"
    await server.role("missing", rule())
    assert server("jane", namespace="alpha").allowed


async def test_changes_count_at_once():
    server = Rbac()
    await server.role("reads", rule())
    await server.bind("reads", "reads", "User", "jane")
    assert server("jane").allowed
    status, _ = await server.api.ask(
        "DELETE", f"{RBAC}/clusterrolebindings/reads", headers=bearer(ROOT.token)
    )
    assert status == 200
    assert not server("jane").allowed


BOOTSTRAP = [
    ("system:masters", "/metrics", "delete", True),
    ("system:authenticated", "/api/v1", "get", True),
    ("system:authenticated", "/openapi/v3", "get", True),
    ("system:authenticated", "/version", "get", True),
    ("system:authenticated", "/metrics", "get", False),
    ("system:unauthenticated", "/version", "get", True),
    ("system:unauthenticated", "/livez", "get", True),
    ("system:unauthenticated", "/livez/ping", "get", False),
    ("system:unauthenticated", "/api", "get", False),
]


@pytest.mark.parametrize(("group", "path", "verb", "allowed"), BOOTSTRAP)
def test_what_every_cluster_begins_with(group, path, verb, allowed):
    who = User("somebody", groups=(group,))
    assert Rbac()(who, verb=verb, resource="", path=path).allowed is allowed


def test_masters_need_no_role():
    assert Rbac()(User("x", groups=("system:masters",)), verb="delete") == Verdict(allowed=True)


def test_no_roles_are_there_without_rbac():
    async def main():
        server = Caller(virtual_apiserver())
        assert (await server.get(f"{RBAC}/clusterroles"))["items"] == []

    in_virtual_time(main())


# -- requests ------------------------------------------------------------------------------------------------


REFUSED = [
    (
        "GET",
        "/api/v1/namespaces/default/pods",
        'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default"',
        {"kind": "pods"},
    ),
    (
        "GET",
        "/apis/apps/v1/deployments?watch=1",
        'deployments.apps is forbidden: User "jane" cannot watch resource "deployments" in API group "apps" '
        "at the cluster scope",
        {"group": "apps", "kind": "deployments"},
    ),
    (
        "GET",
        "/api/v1/namespaces/default/pods/a/log",
        'pods "a" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "default"',
        {"name": "a", "kind": "pods"},
    ),
    (
        "GET",
        "/api/v1/namespaces/alpha",
        'namespaces "alpha" is forbidden: User "jane" cannot get resource "namespaces" in API group "" '
        'in the namespace "alpha"',
        {"name": "alpha", "kind": "namespaces"},
    ),
    (
        "DELETE",
        "/api/v1/namespaces/default/pods",
        'pods is forbidden: User "jane" cannot deletecollection resource "pods" in API group "" '
        'in the namespace "default"',
        {"kind": "pods"},
    ),
    (
        "PATCH",
        "/api/v1/nodes/n",
        'nodes "n" is forbidden: User "jane" cannot patch resource "nodes" in API group "" at the cluster scope',
        {"name": "n", "kind": "nodes"},
    ),
    (
        "GET",
        "/api/v1/pods?fieldSelector=metadata.name%3Da",
        'pods "a" is forbidden: User "jane" cannot list resource "pods" in API group "" at the cluster scope',
        {"name": "a", "kind": "pods"},
    ),
    ("GET", "/metrics", 'forbidden: User "jane" cannot get path "/metrics"', {}),
]


@pytest.mark.parametrize(("method", "path", "message", "details"), REFUSED)
async def test_refusals_have_the_api_servers_words(method, path, message, details):
    status, answer = await Rbac().api.ask(method, path, {}, headers=bearer("t-jane"))
    assert status == 403
    assert answer == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "Forbidden",
        "details": details,
        "code": 403,
    }


async def test_the_first_authorization_header_counts():
    server = Rbac()
    for header, expected in (
        ("Bearer t-jane", 200),
        ("bearer t-jane more", 200),
        ("Bearer nonsense", 401),
        ("Bearer  t-jane", 403),
        ("Basic dDpq", 403),
        ("", 403),
        ("Bearer", 403),
    ):
        assert (await server.api.ask("GET", "/api", headers={"Authorization": header}))[0] == expected, header


# -- reviews -------------------------------------------------------------------------------------------------


async def reviewed(server, path, spec, token=ROOT.token):
    return await server.api.ask("POST", path, {"spec": spec}, headers=bearer(token))


async def test_a_token_review_says_whose_a_token_is():
    server = Rbac()
    status, answer = await reviewed(server, TOKEN_REVIEWS, {"token": "t-jane"})
    assert (status, answer["kind"], answer["apiVersion"]) == (201, "TokenReview", "authentication.k8s.io/v1")
    assert answer["status"] == {
        "authenticated": True,
        "user": {
            "username": "jane",
            "uid": "7",
            "groups": ["devs", "system:authenticated"],
            "extra": {"scopes": ["a"]},
        },
        "audiences": ["https://kubernetes.default.svc"],
    }
    _, answer = await reviewed(server, TOKEN_REVIEWS, {"token": "nobody's"})
    assert answer["status"] == {"user": {}, "error": "invalid bearer token"}
    _, answer = await reviewed(server, TOKEN_REVIEWS, {"token": "t-jane", "audiences": ["vault"]})
    assert answer["status"]["error"].startswith("[invalid bearer token, token audiences [")
    status, answer = await reviewed(server, TOKEN_REVIEWS, {"token": ""})
    assert (status, answer["message"]) == (400, "token is required for TokenReview in authentication")
    assert (await reviewed(server, TOKEN_REVIEWS, {"token": 5}))[0] == 400


async def test_reviews_are_for_those_who_may_ask_them():
    server = Rbac()
    spec = {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods"}}
    for path, asked in ((TOKEN_REVIEWS, {"token": "t-jane"}), (SUBJECT_REVIEWS, spec)):
        assert (await reviewed(server, path, asked, "t-delegate"))[0] == 403
    await server.bind("delegate", "system:auth-delegator", "User", "delegate")
    for path, asked in ((TOKEN_REVIEWS, {"token": "t-jane"}), (SUBJECT_REVIEWS, spec)):
        assert (await reviewed(server, path, asked, "t-delegate"))[0] == 201


async def test_subject_access_reviews_say_what_the_server_would_do():
    server = Rbac()
    await server.role("reads", rule(resources=["pods/log"], resourceNames=["a"]), namespace="alpha")
    await server.bind("reads", "reads", "Group", "devs", namespace="alpha", role_kind="Role")
    what = {"verb": "get", "resource": "pods", "subresource": "log", "namespace": "alpha", "name": "a"}
    for spec, allowed in (
        ({"user": "jane", "groups": ["devs"], "resourceAttributes": what}, True),
        ({"groups": ["devs"], "resourceAttributes": what}, True),
        ({"user": "jane", "resourceAttributes": what}, False),
        ({"user": "jane", "groups": ["devs"], "resourceAttributes": {**what, "name": "b"}}, False),
        ({"user": "x", "nonResourceAttributes": {"path": "/version", "verb": "get"}}, False),
        (
            {
                "user": "x",
                "groups": ["system:unauthenticated"],
                "nonResourceAttributes": {"path": "/version", "verb": "get"},
            },
            True,
        ),
    ):
        status, answer = await reviewed(server, SUBJECT_REVIEWS, spec)
        assert (status, answer["status"]["allowed"]) == (201, allowed), spec
        assert ("reason" in answer["status"]) is allowed
    mine = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert (await reviewed(server, mine, {"resourceAttributes": what}, "t-jane"))[1]["status"]["allowed"]
    local = "/apis/authorization.k8s.io/v1/namespaces/alpha/localsubjectaccessreviews"
    asked = {"groups": ["devs"], "resourceAttributes": what}
    assert (await reviewed(server, local, asked))[1]["status"]["allowed"]
    assert (await reviewed(server, local.replace("alpha", "beta"), asked))[0] == 400
    for nothing in ({"user": "jane"}, {"resourceAttributes": what}, {**asked, "nonResourceAttributes": {}}):
        assert (await reviewed(server, SUBJECT_REVIEWS, nothing))[0] == 422


async def test_who_am_i():
    server = Rbac()
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    _, answer = await server.api.ask("POST", path, {}, headers=bearer("t-jane"))
    assert answer["status"]["userInfo"]["username"] == "jane"
    _, answer = await server.api.ask(
        "POST", path, {}, headers={**bearer(ROOT.token), "Impersonate-User": "joe"}
    )
    assert answer["status"]["userInfo"] == {"username": "joe", "groups": ["system:authenticated"]}
    assert (await server.api.ask("POST", path, {}))[0] == 403


async def test_the_simple_rules_of_users_still_decide_without_rbac():
    reader = settings.User(
        name="reader", token="t", rules=(Rule(verbs=("get",), resources=("pods", "pods/log")),)
    )
    server = Caller(virtual_apiserver(SimulatorSettings(seed=1, users=(reader,))))
    spec = {"user": "reader", "resourceAttributes": {"verb": "get", "resource": "pods", "subresource": "log"}}
    admin = settings.User(name="admin", token="a")
    server.app.access.add(admin)
    for verb, allowed in (("get", True), ("list", False)):
        spec["resourceAttributes"]["verb"] = verb
        _, answer = await server.ask("POST", SUBJECT_REVIEWS, {"spec": spec}, headers=bearer("a"))
        assert answer["status"] == {"allowed": allowed}


# -- certificates --------------------------------------------------------------------------------------------


class Holder:
    """Credentials: a certificate, a token, or nothing."""

    def __init__(self, server, authority, certificate=None, token=""):
        context = ssl.create_default_context(cafile=authority.path)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        self._endpoint = Endpoint(server.url, context, tuple(bearer(token).items()) if token else ())

    async def endpoint(self):
        return self._endpoint

    def rejected(self, endpoint, *, again=False):
        return False

    def doubted(self, endpoint):
        return False


@asynccontextmanager
async def asking(*given, **named):
    connection = HttpConnection(Holder(*given, **named))
    try:
        yield connection
    finally:
        await connection.aclose()


async def test_a_client_certificate_is_a_user_with_groups(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", hosts=("127.0.0.1",))
    tls = Tls(certificate, key, authority.path, optional=True)
    app = build_app(SimulatorSettings(seed=1, users=(JANE,), rbac=True))
    jill = authority.issue("jill", organizations=("system:masters", "devs"))
    async with ApiServer(app, tls=tls) as server:
        for given, named, expected in (
            ((jill,), {}, 200),
            ((authority.issue("jack", organizations=("devs",)),), {}, 403),
            ((jill,), {"token": "nonsense"}, 200),  # the certificate comes first
            ((), {"token": "t-jane"}, 403),
            ((), {"token": "nonsense"}, 401),
            ((), {}, 403),
        ):
            async with (
                asking(server, authority, *given, **named) as connection,
                connection.open(ApiRequest("GET", "/api/v1/pods")) as response,
            ):
                assert (response.status, given == (jill,)) == (expected, expected == 200)
                await response.read()
