"""Faults: each kind does what it says, to whom it says, as often as it says."""

from __future__ import annotations

import asyncio
import json

import pytest
from support.apiserver import Caller, Lines, brief, in_virtual_time, virtual_apiserver

from shoal.cluster.simulator.faults import Fault, Kind
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.model.errors import ConnectionFailed

MAPS = "/api/v1/namespaces/default/configmaps"
WATCH = "/api/v1/configmaps?resourceVersion=5&allowWatchBookmarks=1&timeoutSeconds=30"


def caller(seed: int = 1) -> Caller:
    return Caller(virtual_apiserver(SimulatorSettings(seed=seed)))


async def until_broken(lines: Lines) -> bytes:
    """Everything that arrives before the connection breaks, which it must."""
    received = b""
    try:
        async for chunk in lines.response.chunks():
            received += chunk
    except ConnectionFailed:
        return received
    raise AssertionError("the stream has ended properly")


async def fill(server: Caller, count: int) -> None:
    for number in range(count):
        await server.create(MAPS, f"m{number:03}")


@pytest.mark.parametrize(
    ("kind", "status", "retry_after"),
    [
        ("status-410", 410, None),
        ("status-429", 429, "7"),
        ("status-500", 500, None),
        ("status-503", 503, "7"),
    ],
)
def test_statuses(kind: Kind, status: int, retry_after: str | None) -> None:
    async def main() -> None:
        server = caller()
        server.app.faults.arm(Fault(kind=kind, retry_after_s=7))
        async with server.watch(WATCH) as lines:
            assert lines.response.status == status
            assert lines.response.headers.get("retry-after") == retry_after
            assert json.loads(await lines.response.read())["code"] == status
        assert (await server.ask("GET", MAPS))[0] == 200, "once means once"
        assert server.app.faults.injected == {kind: 1}

    in_virtual_time(main())


def test_a_dropped_request_is_never_answered() -> None:
    async def main() -> None:
        server = caller()
        server.app.faults.arm(Fault(kind="drop", verb="list"))
        with pytest.raises(ConnectionFailed):
            await server.ask("GET", MAPS)
        assert (await server.ask("GET", MAPS))[0] == 200

    in_virtual_time(main())


def test_slow_answers() -> None:
    async def main() -> None:
        server = caller()
        server.app.faults.arm(Fault(kind="slow", seconds=12.5))
        await server.get(MAPS)
        assert asyncio.get_running_loop().time() == pytest.approx(12.5)

    in_virtual_time(main())


def test_faults_hit_whom_they_name() -> None:
    async def main() -> None:
        server = caller()
        server.app.faults.arm(
            Fault(kind="status-503", resource="configmaps", verb="list", namespace="default", count=None)
        )
        assert (await server.ask("GET", MAPS))[0] == 503
        assert (await server.ask("GET", "/api/v1/configmaps"))[0] == 200
        assert (await server.ask("GET", f"{MAPS}/x"))[0] == 404
        assert (await server.ask("GET", "/api/v1/namespaces/default/secrets"))[0] == 200
        assert (await server.ask("GET", MAPS))[0] == 503
        server.app.faults.disarm()
        assert (await server.ask("GET", MAPS))[0] == 200

    in_virtual_time(main())


def test_a_cut_stream_breaks_between_lines() -> None:
    async def main() -> None:
        server = caller()
        await fill(server, 20)
        server.app.faults.arm(Fault(kind="cut"))
        async with server.watch(WATCH) as lines:
            received = await until_broken(lines)
        assert received.count(b"\n") < 20
        assert received.endswith(b"\n") or not received

    in_virtual_time(main())


def test_a_truncated_stream_breaks_within_a_line() -> None:
    async def main() -> None:
        server = caller()
        await fill(server, 20)
        server.app.faults.arm(Fault(kind="truncate"))
        async with server.watch(WATCH) as lines:
            received = await until_broken(lines)
        assert received
        assert not received.endswith(b"\n")

    in_virtual_time(main())


