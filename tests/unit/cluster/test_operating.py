"""Asking the coordinator through a gateway: explanations, and orders by hand; over HTTP and by the commands."""

import asyncio
import time

import pytest
from click.testing import CliRunner
from support.apiserver import in_virtual_time
from support.gateway_installation import Thread
from support.guarded import ROOT, Guarded, bearer

from shoal.cluster.cli.main import root
from shoal.cluster.cli.server import Server
from shoal.cluster.gateway.operating import BODY_BYTES_MAX, EXPLAIN, ORDERS
from shoal.cluster.simulator.settings import User

PATIENCE_S = 20.0
JSON = (("Content-Type", "application/json"),)
SOMEBODY = User(name="somebody", token="token-of-somebody")


@pytest.fixture(scope="module")
def installation():
    with Thread() as running:
        yield running


@pytest.fixture
def shoal(installation):
    """Runs a command against the installation."""

    def run(*arguments, code=0):
        outcome = CliRunner(env={"SHOAL_SERVER": installation.url}).invoke(root, [*arguments])
        assert outcome.exit_code == code, outcome.output
        return outcome.output

    return run


def until(what, seen):
    """Waits for something that is over as soon as it happens."""
    ends = time.monotonic() + PATIENCE_S
    while not seen():
        assert time.monotonic() < ends, f"{what} did not come about"
        time.sleep(0.05)


def routes(installation):
    async def ask():
        async with Server(installation.url) as server:
            return (await server.status()).report.coordinator.partitions

    return {one.partition: one.shard for one in asyncio.run(ask())}


def test_everything_can_be_explained(shoal):
    text = shoal("explain")
    assert text.startswith("2 shards wanted (fixed), 2 there")
    assert "shard-0 (healthy" in text
    assert "hottest partitions" in text


@pytest.mark.parametrize("word", ["pods", "po", "v1/pods"])
def test_a_resource_is_explained_by_any_name_it_has(shoal, word):
    assert shoal("explain", word).startswith("v1/pods is whole\nv1/pods on shard-")


def test_what_nobody_knows_is_an_error_of_one_sentence(shoal):
    assert "the server doesn't have a resource type" in shoal("explain", "gadgets", code=1)
    assert "there is no partition, resource or shard shard-7" in shoal("explain", "shard-7", code=1)
    assert "there is no shard shard-7" in shoal("drain", "shard-7", code=1)
    assert "there is no partition v1/pods[nobody]" in shoal("move", "pods[nobody]", "shard-0", code=1)
    assert "nothing of v1/nodes is pinned" in shoal("unpin", "nodes", code=1)


def test_a_partition_is_moved_and_stays(shoal, installation):
    giver = routes(installation)["v1/configmaps"]
    taker = "shard-1" if giver == "shard-0" else "shard-0"
    assert f"v1/configmaps moves from {giver} to {taker}, and is pinned there" in shoal(
        "move", "configmaps", taker
    )
    until("the move", lambda: routes(installation)["v1/configmaps"] == taker)
    assert f"v1/configmaps is pinned to {taker}" in shoal("explain")
    assert "is not pinned" in shoal("unpin", "configmaps")


def test_a_resource_is_cut_and_merged_again(shoal, installation):
    assert "v1/pods is cut: default and the rest (was: whole)" in shoal("split", "pods", "-n", "default")
    until("the cut", lambda: {"v1/pods[default]", "v1/pods[!default]"} <= set(routes(installation)))
    until("its tale", lambda: "v1/pods is cut into default and the rest" in shoal("explain", "pods"))
    shoal("split", "v1/pods[!default]", "--ranges", "2")
    until(
        "the ranges", lambda: len([name for name in routes(installation) if name.startswith("v1/pods")]) == 3
    )
    assert "v1/pods is cut: whole" in shoal("split", "pods", "--merge")
    until("the merge", lambda: "v1/pods" in routes(installation))
    shoal("unpin", "pods")


