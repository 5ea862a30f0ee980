"""Who asks: tokens judged by the API server, certificates, nobody; what is remembered, and for how long."""

import asyncio
import hashlib
import logging

import pytest
from support.apiserver import in_virtual_time, virtual_now
from support.guarded import ROOT, SHOAL, Away

from shoal.cluster.gateway.authentication import NOBODY, Authenticator, bearer_token
from shoal.cluster.gateway.authorization import Authorizer
from shoal.cluster.gateway.http import Request
from shoal.cluster.gateway.reviews import Reviewer
from shoal.cluster.gateway.settings import AuthenticationSettings, AuthorizationSettings
from shoal.cluster.serving.certificates import PeerCertificate
from shoal.cluster.serving.identity import ANONYMOUS, User
from shoal.cluster.settings import parse_settings
from shoal.cluster.simulator import settings as simulator
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.model.errors import (
    NotReady,
    SettingsError,
    ShoalError,
    TooManyRequests,
    Unauthorized,
)

JANE = simulator.User(name="jane", token="t-jane", groups=("devs",), uid="7", extra={"scopes": ("a", "b")})
VAULT = simulator.User(name="vault", token="t-vault", audiences=("vault",))
DELEGATE = simulator.User(name="shoal", token=SHOAL.token, groups=("system:masters",))
AUTHENTICATED = User("jane", "7", ("devs", "system:authenticated"), {"scopes": ("a", "b")})
CERTIFICATE = PeerCertificate("jill", ("ops", "devs"), not_after=1000.0, fingerprint="ab")


def asked(*authorizations, **headers):
    fields = [("authorization", value) for value in authorizations]
    fields += [(name.replace("_", "-").lower(), value) for name, value in headers.items()]
    return Request("GET", "/api/v1/pods", (), dict(fields), fields=tuple(fields))


class Side:
    """An authenticator that asks an embedded server."""

    def __init__(self, *, reviews=None, audiences=(), wall=0.0, **settings):
        self.app = build_app(
            SimulatorSettings(seed=1, users=(DELEGATE, ROOT, JANE, VAULT), rbac=True), now=virtual_now
        )
        self.connection = Away(self.app, SHOAL.token)
        self.wall = wall
        reviewer = Reviewer(self.connection, audiences=audiences)
        bounds = reviews or AuthorizationSettings()
        self.authorizer = Authorizer(reviewer, bounds)
        given = AuthenticationSettings(**{"tokens": True, "audiences": audiences, **settings})
        self.authenticator = Authenticator(
            given, reviewer, self.authorizer, reviews=bounds, wall=lambda: self.wall
        )

    async def of(self, *authorizations, certificate=None, **headers):
        return await self.authenticator.authenticate(asked(*authorizations, **headers), certificate)

    @property
    def reviews(self):
        return self.connection.reviews("tokenreviews")


def test_a_token_is_whose_the_api_server_says():
    async def main():
        caller = await Side().of("Bearer t-jane")
        assert User(caller.name, caller.uid, caller.groups, caller.extra) == AUTHENTICATED
        assert caller.credential == "token"

    in_virtual_time(main())


NOT_TOKENS = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer  t-jane",
    "Basic dDpq",
    "t-jane",
    "Bearer\tt-jane",
    "\x00",
    "Bearer\n",
    ",",
]


@pytest.mark.parametrize("header", NOT_TOKENS)
def test_headers_that_hold_no_token_are_no_credentials(header):
    async def main():
        side = Side()
        with pytest.raises(Unauthorized, match=r"\AUnauthorized\Z"):
            await side.of(header)
        assert (await Side(anonymous=True).of(header)).name == "system:anonymous"
        assert side.reviews == 0

    in_virtual_time(main())