def test_garbage_replaces_a_line_and_the_stream_goes_on() -> None:
    async def main() -> None:
        server = caller()
        await fill(server, 20)
        server.app.faults.arm(Fault(kind="garbage"))
        async with server.watch(WATCH) as lines:
            good, bad = 0, []
            while (line := await lines.raw()) is not None:
                try:
                    json.loads(line)
                    good += 1
                except ValueError:
                    bad.append(line)
        assert (good, len(bad)) == (19, 1)

    in_virtual_time(main())


def test_an_error_line_ends_the_stream() -> None:
    async def main() -> None:
        server = caller()
        await fill(server, 3)
        server.app.faults.arm(Fault(kind="line-410", after_lines=3))
        async with server.watch(WATCH) as lines:
            for _ in range(3):
                assert (await lines.next())[0] == "ADDED"
            await server.create(MAPS, "later")
            ((kind, status),) = await lines.rest()
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")

    in_virtual_time(main())


def test_a_stalled_stream_is_silent_for_as_long_as_it_says() -> None:
    async def main() -> None:
        server = caller()
        loop = asyncio.get_running_loop()
        server.app.faults.arm(Fault(kind="stall", seconds=9))
        async with server.watch(WATCH) as lines:
            await server.create(MAPS, "a")
            assert brief(await lines.next()) == "ADDED a@6"
            assert loop.time() == pytest.approx(9)

    in_virtual_time(main())


def test_a_stream_that_stalls_for_good_outlives_its_timeout() -> None:
    async def main() -> None:
        server = caller()
        server.app.faults.arm(Fault(kind="stall"))
        async with server.watch(WATCH) as lines:
            await server.create(MAPS, "a")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10_000):
                    await lines.raw()
        assert not server.app.streams

    in_virtual_time(main())


def test_an_immediate_fault_hits_an_idle_stream() -> None:
    async def main() -> None:
        server = caller()
        loop = asyncio.get_running_loop()
        async with server.watch(WATCH) as lines:
            await asyncio.sleep(3)
            server.app.faults.arm(Fault(kind="cut", immediate=True))
            with pytest.raises(ConnectionFailed):
                await lines.rest()
        assert loop.time() == pytest.approx(3)

    in_virtual_time(main())


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (None, ["ADDED a@6", "BOOKMARK @6"]),
        (Fault(kind="no-bookmarks"), ["ADDED a@6"]),
        (Fault(kind="late-bookmarks", seconds=100), ["ADDED a@6"]),
        (Fault(kind="late-bookmarks", seconds=0.5), ["ADDED a@6", "BOOKMARK @6"]),
    ],
)
def test_bookmarks_that_are_late_or_missing(fault: Fault | None, expected: list[str]) -> None:
    async def main() -> None:
        server = caller()
        if fault is not None:
            server.app.faults.arm(fault)
        async with server.watch(WATCH) as lines:
            await asyncio.sleep(1)
            await server.create(MAPS, "a")
            assert await lines.brief() == expected

    in_virtual_time(main())


def test_ignored_selectors() -> None:
    async def main() -> None:
        server = Caller(virtual_apiserver(SimulatorSettings(seed=1, shard_selector=True)))
        await fill(server, 3)
        shard = "shardRange(object.metadata.uid,'0x0000000000000000','0x0000000000000001')"
        for selector in (
            "labelSelector=a%3Db",
            "fieldSelector=metadata.namespace!%3Ddefault",
            f"shardSelector={shard}",
        ):
            assert (await server.get(f"/api/v1/configmaps?{selector}"))["items"] == []
            server.app.faults.arm(Fault(kind="ignore-selectors"))
            page = await server.get(f"/api/v1/configmaps?{selector}")
            assert len(page["items"]) == 3
            assert "shardInfo" not in page["metadata"]
            server.app.faults.arm(Fault(kind="ignore-selectors", verb="watch"))
            async with server.watch(f"{WATCH}&{selector}") as lines:
                assert len(await lines.rest()) == 3

    in_virtual_time(main())


@pytest.mark.parametrize("kind", ["cut", "truncate"])
def test_a_list_cut_short(kind: Kind) -> None:
    async def main() -> None:
        server = caller()
        await fill(server, 3)
        server.app.faults.arm(Fault(kind=kind, verb="list"))
        with pytest.raises(ConnectionFailed):
            await server.ask("GET", MAPS)

    in_virtual_time(main())


