"""Streams: replay, initial events, transitions, bookmarks, ends. In virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from support.apiserver import Caller, brief, in_virtual_time, virtual_apiserver

from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.model.errors import ConnectionFailed

MAPS = "/api/v1/namespaces/default/configmaps"
ALL_MAPS = "/api/v1/configmaps"
STREAMING = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"


def caller(**settings: object) -> Caller:
    return Caller(virtual_apiserver(SimulatorSettings(seed=1, **settings)))


async def relabel(server: Caller, name: str, **labels: str) -> None:
    patch = {"metadata": {"labels": labels}}
    headers = {"Content-Type": "application/merge-patch+json"}
    status, _ = await server.ask("PATCH", f"{MAPS}/{name}", patch, headers=headers)
    assert status == 200


def test_a_watch_from_a_version_replays_and_goes_on() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a")
        async with server.watch(f"{ALL_MAPS}?resourceVersion=5") as lines:
            assert brief(await lines.next()) == "ADDED a@6"
            await relabel(server, "a", x="1")
            assert brief(await lines.next()) == "MODIFIED a@7"
            await server.ask("DELETE", f"{MAPS}/a")
            assert brief(await lines.next()) == "DELETED a@8"

    in_virtual_time(main())


def test_the_end_comes_at_the_timeout_asked_for() -> None:
    async def main() -> None:
        server = caller()
        loop = asyncio.get_running_loop()
        async with server.watch(f"{ALL_MAPS}?timeoutSeconds=7") as lines:
            assert await lines.rest() == []
        assert loop.time() == pytest.approx(7)
        began = loop.time()
        async with server.watch(ALL_MAPS) as lines:
            assert await lines.rest() == []
        assert 1800 <= loop.time() - began <= 3600

    in_virtual_time(main())


def test_objects_that_enter_and_leave_a_selector() -> None:
    async def main() -> None:
        server = caller()
        watching = f"{ALL_MAPS}?labelSelector=app%3Dweb&resourceVersion=5&timeoutSeconds=5"
        async with server.watch(watching) as lines:
            await server.create(MAPS, "a", labels={"app": "db"})
            await relabel(server, "a", app="web")
            await relabel(server, "a", app="web", other="1")
            await relabel(server, "a", app="db")
            await relabel(server, "a", app="web")
            await server.ask("DELETE", f"{MAPS}/a")
            events = await lines.rest()
        assert [brief(event) for event in events] == [
            "ADDED a@7", "MODIFIED a@8", "DELETED a@9", "ADDED a@10", "DELETED a@11",
        ]  # fmt: skip
        left = events[2][1]["metadata"]["labels"]
        assert left == {"app": "web", "other": "1"}, "what left is shown as it was known"

    in_virtual_time(main())


def test_selection_by_field_follows_the_field() -> None:
    async def main() -> None:
        server = caller()
        pods = "/api/v1/namespaces/default/pods"
        watching = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&resourceVersion=5&timeoutSeconds=5"
        async with server.watch(watching) as lines:
            await server.create(pods, "p", spec={"containers": []})
            patch = {"spec": {"nodeName": "n1"}}
            headers = {"Content-Type": "application/merge-patch+json"}
            await server.ask("PATCH", f"{pods}/p", patch, headers=headers)
            assert await lines.brief() == ["ADDED p@7"]

    in_virtual_time(main())


def test_a_forgotten_version_gets_one_error_line() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a")
        server.app.storage.compact()
        async with server.watch(f"{ALL_MAPS}?resourceVersion=5") as lines:
            assert lines.response.status == 200
            ((kind, status),) = await lines.rest()
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
        assert status["message"] == "too old resource version: 5 (6)"

    in_virtual_time(main())


def test_bookmarks_only_where_something_happened_since_the_watch_began() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a")
        quiet = f"{ALL_MAPS}?resourceVersion=5&allowWatchBookmarks=true&timeoutSeconds=4"
        async with server.watch(quiet) as lines:
            assert await lines.brief() == ["ADDED a@6"], "a replayed event is what the watch began with"
        elsewhere = "/api/v1/namespaces/kube-system/configmaps"
        async with server.watch(
            f"{MAPS}?resourceVersion=6&allowWatchBookmarks=true&timeoutSeconds=4"
        ) as lines:
            await asyncio.sleep(1)
            await server.create(elsewhere, "b")
            assert await lines.brief() == ["BOOKMARK @7"], "an event in any namespace counts"

    in_virtual_time(main())


def test_bookmarks_come_every_minute_and_before_the_end() -> None:
    async def main() -> None:
        server = caller()
        loop = asyncio.get_running_loop()
        async with server.watch(
            f"{ALL_MAPS}?resourceVersion=5&allowWatchBookmarks=1&timeoutSeconds=200"
        ) as lines:
            await asyncio.sleep(1)
            await server.create(MAPS, "a")
            times = []
            while (line := await lines.raw()) is not None:
                if b"BOOKMARK" in line:
                    times.append(loop.time())
        assert len(times) == 4
        assert all(60 <= later - sooner <= 62.5 for sooner, later in pairwise(times[:3]))
        assert 198 <= times[-1] <= 199.25

    in_virtual_time(main())


@pytest.mark.parametrize("query", ["", "allowWatchBookmarks=false"])
def test_no_bookmarks_unless_asked_for(query: str) -> None:
    async def main() -> None:
        server = caller()
        async with server.watch(f"{ALL_MAPS}?resourceVersion=5&timeoutSeconds=100&{query}") as lines:
            await asyncio.sleep(1)
            await server.create(MAPS, "a")
            assert await lines.brief() == ["ADDED a@6"]

    in_virtual_time(main())


def test_a_streaming_list_ends_its_initial_events_with_a_bookmark() -> None:
    async def main() -> None:
        server = caller()
        for name in "ba":
            await server.create(MAPS, name)
        async with server.watch(f"{ALL_MAPS}?{STREAMING}&timeoutSeconds=1") as lines:
            events = await lines.rest()
        assert [brief(event) for event in events] == ["ADDED a@7", "ADDED b@6", "BOOKMARK @7"]
        assert events[-1][1]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}

    in_virtual_time(main())


def test_a_streaming_list_waits_for_its_version_before_the_bookmark() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a")
        async with server.watch(f"{ALL_MAPS}?{STREAMING}&resourceVersion=8&timeoutSeconds=9") as lines:
            assert brief(await lines.next()) == "ADDED a@6"
            await server.create(MAPS, "b")
            assert brief(await lines.next()) == "ADDED b@7"
            await server.create("/api/v1/namespaces", "elsewhere")
            assert brief(await lines.next()) == "BOOKMARK @8"

    in_virtual_time(main())


def test_a_version_from_the_future_is_silence() -> None:
    async def main() -> None:
        server = caller()
        async with server.watch(f"{ALL_MAPS}?resourceVersion=7&timeoutSeconds=3") as lines:
            await server.create(MAPS, "a")
            await server.create(MAPS, "b")
            await server.create(MAPS, "c")
            assert await lines.brief() == ["ADDED c@8"]

    in_virtual_time(main())


def test_a_watcher_that_does_not_read_is_cut_off() -> None:
    async def main() -> None:
        server = caller(backlog_events=50)
        async with server.watch(f"{ALL_MAPS}?resourceVersion=5") as lines:
            for number in range(700):
                await server.create(MAPS, f"m{number}")
                await asyncio.sleep(0)
            read = await lines.rest()
        assert 0 < len(read) < 700

    in_virtual_time(main())


def test_a_restart_breaks_streams_and_forgets() -> None:
    async def main() -> None:
        server = caller()
        async with server.watch(f"{ALL_MAPS}?resourceVersion=5") as lines:
            await asyncio.sleep(1)
            server.app.storage.restart()
            with pytest.raises(ConnectionFailed):
                await lines.rest()
        await server.create(MAPS, "a")
        async with server.watch(f"{ALL_MAPS}?resourceVersion=4") as lines:
            assert (await lines.next())[0] == "ERROR"
        async with server.watch(f"{ALL_MAPS}?resourceVersion=5&timeoutSeconds=1") as lines:
            assert await lines.brief() == ["ADDED a@6"]

    in_virtual_time(main())


def test_closing_the_server_ends_streams_properly() -> None:
    async def main() -> None:
        server = caller()
        async with server.watch(ALL_MAPS) as lines:
            await asyncio.sleep(1)
            server.app.close()
            assert await lines.rest() == []
        assert not server.app.streams

    in_virtual_time(main())


def test_a_client_that_leaves_takes_its_stream_along() -> None:
    async def main() -> None:
        server = caller()
        collection = server.app.storage.collection("configmaps")
        async with server.watch(ALL_MAPS):
            await asyncio.sleep(1)
            assert len(server.app.streams) == len(collection.subscribers) == 1
        assert not server.app.streams
        assert not collection.subscribers

    in_virtual_time(main())


def test_watchers_of_one_form_share_the_rendered_line() -> None:
    async def main() -> None:
        server = caller()
        async with (
            server.watch(f"{ALL_MAPS}?resourceVersion=5") as one,
            server.watch(f"{MAPS}?resourceVersion=5") as other,
        ):
            await server.create(MAPS, "a")
            assert await one.raw() == await other.raw()
        (event,) = server.app.storage.collection("configmaps").events
        assert len(event.lines) == 1

    in_virtual_time(main())


def test_a_table_stream_names_its_columns_once() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a", data={"k": "v"})
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
        async with server.watch(f"{ALL_MAPS}?resourceVersion=0&timeoutSeconds=2", accept=accept) as lines:
            await asyncio.sleep(1)
            await server.create(MAPS, "b")
            events = await lines.rest()
        assert [bool(table["columnDefinitions"]) for _, table in events] == [True, False]
        assert [table["rows"][0]["cells"][:2] for _, table in events] == [["a", 1], ["b", 0]]

    in_virtual_time(main())


def test_without_initial_events_and_version_a_watch_begins_now() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a")
        for version in ("", "&resourceVersion=0"):
            now = f"{ALL_MAPS}?sendInitialEvents=false&resourceVersionMatch=NotOlderThan{version}&timeoutSeconds=5"
            async with server.watch(now) as lines:
                await asyncio.sleep(1)
                await relabel(server, "a", x=version[-1:])
                events = await lines.rest()
            assert [brief(event).split("@")[0] for event in events] == ["MODIFIED a"]

    in_virtual_time(main())


def test_a_path_below_watch_that_names_an_object_is_a_watch_of_that_object() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a")
        await server.create(MAPS, "b")
        below = "/api/v1/watch/namespaces/default/configmaps"
        for parameters in ("", "&fieldSelector=metadata.name%3Db"):
            async with server.watch(f"{below}/b?timeoutSeconds=5{parameters}") as lines:
                assert [brief(event) for event in await lines.rest()] == ["ADDED b@7"]
        async with server.watch(f"{below}?timeoutSeconds=5") as lines:
            assert [brief(event) for event in await lines.rest()] == ["ADDED a@6", "ADDED b@7"]
        status, answer = await server.ask("GET", f"{below}/b?fieldSelector=metadata.name%3Da")
        assert (status, answer["message"]) == (
            400,
            "fieldSelector metadata.name doesn't match requested name",
        )
        assert (await server.ask("GET", f"{below}/b/status"))[0] == 404
        assert (await server.ask("DELETE", f"{below}/b"))[0] == 405
        assert (await server.ask("GET", f"{MAPS}/b"))[0] == 200

    in_virtual_time(main())