@pytest.mark.parametrize(
    "header",
    ["Bearer nobody's", "bearer x y", "Bearer t-jane,", "Bearer \u00ff\u00fe", "Bearer " + "x" * 70_000],
)
def test_tokens_that_are_nobodys_are_401_even_where_anonymous_requests_are_allowed(header):
    async def main():
        for side in (Side(), Side(anonymous=True)):
            with pytest.raises(Unauthorized):
                await side.of(header)

    in_virtual_time(main())


def test_a_refusal_is_the_recorded_document():
    error = Unauthorized("Unauthorized")
    assert error.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


def test_of_several_authorization_headers_the_first_counts():
    async def main():
        side = Side()
        assert (await side.of("bearer t-jane", "Bearer nonsense")).name == "jane"
        with pytest.raises(Unauthorized):
            await side.of("Bearer nonsense", "Bearer t-jane")

    in_virtual_time(main())


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer a", "a"),
        ("bEaReR a b", "a"),
        ("  Bearer a  ", "a"),
        ("Bearer", ""),
        ("Bearer  a", ""),
        ("a", ""),
    ],
)
def test_the_token_of_a_header(header, token):
    assert bearer_token((header,)) == token


def test_without_any_setting_nobody_is_asked():
    async def main():
        side = Side(tokens=False)
        assert not side.authenticator.asks
        assert await side.of("Bearer nonsense", Impersonate_User="x") == NOBODY
        assert side.reviews == 0

    in_virtual_time(main())


def test_open_paths_are_those_of_the_settings():
    side = Side(open_paths=("/metrics",))
    assert side.authenticator.is_open("/metrics")
    assert side.authenticator.is_open("/metrics/")
    assert not side.authenticator.is_open("/metrics/x")
    assert not side.authenticator.is_open("/version")


@pytest.mark.parametrize("path", ["/api/v1/pods", "/shoal/v1/count", "/", "", "/metrics/", "*"])
def test_nothing_that_shows_objects_can_be_opened(path):
    with pytest.raises(SettingsError, match=r"gateway.authentication.open_paths: .* cannot be open"):
        parse_settings({"gateway": {"authentication": {"tokens": True, "open_paths": [path]}}}, where="file")


# -- remembering ---------------------------------------------------------------------------------------------


def test_verdicts_count_for_their_time_and_no_longer():
    async def main():
        side = Side()
        await side.of("Bearer t-jane")
        await asyncio.sleep(9)
        await side.of("Bearer t-jane")
        assert side.reviews == 1
        side.app.access.forget("t-jane")
        assert (await side.of("Bearer t-jane")).name == "jane"
        await asyncio.sleep(1.1)
        with pytest.raises(Unauthorized):
            await side.of("Bearer t-jane")
        side.app.access.add(JANE)
        await asyncio.sleep(1)
        with pytest.raises(Unauthorized):
            await side.of("Bearer t-jane")
        await asyncio.sleep(1.1)
        assert (await side.of("Bearer t-jane")).name == "jane"
        assert side.reviews == 3

    in_virtual_time(main())


def test_many_requests_with_one_token_are_one_question():
    async def main():
        side = Side()
        callers = await asyncio.gather(*(side.of("Bearer t-jane") for _ in range(100)))
        assert {caller.name for caller in callers} == {"jane"}
        assert side.reviews == 1

    in_virtual_time(main())


def test_somebody_who_leaves_takes_nobodys_answer_along():
    async def main():
        side = Side()
        side.app.faults.arm(Fault(kind="slow", seconds=1.0))
        first = asyncio.create_task(side.of("Bearer t-jane"))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(side.of("Bearer t-jane"))
        await asyncio.sleep(0.1)
        first.cancel()
        assert (await second).name == "jane"
        assert side.reviews == 1

    in_virtual_time(main())


def test_guessed_tokens_do_not_push_out_known_ones():
    async def main():
        side = Side(remembered=4)
        await side.of("Bearer t-jane")
        for guess in range(50):
            with pytest.raises(Unauthorized):
                await side.of(f"Bearer guess-{guess}")
        assert side.reviews == 51
        await side.of("Bearer t-jane")
        assert side.reviews == 51
        assert len(side.authenticator._tokens) == 5

    in_virtual_time(main())


