"""Writes passed on to the API server: as the caller, once, and with a clear word about what may have happened."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from support.apiserver import InProcessConnection, in_virtual_time, virtual_now
from support.asgi_connection import AsgiConnection
from support.guarded import RBAC, ROOT, Guarded, bearer

from shoal.cluster.gateway.authentication import NOBODY, Caller
from shoal.cluster.gateway.http import Answer, Request
from shoal.cluster.gateway.settings import AuthenticationSettings, ForwardingSettings
from shoal.cluster.gateway.writing import ClientLeft, Forwarder, NotForwarded, RequestTooLarge
from shoal.cluster.query.floor import ReadFloor
from shoal.cluster.serving.paths import parse_path
from shoal.cluster.settings import GatewaySettings
from shoal.cluster.simulator import settings as simulator
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import ApiServer, build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.cluster.simulator.write_kubeconfig import write_kubeconfig
from shoal.shards.api.client import HttpConnection, PlainCredentials
from shoal.shards.api.kubeconfig import in_cluster, load_kubeconfig
from shoal.shards.model.errors import (
    BadRequest,
    ConnectionFailed,
    NotReady,
    ShoalError,
    TimedOut,
    TooManyRequests,
)
from shoal.shards.model.resources import Resource

MAPS = "/api/v1/namespaces/default/configmaps"
CONFIG_MAPS = Resource("", "v1", "configmaps")
JANE = simulator.User(name="jane", token="t-jane")
TOKEN = Caller("jane", "", (), {}, "token")
CERTIFIED = Caller("jill", "", (), {}, "certificate")
MADE = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"x":"y"}}'
JSON = {"Content-Type": "application/json", "Accept": "application/json"}


def asked(method, path, token="", parameters=(), **headers):
    given = {**JSON, **(bearer(token) if token else {})}
    fields = [(name.lower(), value) for name, value in given.items()]
    fields += [(name.replace("_", "-").lower(), value) for name, value in headers.items()]
    joined = {}
    for name, value in fields:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return Request(method, path, tuple(parameters), joined, fields=tuple(fields))


class Side:
    """A forwarder to an embedded server with RBAC."""

    def __init__(self, app=None, connection=None, **settings):
        users = (ROOT, JANE)
        self.app = app or build_app(SimulatorSettings(seed=1, users=users, rbac=True), now=virtual_now)
        self.connection = connection or InProcessConnection(self.app)
        self.floor = ReadFloor(lambda: 0.0)
        self.forwarder = Forwarder(self.connection, ForwardingSettings(**settings), floor=self.floor)

    async def pass_on(self, request, body=b"", user=TOKEN):
        """Status, headers, parsed body."""
        answers = []

        async def send(answer: Answer):
            chunks = [chunk async for chunk in answer.chunks] if answer.chunks is not None else [answer.body]
            answers.append((answer, b"".join(chunks)))

        path = parse_path(request.path)
        await self.forwarder.pass_on(user, request, path, body, send)
        ((answer, whole),) = answers
        return answer.status, dict(answer.headers), json.loads(whole) if whole else None


def test_a_write_is_made_as_its_caller():
    async def main():
        side = Side()
        status, _, document = await side.pass_on(asked("POST", MAPS, ROOT.token), MADE)
        assert (status, document["data"]) == (201, {"x": "y"})
        status, _, document = await side.pass_on(asked("POST", MAPS, JANE.token), MADE)
        assert (status, document["message"]) == (
            403,
            'configmaps is forbidden: User "jane" cannot create resource "configmaps" in API group "" '
            'in the namespace "default"',
        )
        status, _, _ = await side.pass_on(asked("POST", MAPS, "nobody's"), MADE)
        assert status == 401
        status, _, document = await side.pass_on(asked("POST", MAPS), MADE, user=NOBODY)
        assert (status, "system:anonymous" in document["message"]) == (403, True)

    in_virtual_time(main())


def test_every_kind_of_write_and_its_parameters():
    async def main():
        side = Side()
        await side.pass_on(asked("POST", MAPS, ROOT.token), MADE)
        patch = asked("PATCH", f"{MAPS}/a", ROOT.token, [("fieldManager", "me")])
        patch = Request(
            "PATCH",
            patch.path,
            patch.parameters,
            {},
            fields=(
                ("content-type", "application/merge-patch+json"),
                ("authorization", f"Bearer {ROOT.token}"),
            ),
        )
        status, _, document = await side.pass_on(patch, b'{"data":{"z":"1"}}')
        assert (status, document["data"]) == (200, {"x": "y", "z": "1"})
        assert document["metadata"]["managedFields"][-1]["manager"] == "me"
        document["data"] = {"only": "this"}
        status, _, document = await side.pass_on(
            asked("PUT", f"{MAPS}/a", ROOT.token), json.dumps(document).encode()
        )
        assert (status, document["data"]) == (200, {"only": "this"})
        dry = asked("DELETE", f"{MAPS}/a", ROOT.token, [("dryRun", "All")])
        assert (await side.pass_on(dry))[0] == 200
        assert (await side.pass_on(asked("GET", f"{MAPS}/a", ROOT.token)))[0] == 200
        assert (await side.pass_on(asked("DELETE", f"{MAPS}/a", ROOT.token)))[0] == 200
        assert (await side.pass_on(asked("DELETE", f"{MAPS}/a", ROOT.token)))[0] == 404

    in_virtual_time(main())


def test_impersonation_goes_along():
    async def main():
        side = Side()
        review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        request = asked("POST", review, ROOT.token, Impersonate_User="joe", Impersonate_Group="a, b")
        _, _, document = await side.pass_on(request, b"{}")
        assert document["status"]["userInfo"] == {
            "username": "joe",
            "groups": ["a, b", "system:authenticated"],
        }

    in_virtual_time(main())


def test_subresources_are_passed_on_and_conversations_are_not():
    async def main():
        side = Side()
        forwarder = side.forwarder
        for method, path, taken in (
            ("POST", MAPS, True),
            ("GET", MAPS, False),
            ("GET", f"{MAPS}/a", False),
            ("GET", "/api/v1/namespaces/a/pods/b/log", True),
            ("GET", "/apis/apps/v1/namespaces/a/deployments/b/scale", True),
            ("POST", "/api/v1/namespaces/a/pods/b/eviction", True),
            ("POST", "/version", False),
            ("OPTIONS", MAPS, False),
        ):
            assert forwarder.takes(asked(method, path), parse_path(path)) is taken, (method, path)
        for kind in ("exec", "attach", "portforward", "proxy/a/b"):
            with pytest.raises(NotForwarded, match="no upgraded connections") as caught:
                await side.pass_on(asked("POST", f"/api/v1/namespaces/a/pods/b/{kind}", ROOT.token))
            assert caught.value.code == 501
        with pytest.raises(NotForwarded):
            await side.pass_on(asked("POST", MAPS, ROOT.token, Connection="Upgrade", Upgrade="SPDY/3.1"))
        deployments = "/apis/apps/v1/namespaces/default/deployments"
        made = {"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {}, "template": {}}}
        await side.pass_on(asked("POST", deployments, ROOT.token), json.dumps(made).encode())
        status, _, document = await side.pass_on(asked("GET", f"{deployments}/d/scale", ROOT.token))
        assert (status, document["kind"]) == (200, "Scale")

    in_virtual_time(main())


def test_who_is_known_by_a_certificate_is_told_why_not():
    async def main():
        side = Side()
        with pytest.raises(
            NotForwarded, match="client certificate, which only its holder can show"
        ) as caught:
            await side.pass_on(asked("POST", MAPS, ROOT.token), MADE, user=CERTIFIED)
        assert caught.value.code == 501
        assert side.connection.requests == []

    in_virtual_time(main())


@pytest.mark.parametrize("path", ["/api/v1/../../metrics/x", "/api/v1/namespaces/./pods", "/api/v1/pods/.."])
def test_paths_that_climb_are_not_passed_on(path):
    async def main():
        side = Side()
        with pytest.raises(BadRequest):
            await side.pass_on(asked("DELETE", path, ROOT.token))
        assert side.connection.requests == []

    in_virtual_time(main())


# -- headers -------------------------------------------------------------------------------------------------


def test_headers_of_the_connection_stay_behind_and_all_others_go_along():
    seen = []

    async def app(scope, receive, send):
        seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
        headers = [
            (b"content-type", b"application/json"),
            (b"warning", b'299 - "beware"'),
            (b"connection", b"x-private"),
            (b"x-private", b"1"),
            (b"keep-alive", b"1"),
            (b"audit-id", b"7"),
            (b"content-length", b"2"),
        ]
        await send({"type": "http.response.start", "status": 299, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async def main():
        side = Side(connection=InProcessConnection(app))
        request = asked(
            "POST",
            MAPS,
            "t",
            Host="shoal",
            Connection="keep-alive, X-Hop",
            X_Hop="1",
            Keep_Alive="5",
            TE="trailers",
            Transfer_Encoding="chunked",
            Content_Length="3",
            Accept_Encoding="gzip",
            Cookie="a=b",
            X_Remote_User="root",
            X_Remote_Group="system:masters",
            X_Forwarded_For="1.2.3.4",
            User_Agent="kubectl",
            Kubectl_Command="kubectl create",
            Expect="100-continue",
        )
        status, headers, _ = await side.pass_on(request, MADE)
        assert seen == [
            {
                "content-type": "application/json",
                "accept": "application/json",
                "authorization": "Bearer t",
                "user-agent": "kubectl",
                "kubectl-command": "kubectl create",
            }
        ]
        assert (status, headers) == (299, {"warning": '299 - "beware"', "audit-id": "7"})

    in_virtual_time(main())


# -- versions ------------------------------------------------------------------------------------------------


def test_the_version_written_is_known_before_the_writer_is_answered():
    async def main():
        side = Side()
        noted = []

        async def send(answer):
            noted.append(
                (
                    side.floor.of(CONFIG_MAPS, "default"),
                    json.loads(answer.body)["metadata"]["resourceVersion"],
                )
            )

        request = asked("POST", MAPS, ROOT.token)
        await side.forwarder.pass_on(TOKEN, request, parse_path(MAPS), MADE, send)
        ((known, told),) = noted
        assert known == int(told)
        assert side.floor.of(CONFIG_MAPS, "kube-system") == 0

    in_virtual_time(main())


def test_what_was_refused_leaves_no_version():
    async def main():
        side = Side()
        await side.pass_on(asked("POST", MAPS, JANE.token), MADE)
        await side.pass_on(asked("POST", MAPS, ROOT.token), b"nonsense")
        assert len(side.floor) == 0

    in_virtual_time(main())


# -- bodies --------------------------------------------------------------------------------------------------


def receiving(*parts, gone=False):
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if gone:
        messages.append({"type": "http.disconnect"})
    elif messages:
        messages[-1]["more_body"] = False

    async def receive():
        return messages.pop(0)

    return receive


async def test_a_body_is_read_whole():
    forwarder = Side().forwarder
    assert await forwarder.body(asked("POST", MAPS), receiving(b"ab", b"", b"c")) == b"abc"
    assert await forwarder.body(asked("DELETE", MAPS), receiving(b"")) == b""
    with pytest.raises(ClientLeft, match="nothing was passed on"):
        await forwarder.body(asked("POST", MAPS), receiving(b"ab", gone=True))


async def test_a_body_is_bounded_by_what_it_says_and_by_what_it_is():
    forwarder = Side(body_bytes_max=3).forwarder
    assert await forwarder.body(asked("POST", MAPS, Content_Length="3"), receiving(b"abc")) == b"abc"
    for request, receive in (
        (asked("POST", MAPS), receiving(b"ab", b"cd")),
        (asked("POST", MAPS, Content_Length="4"), receiving()),
        (asked("POST", MAPS, Content_Length="9" * 5000), receiving()),
    ):
        with pytest.raises(RequestTooLarge, match="Request entity too large: limit is 3") as caught:
            await forwarder.body(request, receive)
        assert caught.value.code == 413
    assert await forwarder.body(asked("POST", MAPS, Content_Length="-1"), receiving(b"abc")) == b"abc"


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever():
    forwarder = Side(timeout_s=0.01).forwarder
    with pytest.raises(
        TimedOut, match=r"the request's body did not arrive within 0.01 s; nothing was passed on"
    ):
        await forwarder.body(asked("POST", MAPS), asyncio.Event().wait)


# -- trouble -------------------------------------------------------------------------------------------------


def test_a_write_whose_connection_broke_may_have_happened():
    async def main():
        side = Side()
        side.app.faults.arm(Fault(kind="drop"))
        with pytest.raises(ConnectionFailed, match="whether the write happened is not known") as caught:
            await side.pass_on(asked("POST", MAPS, ROOT.token), MADE)
        assert caught.value.code == 502
        assert len(side.connection.requests) == 1
        side.app.faults.arm(Fault(kind="drop"))
        with pytest.raises(ConnectionFailed) as caught:
            await side.pass_on(asked("GET", "/api/v1/namespaces/default/configmaps/a/status", ROOT.token))
        assert "write" not in caught.value.message

    in_virtual_time(main())


def test_a_write_that_is_not_answered_may_have_happened():
    async def main():
        side = Side()
        side.app.faults.arm(Fault(kind="slow", seconds=100.0))
        with pytest.raises(TimedOut, match="within 65 s; whether the write happened is not known") as caught:
            await side.pass_on(asked("POST", MAPS, ROOT.token), MADE)
        assert caught.value.code == 504

    in_virtual_time(main())


async def test_a_write_that_was_never_sent_did_not_happen(unused_tcp_port):
    connection = HttpConnection(PlainCredentials(f"http://127.0.0.1:{unused_tcp_port}"))
    side = Side(connection=connection)
    try:
        with pytest.raises(NotReady, match="nothing was passed on") as caught:
            await side.pass_on(asked("POST", MAPS, ROOT.token), MADE)
        assert (caught.value.code, caught.value.retry_after_s) == (503, 1)
    finally:
        await connection.aclose()


def test_requests_under_way_are_bounded():
    async def main():
        side = Side(at_once=2, wait_s=0.5)
        side.app.faults.arm(Fault(kind="slow", seconds=1.0, count=None))
        request = asked("DELETE", f"{MAPS}/a", ROOT.token)
        found = await asyncio.gather(*(side.pass_on(request) for _ in range(4)), return_exceptions=True)
        assert [one[0] for one in found[:2]] == [404, 404]
        assert [type(one) for one in found[2:]] == [TooManyRequests] * 2
        assert (await side.pass_on(request))[0] == 404

    in_virtual_time(main())


def test_an_answer_without_an_end_is_sent_on_as_it_comes_and_holds_no_turn():
    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
            await asyncio.sleep(1000)
        await send({"type": "http.response.body", "body": b""})

    async def main():
        side = Side(connection=AsgiConnection(app), at_once=1)
        path = parse_path("/api/v1/namespaces/a/pods/b/log")
        lines = []

        async def send(answer):
            now = asyncio.get_running_loop().time
            lines.extend([(now(), chunk) async for chunk in answer.chunks])

        request = asked("GET", "/api/v1/namespaces/a/pods/b/log", ROOT.token)
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(side.forwarder.pass_on(TOKEN, request, path, b"", send))
        assert sorted(lines) == sorted([(1000.0 * number, b"%d\n" % number) for number in range(3)] * 2)

    in_virtual_time(main())


# -- whose credentials ---------------------------------------------------------------------------------------


SEEN_BY = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@asynccontextmanager
async def connected(access):
    connection = access.connect()
    try:
        yield connection
    finally:
        await connection.aclose()


async def test_nothing_of_shoals_own_goes_along(tmp_path):
    """The kubeconfig holds an administrator's token; over the bare connection nobody is an administrator."""
    app = build_app(SimulatorSettings(seed=1, users=(ROOT, JANE), rbac=True))
    async with ApiServer(app) as server:
        path = write_kubeconfig(tmp_path / "config", server.url, token=ROOT.token)
        access = load_kubeconfig(str(path))
        async with connected(access) as ours, connected(access.anonymous()) as nobodys:
            assert (await ours._credentials.endpoint()).headers == (
                ("Authorization", f"Bearer {ROOT.token}"),
            )
            assert (await nobodys._credentials.endpoint()).headers == ()
            side = Side(connection=nobodys)
            assert (await side.pass_on(asked("GET", f"{RBAC}/clusterroles/x/y")))[0] == 403
            assert (await side.pass_on(asked("POST", MAPS), MADE))[0] == 403
            assert (await side.pass_on(asked("POST", MAPS, "nobody's"), MADE))[0] == 401
            status, _, document = await side.pass_on(asked("POST", SEEN_BY, JANE.token), b"{}")
            assert (status, document["status"]["userInfo"]["username"]) == (201, "jane")
            request = asked(
                "POST", SEEN_BY, ROOT.token, Impersonate_User="j\u00f6rg".encode().decode("latin-1")
            )
            _, _, document = await side.pass_on(request, b"{}")
            assert document["status"]["userInfo"]["username"] == "j\u00f6rg"
            assert (await Side(connection=ours).pass_on(asked("POST", MAPS), MADE))[0] == 201