def test_a_list_that_is_garbage() -> None:
    async def main() -> None:
        server = caller()
        await fill(server, 3)
        server.app.faults.arm(Fault(kind="garbage", verb="list"))
        with pytest.raises(UnicodeDecodeError):
            await server.ask("GET", MAPS)

    in_virtual_time(main())


def test_compaction_and_restart_happen_when_armed() -> None:
    async def main() -> None:
        server = caller()
        await fill(server, 2)
        server.app.faults.arm(Fault(kind="compact"))
        async with server.watch(WATCH) as lines:
            assert (await lines.next())[0] == "ERROR"
        server.app.faults.arm(Fault(kind="restart", jump=100))
        assert server.app.storage.revision == 107
        assert server.app.faults.injected == {"compact": 1, "restart": 1}
        assert server.app.faults.armed == {}

    in_virtual_time(main())


def test_a_seed_repeats_what_happens() -> None:
    async def main(seed: int) -> tuple[list[int], dict[str, int]]:
        server = caller(seed)
        server.app.faults.arm(Fault(kind="status-503", probability=0.3, count=None))
        statuses = [(await server.ask("GET", MAPS))[0] for _ in range(200)]
        return statuses, dict(server.app.faults.injected)

    first, second = in_virtual_time(main(1)), in_virtual_time(main(1))
    assert first == second
    assert first != in_virtual_time(main(2))
    assert 30 < first[1]["status-503"] < 90


def test_the_control_endpoint() -> None:
    async def main() -> None:
        server = caller()
        path = "/simulator/faults"
        faults = [{"kind": "status-503", "count": 2}, {"kind": "slow", "seconds": 1, "verb": "watch"}]
        status, armed = await server.ask("POST", path, faults)
        assert (status, armed) == (201, {"armed": [1, 2]})
        assert (await server.ask("GET", MAPS))[0] == 503
        found = await server.get(path)
        assert {number: fault["count"] for number, fault in found["armed"].items()} == {"1": 1, "2": 1}
        assert found["injected"] == {"status-503": 1}
        assert (await server.ask("DELETE", f"{path}/1"))[0] == 200
        assert (await server.ask("GET", MAPS))[0] == 200
        assert (await server.ask("DELETE", path))[0] == 200
        assert (await server.get(path))["armed"] == {}

    in_virtual_time(main())


@pytest.mark.parametrize(
    ("document", "fragment"),
    [
        ({"kind": "earthquake"}, "kind"),
        ({"kind": "cut", "colour": "red"}, "colour"),
        ({"kind": "cut", "probability": 2}, "probability"),
        ("cut", "not a fault"),
    ],
)
def test_what_is_no_fault(document: object, fragment: str) -> None:
    async def main() -> None:
        server = caller()
        status, found = await server.ask("POST", "/simulator/faults", document)
        assert (status, fragment in found["message"]) == (400, True), found
        assert server.app.faults.armed == {}
        assert (await server.ask("PUT", "/simulator/faults", {}))[0] == 405
        assert (await server.ask("GET", "/simulator/weather"))[0] == 404

    in_virtual_time(main())


# -- going back -------------------------------------------------------------------------------------


def test_a_restart_that_goes_back_restores_the_state_of_then() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "kept")
        await server.create(MAPS, "changed", data={"a": "old"})
        await server.create(MAPS, "deleted")
        then = server.app.storage.revision
        before = await server.get(MAPS)
        merge = {"Content-Type": "application/merge-patch+json"}
        await server.ask("PATCH", f"{MAPS}/changed", {"data": {"a": "new"}}, headers=merge)
        await server.ask("DELETE", f"{MAPS}/deleted")
        await server.create(MAPS, "made")
        async with server.watch(f"{MAPS}?resourceVersion={server.app.storage.revision}") as lines:
            server.app.faults.arm(Fault(kind="restart", jump=then - server.app.storage.revision))
            assert not await until_broken(lines)
        assert server.app.storage.revision == then
        assert await server.get(MAPS) == before
        assert server.app.faults.injected == {"restart": 1}

    in_virtual_time(main())