def test_questions_under_way_are_bounded():
    async def main():
        side = Side(reviews=AuthorizationSettings(reviews_at_once=2, reviews_waiting=3))
        side.app.faults.arm(Fault(kind="slow", seconds=1.0, count=None))
        results = await asyncio.gather(*(side.of(f"Bearer {n}") for n in range(10)), return_exceptions=True)
        assert [type(result) for result in results] == [Unauthorized] * 5 + [TooManyRequests] * 5
        assert results[-1].retry_after_s == 1

    in_virtual_time(main())


# -- the API server is away ----------------------------------------------------------------------------------


def test_while_the_api_server_is_away_verdicts_live_to_their_end_and_then_it_is_503():
    async def main():
        side = Side()
        await side.of("Bearer t-jane")
        side.connection.away = True
        await asyncio.sleep(9.9)
        assert (await side.of("Bearer t-jane")).name == "jane"
        for token in ("t-jane", "nobody's"):
            await asyncio.sleep(0.2)
            with pytest.raises(NotReady) as caught:
                await side.of(f"Bearer {token}")
            assert (caught.value.code, caught.value.retry_after_s) == (503, 1)
        side.connection.away = False
        assert (await side.of("Bearer t-jane")).name == "jane"

    in_virtual_time(main())


@pytest.mark.parametrize("kind", ["status-429", "status-500", "status-503", "drop"])
def test_an_api_server_in_trouble_lets_nobody_in(kind):
    async def main():
        side = Side(anonymous=True)
        side.app.faults.arm(Fault(kind=kind, count=2 if kind == "drop" else 1))
        with pytest.raises(NotReady):
            await side.of("Bearer t-jane")
        assert (await side.of("Bearer t-jane")).name == "jane"

    in_virtual_time(main())


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"status":5}', b'{"status":{"authenticated":"yes"}}', b"\xff", b"null"],
)
def test_an_answer_that_is_no_review_lets_nobody_in(body):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def main():
        side = Side()
        side.connection.app = app
        with pytest.raises(NotReady, match="its answer is no review"):
            await side.of("Bearer t-jane")

    in_virtual_time(main())


def test_an_api_server_that_does_not_answer_is_not_waited_for_for_ever():
    async def main():
        side = Side()
        side.app.faults.arm(Fault(kind="slow", seconds=60.0))
        before = asyncio.get_running_loop().time()
        with pytest.raises(NotReady, match="did not answer a question of tokens within 10 s"):
            await side.of("Bearer t-jane")
        assert asyncio.get_running_loop().time() - before == pytest.approx(10)

    in_virtual_time(main())


def test_an_identity_that_may_not_ask_is_told_what_to_grant():
    async def main():
        side = Side()
        side.app.access.add(simulator.User(name="powerless", token=SHOAL.token))
        with pytest.raises(
            NotReady, match="403: bind Shoal's identity to the cluster role system:auth-delegator"
        ):
            await side.of("Bearer t-jane")

    in_virtual_time(main())


def test_audiences():
    async def main():
        with pytest.raises(Unauthorized):
            await Side().of("Bearer t-vault")
        side = Side(audiences=("vault", "shoal"))
        assert (await side.of("Bearer t-vault")).name == "vault"
        with pytest.raises(Unauthorized):
            await side.of("Bearer t-jane")

    in_virtual_time(main())


def test_a_server_that_knows_nothing_of_audiences_vouches_for_none():
    async def main():
        side = Side(audiences=("vault",))
        original = side.app.access.token
        side.app.access.token = lambda token, audiences=(): original(token)._replace(audiences=())
        with pytest.raises(Unauthorized):
            await side.of("Bearer t-jane")

    in_virtual_time(main())


# -- certificates --------------------------------------------------------------------------------------------