def test_a_split_says_how_in_one_way(shoal):
    assert "expected one of --namespace, --ranges and --merge" in shoal("split", "pods", code=2)
    assert "expected one of" in shoal("split", "pods", "--merge", "-n", "a", code=2)
    assert "has no namespaces" in shoal("split", "nodes", "-n", "a", code=1)


def test_a_shard_is_drained_ends_and_is_replaced(shoal, installation):
    assert "shard-1 is drained" in shoal("drain", "shard-1")
    until("the drain", lambda: "shard-1" not in routes(installation).values())
    until("its end", lambda: "shard-1" not in shoal("explain"))
    until("another", lambda: "shard-2 (healthy" in shoal("explain"))
    assert "shard-0 is drained" in shoal("drain", "shard-0")
    assert "it is drained" in shoal("explain", "shard-0")
    assert "shard-0 may have partitions again" in shoal("drain", "shard-0", "--undo")


def test_a_plan_can_be_looked_at_before_it_is_carried_out(shoal, installation):
    until("peace", lambda: "it is leaving" not in shoal("explain"))
    where = routes(installation)["v1/nodes"]
    shoal("move", "nodes", where)
    plan = shoal("rebalance", "--dry-run")
    assert f"v1/nodes is pinned to {where}: not any more" in plan
    assert f"v1/nodes is pinned to {where}" in shoal("explain"), "nothing has changed"
    shoal("rebalance")
    assert "is pinned" not in shoal("explain")


# -- over HTTP -----------------------------------------------------------------------------------------------


def test_what_is_no_order_is_refused_and_changes_nothing():
    async def main():
        guarded = Guarded()
        async with guarded.running():
            ask, admin = guarded.gateway.ask, bearer(ROOT.token)
            for method, path in (("POST", EXPLAIN), ("GET", ORDERS), ("DELETE", ORDERS)):
                assert (await ask(method, path, headers=admin))[0] == 405
            status, answer = await ask("POST", ORDERS, {"type": "dance"}, headers=admin)
            assert status == 400
            assert "the body is no order" in answer["message"]
            status, answer = await ask(
                "POST", ORDERS, {"type": "move", "partition": "v1/pods"}, headers=admin
            )
            assert status == 400
            assert "missing required field `shard`" in answer["message"]
            status, _ = await ask(
                "POST", ORDERS, {"type": "drain", "shard": "s" * BODY_BYTES_MAX}, headers=admin
            )
            assert status == 413
            plain = {**admin, "Content-Type": "text/plain"}
            status, answer = await ask("POST", ORDERS, {"type": "rebalance"}, headers=plain)
            assert status == 415
            assert (await ask("GET", f"{EXPLAIN}?about={'a' * 5000}", headers=admin))[0] == 400

    in_virtual_time(main())


def test_only_whom_the_api_server_lets_may_order_or_look():
    async def main():
        guarded = Guarded(SOMEBODY)
        async with guarded.running():
            ask, mine = guarded.gateway.ask, bearer(SOMEBODY.token)
            status, answer = await ask("POST", ORDERS, {"type": "rebalance"}, headers=mine)
            assert status == 403
            assert f'cannot post path "{ORDERS}"' in answer["message"]
            assert (await ask("GET", EXPLAIN, headers=mine))[0] == 403
            assert (await ask("POST", ORDERS, {"type": "rebalance"}))[0] == 403
            rule = {"verbs": ["get", "post"], "nonResourceURLs": [EXPLAIN, ORDERS]}
            await guarded.cluster_role("operates", rule)
            await guarded.bind_cluster("operates", "operates", "User", SOMEBODY.name)
            await asyncio.sleep(10)
            status, answer = await ask("POST", ORDERS, {"type": "rebalance", "dry_run": True}, headers=mine)
            assert status == 200
            assert answer["lines"]
            assert (await ask("GET", EXPLAIN, headers=mine))[0] == 200

    in_virtual_time(main())
