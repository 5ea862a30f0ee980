"""Evictions, as ``kubectl drain`` asks for them: a budget protects its pods."""

from __future__ import annotations

from typing import Any

import pytest
from support.apiserver import Caller, in_virtual_time, virtual_apiserver

from shoal.cluster.simulator.settings import SimulatorSettings

PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
WEB = {"matchLabels": {"app": "web"}}


async def with_pod(phase: str = "Running") -> Caller:
    server = Caller(virtual_apiserver(SimulatorSettings(seed=1)))
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await server.create(PODS, "web-0", labels={"app": "web"}, spec=spec)
    await server.ask(
        "PATCH",
        f"{PODS}/web-0/status",
        {"status": {"phase": phase}},
        headers={"Content-Type": "application/merge-patch+json"},
    )
    return server


async def protect(server: Caller, selector: Any, allowed: int, name: str = "web") -> None:
    status = {"disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2}
    spec = {"minAvailable": 2} | ({} if selector is None else {"selector": selector})
    await server.create(BUDGETS, name, spec=spec, status=status)


async def evict(server: Caller, **members: Any) -> tuple[int, Any]:
    document = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web-0"}, **members}
    return await server.ask("POST", f"{PODS}/web-0/eviction", document)


async def there(server: Caller) -> bool:
    status, _ = await server.ask("GET", f"{PODS}/web-0")
    return status == 200


@pytest.mark.parametrize(
    ("selector", "allowed"),
    [(None, 0), ({"matchLabels": {"app": "db"}}, 0), (WEB, 1)],
    ids=["selects none", "selects others", "allows it"],
)
def test_a_pod_that_may_be_disrupted_is_deleted(selector: Any, allowed: int) -> None:
    async def main() -> None:
        server = await with_pod()
        await protect(server, selector, allowed)
        status, answer = await evict(server)
        assert (status, answer["status"], answer["code"]) == (201, "Success", 201)
        assert not await there(server)
        assert (await evict(server))[0] == 404

    in_virtual_time(main())


@pytest.mark.parametrize(
    "selector",
    [
        WEB,
        {},
        {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]},
        {
            "matchExpressions": [
                {"key": "app", "operator": "Exists"},
                {"key": "x", "operator": "DoesNotExist"},
            ]
        },
        {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]},
    ],
)
def test_a_budget_without_room_keeps_its_pod(selector: Any) -> None:
    async def main() -> None:
        server = await with_pod()
        await protect(server, selector, 0)
        status, answer = await evict(server)
        assert (status, answer["reason"]) == (429, "TooManyRequests")
        assert answer["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
        assert answer["details"]["causes"] == [
            {
                "reason": "DisruptionBudget",
                "message": "The disruption budget web needs 2 healthy pods and has 2 currently",
            }
        ]
        assert await there(server)

    in_virtual_time(main())


def test_a_pod_that_does_not_run_counts_for_no_budget() -> None:
    async def main() -> None:
        server = await with_pod("Succeeded")
        await protect(server, WEB, 0)
        assert (await evict(server))[0] == 201

    in_virtual_time(main())


def test_two_budgets_are_one_too_many() -> None:
    async def main() -> None:
        server = await with_pod()
        for name in ("one", "two"):
            await protect(server, WEB, 5, name)
        status, answer = await evict(server)
        assert (status, "more than one PodDisruptionBudget" in answer["message"]) == (500, True)
        assert await there(server)

    in_virtual_time(main())


def test_the_options_in_an_eviction_count() -> None:
    async def main() -> None:
        server = await with_pod()
        assert (await evict(server, deleteOptions={"dryRun": ["All"]}))[0] == 201
        assert (await evict(server, deleteOptions={"preconditions": {"uid": "another"}}))[0] == 409
        assert (await evict(server, metadata={"name": "other"}))[0] == 400
        assert (await evict(server, kind="Pod", apiVersion="v1"))[0] == 400
        assert await there(server)

    in_virtual_time(main())


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_an_eviction_can_only_be_made(method: str) -> None:
    async def main() -> None:
        server = await with_pod()
        assert (await server.ask(method, f"{PODS}/web-0/eviction"))[0] == 405
        assert await there(server)

    in_virtual_time(main())