def test_a_certificate_is_a_user():
    async def main():
        side = Side(certificates=True)
        caller = await side.of("Bearer t-jane", certificate=CERTIFICATE)
        assert (caller.name, caller.groups, caller.credential) == (
            "jill",
            ("ops", "devs", "system:authenticated"),
            "certificate",
        )
        assert caller.extra == {"authentication.kubernetes.io/credential-id": ("X509SHA256=ab",)}
        assert side.reviews == 0

    in_virtual_time(main())


def test_an_expired_certificate_is_nobodys_and_a_token_may_still_be_somebodys():
    async def main():
        side = Side(certificates=True, anonymous=True, wall=1000.5)
        with pytest.raises(Unauthorized):
            await side.of(certificate=CERTIFICATE)
        assert (await side.of("Bearer t-jane", certificate=CERTIFICATE)).name == "jane"
        with pytest.raises(Unauthorized):
            await Side(certificates=True, tokens=False, anonymous=True, wall=1000.5).of(
                "Bearer t-jane", certificate=CERTIFICATE
            )

    in_virtual_time(main())


def test_a_certificate_without_a_name_is_nobodys():
    async def main():
        with pytest.raises(Unauthorized):
            await Side(certificates=True).of(certificate=PeerCertificate("", ("ops",), 1000.0))

    in_virtual_time(main())


def test_certificates_say_nothing_where_the_settings_do_not_want_them():
    async def main():
        side = Side()
        assert (await side.of("Bearer t-jane", certificate=CERTIFICATE)).name == "jane"
        with pytest.raises(Unauthorized):
            await side.of(certificate=CERTIFICATE)

    in_virtual_time(main())


# -- looking again -------------------------------------------------------------------------------------------


def test_renewing_asks_again():
    async def main():
        side = Side(certificates=True)
        jane, jill = await side.of("Bearer t-jane"), await side.of(certificate=CERTIFICATE)
        side.app.access.add(simulator.User(name="jane", token="t-jane", groups=("ops",)))
        await asyncio.sleep(11)
        assert (await jane.renew()).groups == ("ops", "system:authenticated")
        assert (await jill.renew()).name == "jill"
        side.app.access.forget("t-jane")
        side.wall = 2000.0
        await asyncio.sleep(11)
        for caller in (jane, jill):
            with pytest.raises(Unauthorized):
                await caller.renew()
        assert await NOBODY.renew() == ANONYMOUS

    in_virtual_time(main())


# -- secrets stay secret -------------------------------------------------------------------------------------

PLANTED = "planted-5ecret-t0ken"


def test_no_token_is_ever_shown(caplog):
    shown = []

    async def main():
        side = Side()
        side.app.access.add(simulator.User(name="mole", token=PLANTED))
        caller = await side.of(f"Bearer {PLANTED}")
        shown.extend(
            (repr(caller), str(caller), repr(caller.identity), repr(side.authenticator._tokens.__dict__))
        )
        troubles = ("status-429", "status-500", "status-503", "drop")
        for trouble in troubles:
            await asyncio.sleep(20)
            side.app.faults.arm(Fault(kind=trouble))
            try:
                await side.of(f"Bearer {PLANTED}")
            except ShoalError as error:
                shown.extend(
                    (repr(error), str(error.status()), repr(error.__cause__), repr(error.__context__))
                )
        for away in (True, False):
            side.connection.away = away
            side.app.access.forget(PLANTED)
            await asyncio.sleep(20)
            try:
                await side.of(f"Bearer {PLANTED}")
            except ShoalError as error:
                shown.extend(
                    (repr(error), str(error.status()), repr(error.__cause__), repr(error.__context__))
                )

    with caplog.at_level(logging.DEBUG):
        in_virtual_time(main())
    assert len(shown) > 20
    assert PLANTED not in "".join(shown) + caplog.text
    assert hashlib.sha256(PLANTED.encode()).hexdigest() not in caplog.text
