"""Whether Shoal may ask about people: found by itself, shown in readiness and status, over once it is granted."""

import asyncio
import re

import pytest
from support.apiserver import InProcessConnection, virtual_now
from support.guarded import ROOT, SHOAL, Away, Guarded, bearer

from shoal.cluster.gateway.delegation import GRANTED_LIFE_S, LACKING_LIFE_S, Delegation
from shoal.cluster.gateway.settings import AuthenticationSettings
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings, User
from shoal.shards.model.errors import ConnectionFailed

pytestmark = pytest.mark.looptime

RBAC = "/apis/rbac.authorization.k8s.io/v1"
TOKENS = AuthenticationSettings(tokens=True)


def source(*users):
    return build_app(SimulatorSettings(seed=1, users=(SHOAL, *users), rbac=True), now=virtual_now)


async def problem(delegation):
    try:
        return await delegation.problem()
    finally:
        await delegation.aclose()


async def test_what_is_lacking_and_the_command_that_grants_it():
    said = await problem(Delegation(Away(source(), SHOAL.token), TOKENS))
    assert said == (
        "Shoal, which is shoal to the API server, may not create tokenreviews.authentication.k8s.io and "
        "subjectaccessreviews.authorization.k8s.io, so nobody can be let in: kubectl create clusterrolebinding "
        "shoal-reviews --clusterrole=system:auth-delegator --user=shoal"
    )


async def test_a_service_account_is_granted_as_one():
    account = User(name="system:serviceaccount:cache:shoal", token="t", groups=("system:serviceaccounts",))
    app = source(account, User(name="x", token="x"))
    # Everybody known may ask about themselves by the group system:authenticated.
    said = await problem(Delegation(Away(app, "t"), TOKENS))
    assert said.endswith("--clusterrole=system:auth-delegator --serviceaccount=cache:shoal")


async def test_without_tokens_only_permissions_are_asked_about():
    said = await problem(Delegation(Away(source(), SHOAL.token), AuthenticationSettings(certificates=True)))
    assert "tokenreviews" not in said
    assert "subjectaccessreviews.authorization.k8s.io" in said


class Gone(InProcessConnection):
    def open(self, request):
        raise ConnectionFailed("nobody is there")


async def test_an_api_server_that_is_away_says_nothing_about_permissions():
    assert await problem(Delegation(Gone(source()), TOKENS)) == ""


async def test_an_administrator_lacks_nothing_and_is_not_asked_about_all_the_time():
    connection = Away(source(ROOT), ROOT.token)
    delegation = Delegation(connection, TOKENS)
    for _ in range(5):
        assert await delegation.problem() == ""
        await asyncio.sleep(GRANTED_LIFE_S / 10)
    assert connection.reviews("selfsubjectaccessreviews") == 2
    await asyncio.sleep(GRANTED_LIFE_S)
    await problem(delegation)
    assert connection.reviews("selfsubjectaccessreviews") == 4


async def test_readiness_and_status_say_so_until_it_is_granted():
    guarded = Guarded()
    async with guarded.running():
        status, text = await guarded.gateway.ask("GET", "/readyz?verbose")
        assert status == 200
        assert "[+]reviews ok" in as_text(text)
        await guarded.root("DELETE", f"{RBAC}/clusterrolebindings/reviews")
        await asyncio.sleep(GRANTED_LIFE_S)
        status, text = await guarded.gateway.ask("GET", "/readyz")
        assert status == 503
        assert re.search(r"(?m)^\[-\]reviews Shoal, which is shoal to the API server, may not", as_text(text))
        assert (await guarded.gateway.ask("GET", "/readyz?exclude=reviews"))[0] == 200
        assert (await guarded.gateway.ask("GET", "/livez"))[0] == 200
        shown = await guarded.app.status()
        assert not shown.ready
        assert shown.cannot_review.startswith("Shoal, which is shoal")
        assert shown.waiting_for == (f"reviews {shown.cannot_review}",)
        await guarded.bind_cluster("again", "system:auth-delegator", "User", "shoal")
        await asyncio.sleep(LACKING_LIFE_S)
        assert (await guarded.gateway.ask("GET", "/readyz"))[0] == 200
        shown = await guarded.app.status()
        assert (shown.ready, shown.cannot_review) == (True, "")
        status, _ = await guarded.gateway.ask("GET", "/api/v1/pods", headers=bearer(ROOT.token))
        assert status == 200


def as_text(answer):
    return answer if isinstance(answer, str) else answer.decode()