@pytest.mark.parametrize(
    "user",
    [
        {"token": "secret"},
        {"tokenFile": "token"},
        {"as": "root", "as-groups": ["system:masters"]},
        {"username": "a", "password": "secret"},
        {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/false"}},
        {"client-certificate": "client.pem", "client-key": "client.key"},
    ],
    ids=lambda user: next(iter(user)),
)
async def test_no_kind_of_credentials_is_taken_along(tmp_path, user):
    (tmp_path / "token").write_text("secret")
    for name in ("client.pem", "client.key"):
        (tmp_path / name).write_text("no certificate at all: it must not be read")
    document = {
        "clusters": [{"name": "a", "cluster": {"server": "https://root:secret@127.0.0.1:1"}}],
        "users": [{"name": "a", "user": user}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    access = load_kubeconfig(str(tmp_path / "config")).anonymous()
    async with connected(access) as connection:
        endpoint = await connection._credentials.endpoint()
        assert (endpoint.server, endpoint.headers) == ("https://127.0.0.1:1", ())
        assert not connection._credentials.rejected(endpoint)


async def test_a_service_accounts_token_is_not_taken_along(tmp_path, monkeypatch):
    authority = Path(__file__).parents[1] / "shards" / "certificates" / "authority.pem"
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_bytes(authority.read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    access = in_cluster(str(tmp_path))
    async with connected(access) as ours, connected(access.anonymous()) as nobodys:
        assert "secret" in str((await ours._credentials.endpoint()).headers)
        endpoint = await nobodys._credentials.endpoint()
        assert (endpoint.headers, endpoint.tls is not None) == ((), True)


# -- through the gateway -------------------------------------------------------------------------------------

FORWARDING = GatewaySettings(authentication=AuthenticationSettings(tokens=True), writes="forward")


def test_whoever_writes_through_the_gateway_reads_there_what_was_written():
    async def main():
        guarded = Guarded(JANE, settings=FORWARDING)
        async with guarded.running():
            gateway, as_root = guarded.gateway, {**JSON, **bearer(ROOT.token)}
            for number in range(5):
                # The shard hears of what is written two seconds later.
                guarded.source.faults.arm(
                    Fault(kind="stall", resource="configmaps", verb="watch", seconds=2.0)
                )
                made = {"metadata": {"name": f"m{number}"}, "data": {"x": str(number)}}
                status, document = await gateway.ask("POST", MAPS, made, headers=as_root)
                assert (status, document["data"]) == (201, made["data"])
                status, document = await gateway.ask("GET", f"{MAPS}/m{number}", headers=as_root)
                assert (status, document["data"]) == (200, made["data"])
                _, document = await gateway.ask("GET", MAPS, headers=as_root)
                assert len(document["items"]) == number + 1
                patch = {**as_root, "Content-Type": "application/merge-patch+json"}
                change = {"data": {"x": "changed"}}
                assert (await gateway.ask("PATCH", f"{MAPS}/m{number}", change, headers=patch))[0] == 200
                _, document = await gateway.ask("GET", f"{MAPS}/m{number}", headers=as_root)
                assert document["data"] == {"x": "changed"}

    in_virtual_time(main())


def test_the_api_servers_answers_to_writes_come_back_unchanged():
    async def main():
        guarded = Guarded(JANE, settings=FORWARDING)
        async with guarded.running():
            for method, path, body in (
                ("POST", MAPS, {"metadata": {"name": "a"}}),
                ("POST", MAPS, {"metadata": {"name": "Not A Name"}}),
                ("POST", MAPS, []),
                ("DELETE", f"{MAPS}/absent", None),
                ("PUT", f"{MAPS}/absent", {"metadata": {"name": "absent"}}),
                ("PATCH", f"{MAPS}/absent", {}),
                ("POST", "/apis/nowhere.io/v1/things", {}),
                ("DELETE", "/api/v1/namespaces/default/secrets/absent", None),
                ("GET", "/apis/apps/v1/namespaces/default/deployments/absent/scale", None),
                ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {}}),
            ):
                for token in (ROOT.token, JANE.token, "nobody's"):
                    given = {**JSON, **bearer(token)}
                    said = await guarded.api.ask(method, f"{path}?dryRun=All", body, headers=given)
                    ours = await guarded.gateway.ask(method, f"{path}?dryRun=All", body, headers=given)
                    _same_for_all_times(said, ours)
                    assert said == ours, (method, path, token)

    in_virtual_time(main())


def _same_for_all_times(*answers):
    """Takes out what two creations never share."""
    for _, document in answers:
        if isinstance(document, dict):
            for member in ("uid", "creationTimestamp", "managedFields"):
                document.get("metadata", {}).pop(member, None)


def test_without_forwarding_writes_are_refused_to_those_who_may_and_to_those_who_may_not():
    async def main():
        guarded = Guarded(JANE)
        async with guarded.running():
            made = {"metadata": {"name": "a"}}
            status, document = await guarded.gateway.ask(
                "POST", MAPS, made, headers={**JSON, **bearer(ROOT.token)}
            )
            assert (status, document["reason"]) == (405, "MethodNotAllowed")
            assert "Shoal is read-only" in document["message"]
            status, document = await guarded.gateway.ask(
                "POST", MAPS, made, headers={**JSON, **bearer(JANE.token)}
            )
            assert (status, document["reason"]) == (403, "Forbidden")
            assert guarded.nobodys.requests == []
            assert (await guarded.api.ask("GET", f"{MAPS}/a", headers=bearer(ROOT.token)))[0] == 404

    in_virtual_time(main())


def test_no_token_is_ever_shown(caplog):
    planted = "planted-5ecret-t0ken"
    shown = []

    async def main():
        for kind in ("drop", "slow", "status-500"):
            side = Side()
            side.app.faults.arm(Fault(kind=kind, seconds=100.0))
            try:
                answer = await side.pass_on(asked("POST", MAPS, planted), MADE)
                shown.append(repr(answer))
            except ShoalError as error:
                shown.extend((str(error.status()), repr(error.__cause__), repr(error.__context__)))

    with caplog.at_level(logging.DEBUG):
        in_virtual_time(main())
    assert shown
    assert planted not in "".join(shown) + caplog.text


# -- what callers may not do to others -----------------------------------------------------------------------


class Endless:
    """A connection whose answers go on until they are left; `used` counts them."""

    def __init__(self):
        self.used = 0

    @asynccontextmanager
    async def open(self, request):
        self.used += 1
        yield self

    status = 200

    @property
    def headers(self):
        return {"content-type": "text/plain"}

    async def chunks(self):
        yield b"line\n"
        await asyncio.Event().wait()


def test_logs_take_no_connection_from_writes_and_nobody_takes_all_of_them():
    async def main():
        writes, streams = Endless(), Endless()
        settings = ForwardingSettings(streams=3, streams_per_user=2, at_once=1)
        forwarder = Forwarder(writes, settings, streams=streams)
        path = "/api/v1/namespaces/a/pods/web-0/log"

        def reading(user):
            seen = asyncio.Event()

            async def send(answer):
                async for _ in answer.chunks:
                    seen.set()

            request = asked("GET", path, "t", [("follow", "true")])
            passing = forwarder.pass_on(user, request, parse_path(path), b"", send)
            return asyncio.create_task(passing), seen

        jane, joe = (Caller(name, "", (), {}, "token") for name in ("jane", "joe"))
        following = []
        for user in (jane, jane, joe):
            task, seen = reading(user)
            following.append(task)
            await seen.wait()
        assert (streams.used, writes.used, forwarder.streaming) == (3, 0, 3)
        with pytest.raises(TooManyRequests, match="you have too many logs open"):
            await reading(jane)[0]
        with pytest.raises(TooManyRequests, match="there are too many logs open"):
            await reading(joe)[0]
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        assert forwarder.streaming == 0
        task, seen = reading(jane)
        await seen.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    in_virtual_time(main())


def test_one_user_may_not_take_all_streams():
    with pytest.raises(ValueError, match=r"streams_per_user is 9: expected less than"):
        ForwardingSettings(streams=9, streams_per_user=9)


def test_a_connection_header_drops_nothing_that_tells_who_asks():
    async def main():
        side = Side()
        review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        request = asked(
            "POST",
            review,
            ROOT.token,
            Impersonate_User="joe",
            Connection="impersonate-user, authorization, x-y",
        )
        _, _, document = await side.pass_on(request, b"{}")
        assert document["status"]["userInfo"]["username"] == "joe"

    in_virtual_time(main())


def test_a_write_that_was_made_is_never_answered_as_a_failure(monkeypatch):
    def broken(body):
        raise RuntimeError("a bug")

    monkeypatch.setattr("shoal.cluster.gateway.writing.written_version", broken)

    async def main():
        status, _, document = await Side().pass_on(asked("POST", MAPS, ROOT.token), MADE)
        assert (status, document["data"]) == (201, {"x": "y"})

    in_virtual_time(main())


def test_a_deep_object_that_was_written_is_answered_as_written_and_read_back():
    whole = b'{"zz":' + b"[" * 1_500 + b"]" * 1_500 + b',"metadata":{"resourceVersion":"7"}}'

    class Written(Endless):
        status = 201

        @property
        def headers(self):
            return {"content-type": "application/json", "content-length": str(len(whole))}

        async def read(self, limit):
            return whole

    async def main():
        side = Side(connection=Written())
        answers = []

        async def send(answer):
            answers.append(answer)

        await side.forwarder.pass_on(TOKEN, asked("POST", MAPS, ROOT.token), parse_path(MAPS), MADE, send)
        assert [(answer.status, answer.body) for answer in answers] == [(201, whole)]
        assert side.floor.of(CONFIG_MAPS, "default") == 7

    in_virtual_time(main())