def test_after_going_back_versions_from_before_lie_in_the_future() -> None:
    async def main() -> None:
        server = caller()
        await fill(server, 20)  # 6 to 25
        server.app.faults.arm(Fault(kind="restart", jump=-10))
        loop = asyncio.get_running_loop()
        began = loop.time()
        status, answer = await server.ask("GET", f"{MAPS}?resourceVersion=25")
        assert (status, answer["reason"]) == (504, "Timeout")
        watched = f"{MAPS}?resourceVersion=25&allowWatchBookmarks=1&timeoutSeconds=30"
        began = loop.time()
        async with server.watch(watched) as lines:
            await fill_from(server, 15, 20)  # again 16 to 20: older than what the client has seen
            assert await lines.brief() == []
        assert loop.time() - began == pytest.approx(30, abs=1)
        async with server.watch(f"{MAPS}?resourceVersion=15&timeoutSeconds=1") as lines:
            assert len(await lines.brief()) == 5

    in_virtual_time(main())


async def fill_from(server: Caller, first: int, end: int) -> None:
    for number in range(first, end):
        await server.create(MAPS, f"m{number:03}")


def test_definitions_go_back_as_well() -> None:
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    names = {"plural": "widgets", "kind": "Widget"}
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": names,
        "versions": [{"name": "v1", "served": True, "storage": True}],
    }
    document = {"metadata": {"name": "widgets.example.com"}, "spec": spec}
    widgets = "/apis/example.com/v1/namespaces/default/widgets"

    async def main() -> None:
        server = caller()
        without = server.app.storage.revision
        assert (await server.ask("POST", definitions, document))[0] == 201
        await server.create(widgets, "w")
        having = server.app.storage.revision
        assert (await server.ask("DELETE", f"{definitions}/widgets.example.com"))[0] == 200
        assert (await server.ask("GET", widgets))[0] == 404
        server.app.faults.arm(Fault(kind="restart", jump=having - server.app.storage.revision))
        assert (await server.get(widgets))["items"] == [], "a definition that is back has lost its objects"
        assert any(group["name"] == "example.com" for group in (await server.get("/apis"))["groups"])
        await server.create(widgets, "w")
        async with server.watch(f"{widgets}?resourceVersion=0") as lines:
            assert (await lines.next())[0] == "ADDED"
            server.app.faults.arm(Fault(kind="restart", jump=without - server.app.storage.revision))
            assert not await until_broken(lines)
        assert (await server.ask("GET", widgets))[0] == 404
        assert not any(group["name"] == "example.com" for group in (await server.get("/apis"))["groups"])

    in_virtual_time(main())


def test_a_stream_with_lines_to_send_breaks_as_well() -> None:
    async def main() -> None:
        server = caller()
        async with server.watch(WATCH) as lines:
            await server.create(MAPS, "a")
            server.app.faults.arm(Fault(kind="restart", jump=-1))
            await until_broken(lines)

    in_virtual_time(main())


# -- what is counted --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cut", "line-410", "no-bookmarks", "late-bookmarks", "ignore-selectors"])
def test_a_fault_that_meets_nothing_to_disturb_does_not_count(kind: Kind) -> None:
    async def main() -> None:
        server = caller()
        server.app.faults.arm(Fault(kind=kind, seconds=3, after_lines=5))
        async with server.watch("/api/v1/configmaps?resourceVersion=5&timeoutSeconds=9") as lines:
            await server.create(MAPS, "a")
            assert await lines.brief() == ["ADDED a@6"]
        assert not server.app.faults.injected

    in_virtual_time(main())


@pytest.mark.parametrize("kind", ["no-bookmarks", "late-bookmarks"])
def test_withheld_bookmarks_count_once_a_stream(kind: Kind) -> None:
    async def main() -> None:
        server = caller()
        server.app.faults.arm(Fault(kind=kind, seconds=100))
        async with server.watch(WATCH) as lines:
            for name in ("a", "b", "c"):
                await server.create(MAPS, name)
                await asyncio.sleep(1)
            assert await lines.brief() == ["ADDED a@6", "ADDED b@7", "ADDED c@8"]
        assert server.app.faults.injected == {kind: 1}

    in_virtual_time(main())
