"""The driver with a scripted API server and the real store, in virtual time: what is asked, when and held."""

import asyncio
import json
import random

import pytest
from support.clock import run_virtual
from support.scripted_connection import (
    Answer,
    Never,
    ScriptedConnection,
    bookmark,
    config_map,
    declined,
    line,
    listed,
    status,
    streamed,
)

from shoal.shards.api.decode import Decoder
from shoal.shards.model.errors import (
    Broken,
    CertificateRejected,
    ConnectionFailed,
    KubeconfigError,
)
from shoal.shards.model.partitions import EVERYTHING, ExceptNamespaces, HashRange, OneNamespace, Partition
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.settings import StoreSettings, WatchSettings
from shoal.shards.store.objects import PartitionStore
from shoal.shards.watch.permits import NoPermits
from shoal.shards.watch.reflector import Reflector
from shoal.shards.watch.stream import PIECE_BYTES

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
NODES = ResourceType(resource=Resource("", "v1", "nodes"), kind="Node", namespaced=False)
A1, A2, A3 = config_map("a", 1), config_map("a", 2), config_map("a", 3)
B4, B5 = config_map("b", 4), config_map("b", 5)
CUT = ConnectionFailed("the stream broke off")


class NoJitter(random.Random):
    """Every random number is 0: timeouts and delays are at their smallest."""

    def random(self):
        return 0.0


class Followed:
    """A reflector with its scripted server and its store."""

    def __init__(self, *script, cover=EVERYTHING, permits=None, store=None, **settings):
        self.partition = Partition(CONFIG_MAPS.resource, cover)
        self.connection = ScriptedConnection(*script)
        settings.setdefault("streaming_list", "never")
        watch = WatchSettings(**settings)
        self.store = store or PartitionStore(
            self.partition,
            CONFIG_MAPS,
            settings=StoreSettings(),
            clock=lambda: asyncio.get_running_loop().time(),
        )
        self.reflector = Reflector(
            partition=self.partition,
            resource_type=CONFIG_MAPS,
            connection=self.connection,
            store=self.store,
            decoder=Decoder(CONFIG_MAPS, line_bytes_max=watch.line_bytes_max),
            permits=permits or NoPermits(),
            settings=watch,
            rng=NoJitter(),
        )
        self.running = None

    async def until(self, seconds):
        """Lets it run until that time."""
        loop = asyncio.get_running_loop()
        if self.running is None:
            self.running = loop.create_task(self.reflector.run())
        await asyncio.sleep(seconds - loop.time())
        if self.running.done():
            self.running.result()
        return self

    @property
    def held(self):
        """Versions by name, as far as objects a and b are concerned."""
        found = {}
        for name in ("a", "b"):
            body = self.store.get(f"alpha/{name}")
            if body is not None:
                found[name] = int(json.loads(body)["metadata"]["resourceVersion"])
        return found

    @property
    def status(self):
        return self.reflector.status

    @property
    def asked(self):
        return self.connection.asked


def follow(*script, until, **settings):
    """Runs a script until some virtual second and stops it there."""

    async def main():
        return await Followed(*script, **settings).until(until)

    return run_virtual(main())


# -- lists ---------------------------------------------------------------------------------------------------


def test_a_streaming_list_becomes_a_watch_on_the_same_stream():
    changes = (5.0, line("MODIFIED", A3), line("ADDED", B4), Never)
    followed = follow(streamed(2, A2, then=changes), until=10.0, streaming_list="auto")
    assert followed.held == {"a": 3, "b": 4}
    assert followed.store.frontier == 4
    assert followed.connection.times == [0.0]
    assert followed.asked[0].query == {
        "watch": "1",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "300",
    }
    assert followed.status.state == "synced"
    assert followed.status.lists == {"stream": 1}


def test_what_follows_the_end_of_the_initial_events_in_the_same_bytes_is_applied():
    everything = line("ADDED", A1) + bookmark(1, end=True) + line("MODIFIED", A2) + line("ADDED", B4)
    followed = follow(Answer([everything, Never]), until=1.0, streaming_list="auto")
    assert followed.held == {"a": 2, "b": 4}


def test_an_object_deleted_while_the_streaming_list_runs_is_not_held():
    lines = line("ADDED", A1) + line("ADDED", B4) + line("DELETED", B5) + bookmark(5, end=True)
    followed = follow(Answer([lines, Never]), until=1.0, streaming_list="auto")
    assert followed.held == {"a": 1}


def test_nothing_is_visible_before_a_list_is_complete():
    slow = Answer([line("ADDED", A1), 5.0, bookmark(1, end=True), Never])

    async def main():
        followed = await Followed(slow, streaming_list="auto").until(4.0)
        assert not followed.store.synced
        assert followed.status.state == "pending"
        assert followed.status.message == "receives a streaming list"
        await followed.until(6.0)
        assert followed.held == {"a": 1}

    run_virtual(main())


def test_pages_are_followed_to_the_last_and_watched_from_their_version():
    followed = follow(listed(7, A1, more="t1"), listed(7, B4), Answer([Never]), until=1.0)
    assert followed.held == {"a": 1, "b": 4}
    assert [asked.query for asked in followed.asked] == [
        {"limit": "500"},
        {"limit": "500", "continue": "t1"},
        {"watch": "1", "resourceVersion": "7", "allowWatchBookmarks": "true", "timeoutSeconds": "300"},
    ]


def test_a_server_that_refuses_streaming_lists_is_asked_for_pages():
    script = (declined(422, "sendInitialEvents is forbidden"), listed(7, A1), Answer([Never]))
    followed = follow(*script, until=1.0, streaming_list="auto")
    assert followed.held == {"a": 1}
    assert followed.connection.times == [0.0, 0.0, 0.0]


def test_a_server_that_ignores_streaming_lists_is_found_out_by_its_silence():
    plain = [line("ADDED", A1), Never]
    script = (Answer(plain), listed(7, A1), Answer([Never]))
    followed = follow(*script, until=100.0, streaming_list="auto")
    assert followed.connection.times == [0.0, 60.8, 60.8]
    assert followed.held == {"a": 1}
    assert followed.status.errors == {"silent": 1}


def test_bytes_keep_a_slow_streaming_list_alive():
    drip = [piece for _ in range(5) for piece in (line("ADDED", A1), 50.0)]
    followed = follow(Answer([*drip, bookmark(2, end=True), Never]), until=251.0, streaming_list="auto")
    assert followed.status.lists == {"stream": 1}
    assert followed.held == {"a": 1}


def test_a_list_whose_bytes_stop_is_given_up():
    script = (Answer([b'{"kind":"ConfigMapList",', Never]), listed(7, A1), Answer([Never]))
    followed = follow(*script, until=100.0)
    assert followed.connection.times == [0.0, 60.8, 60.8]
    assert followed.asked[0].left_at == 60.0


def test_a_list_interrupted_half_way_leaves_what_is_held():
    async def main():
        script = (
            listed(1, A1),
            Answer([line("ADDED", B4), line("ERROR", status(410, "too old"))]),
            listed(9, B5, more="t1"),
            CUT,
            listed(9, B5, more="t1"),
            listed(9),
            Answer([Never]),
        )
        followed = await Followed(*script).until(0.5)
        assert followed.held == {"a": 1, "b": 4}
        await followed.until(5.0)
        assert followed.held == {"b": 5}
        assert followed.status.state == "synced"

    run_virtual(main())


def test_a_page_that_is_not_a_list_is_garbage_and_asked_for_again():
    followed = follow(Answer([b"<html>"]), listed(7, A1), Answer([Never]), until=2.0)
    assert followed.held == {"a": 1}
    assert followed.status.errors == {"garbage": 1}
    assert followed.connection.times == [0.0, 0.8, 0.8]


def test_an_expired_continue_token_is_followed_by_a_list_in_one_piece():
    script = (listed(7, A1, more="t1"), declined(410, "expired"), listed(9, A2, B5), Answer([Never]))
    followed = follow(*script, until=1.0)
    assert followed.held == {"a": 2, "b": 5}
    assert [asked.query.get("limit") for asked in followed.asked[:3]] == ["500", "500", None]


class OnePermit:
    """Grants one permit at a time and says who holds it."""

    def __init__(self):
        self.holders = []
        self.free = asyncio.Semaphore(1)

    def permit(self, partition):
        return self._Permit(self, partition)

    class _Permit:
        def __init__(self, permits, partition):
            self.permits, self.partition = permits, partition

        async def __aenter__(self):
            await self.permits.free.acquire()
            self.permits.holders.append(self.partition)

        async def __aexit__(self, *_):
            self.permits.holders.remove(self.partition)
            self.permits.free.release()


def test_a_permit_is_held_from_before_the_list_until_its_end():
    async def main():
        permits = OnePermit()
        slow = Answer([10.0, *listed(7, A1).pieces])
        first = await Followed(slow, Answer([Never]), permits=permits).until(1.0)
        second = await Followed(listed(7, A1), Answer([Never]), permits=permits).until(2.0)
        assert permits.holders == ["v1/configmaps"]
        assert second.connection.asked == []
        assert second.status.waiting_for_permit
        assert second.status.message == "waits for a permit to list"
        await second.until(11.0)
        assert second.connection.times == [10.0, 10.0]
        assert permits.holders == []
        first.running.cancel()

    run_virtual(main())


def test_a_cancelled_reflector_leaves_its_permit_and_its_request():
    async def main():
        permits = OnePermit()
        followed = await Followed(Answer([Never]), permits=permits).until(1.0)
        followed.running.cancel()
        await asyncio.wait([followed.running])
        assert permits.holders == []
        assert followed.asked[0].left_at == 1.0

    run_virtual(main())


# -- watches -------------------------------------------------------------------------------------------------


def watched(*pieces, then=(), until=1000.0, **settings):
    """A list of a at 1, then a watch of these pieces, then more answers."""
    return follow(listed(1, A1), Answer(list(pieces)), *then, until=until, **settings)


def test_a_watch_is_resumed_where_it_ended():
    followed = watched(line("MODIFIED", A2), 300.0, then=[Answer([line("ADDED", B4), Never])], until=301.0)
    assert followed.held == {"a": 2, "b": 4}
    assert followed.connection.times == [0.0, 0.0, 300.0]
    assert followed.asked[2].query["resourceVersion"] == "2"
    assert followed.status.watch_restarts == {"timeout": 1}
    assert followed.status.lists == {"paged": 1}


def test_a_bookmark_moves_where_the_watch_is_resumed():
    followed = watched(bookmark(50), 10.0, then=[Answer([Never])])
    assert followed.asked[2].query["resourceVersion"] == "50"


def test_a_stream_cut_in_the_middle_is_resumed_after_a_wait():
    followed = watched(line("MODIFIED", A2), 10.0, CUT, then=[Answer([Never])], until=20.0)
    assert followed.connection.times == [0.0, 0.0, 10.8]
    assert followed.asked[2].query["resourceVersion"] == "2"
    assert followed.status.errors == {"connection": 1}


def test_a_truncated_line_is_asked_for_again():
    half = line("MODIFIED", A2)[:60]
    followed = watched(10.0, half, then=[Answer([line("MODIFIED", A2), Never])], until=20.0)
    assert followed.asked[2].query["resourceVersion"] == "1"
    assert followed.held == {"a": 2}
    assert followed.status.watch_restarts == {"truncated": 1}


def test_garbage_ends_the_stream_is_counted_and_loses_nothing():
    broken = line("MODIFIED", A2) + b"garbage\n" + line("ADDED", B4)
    again = Answer([line("MODIFIED", A3), line("ADDED", B4), Never])
    followed = watched(broken, Never, then=[again], until=10.0)
    assert followed.asked[2].query["resourceVersion"] == "2"
    assert followed.connection.times == [0.0, 0.0, 0.8]
    assert followed.held == {"a": 3, "b": 4}
    assert followed.status.errors == {"garbage": 1}
    assert followed.status.watch_restarts == {"garbage": 1}


def test_the_same_garbage_again_and_again_leads_to_a_list():
    bad = Answer([b"garbage\n", Never])
    followed = follow(listed(1, A1), bad, bad, bad, bad, listed(9, A3), Answer([Never]), until=100.0)
    assert followed.held == {"a": 3}
    assert followed.connection.times == [0.0, 0.0, 0.8, 2.4, 5.6, 12.0, 12.0]


def test_an_object_of_ten_megabytes_is_followed():
    large = config_map("b", 4)
    large["data"] = {"blob": "x" * (10 << 20)}
    text = line("ADDED", large)
    chunks = [text[at : at + (256 << 10)] for at in range(0, len(text), 256 << 10)]
    followed = watched(*chunks, line("MODIFIED", config_map("a", 6)), Never, until=1.0)
    assert followed.held == {"a": 6, "b": 4}
    assert len(followed.store.get("alpha/b")) > 10 << 20
    assert followed.status.errors == {}


def test_a_line_longer_than_allowed_is_garbage():
    large = config_map("b", 4)
    large["data"] = {"blob": "x" * 5000}
    followed = watched(line("ADDED", large), Never, then=[Answer([Never])], until=1.0, line_bytes_max=4000)
    assert followed.status.errors == {"garbage": 1}
    assert followed.connection.times == [0.0, 0.0, 0.8]


@pytest.mark.parametrize(
    "expired",
    [
        Answer([line("ERROR", status(410, "too old resource version", reason="Expired"))]),
        declined(410, "too old resource version"),
    ],
    ids=["line", "status"],
)
def test_410_is_answered_by_a_fresh_list_without_an_empty_moment(expired):
    async def main():
        slow = Answer([10.0, *listed(9, B5).pieces])
        followed = await Followed(
            listed(1, A1), Answer([line("ADDED", B4), 20.0]), expired, slow, Answer([Never])
        ).until(25.0)
        assert followed.connection.times == [0.0, 0.0, 20.0, 20.0]
        assert followed.held == {"a": 1, "b": 4}
        assert followed.store.synced
        await followed.until(31.0)
        assert followed.held == {"b": 5}
        assert followed.status.watch_restarts["expired"] == 1

    run_virtual(main())


def test_a_dead_stream_is_reopened_after_its_timeout_and_grace():
    followed = watched(Never, then=[Answer([Never])], until=306.0)
    assert followed.connection.times == [0.0, 0.0, 305.0]
    assert followed.asked[1].left_at == 305.0
    assert followed.status.watch_restarts == {"stalled": 1}


def test_a_head_may_take_as_long_as_the_watch():
    late = Answer([line("MODIFIED", A2), Never], head_after_s=299.0)
    followed = follow(listed(1, A1), late, until=300.0)
    assert followed.held == {"a": 2}


def test_very_short_watches_are_not_opened_in_a_hot_loop():
    followed = watched(then=[Answer([]) for _ in range(4)], until=26.0)
    assert followed.connection.times == [0.0, 0.0, 0.8, 2.4, 5.6, 12.0, 24.8]


@pytest.mark.parametrize("again", [bookmark(1), line("MODIFIED", A1)], ids=["a bookmark", "an old event"])
def test_watches_that_end_at_once_and_bring_only_what_is_known_are_no_hot_loop(again):
    """One line used to be enough for the next watch to be opened without any wait."""
    followed = watched(then=[Answer([again]) for _ in range(4)], until=26.0)
    assert followed.connection.times == [0.0, 0.0, 0.8, 2.4, 5.6, 12.0, 24.8]


def test_watches_that_end_at_once_and_bring_news_go_on_at_once():
    followed = watched(then=[Answer([line("MODIFIED", A2)]), Answer([line("MODIFIED", A3)])], until=26.0)
    assert followed.held == {"a": 3}
    assert followed.connection.times[2:4] == [0.8, 0.8]


@pytest.mark.parametrize(("code", "seconds"), [(429, 7), (503, 3)])
def test_retry_after_is_honoured(code, seconds):
    busy = declined(code, "later", retry_after=str(seconds))
    followed = follow(busy, listed(1, A1), busy, Answer([Never]), until=100.0)
    assert followed.connection.times == [0.0, float(seconds), float(seconds), 2.0 * seconds]


def test_without_retry_after_the_backoff_decides():
    followed = follow(declined(503), declined(500), declined(504), listed(1, A1), Answer([Never]), until=9.0)
    assert followed.connection.times == [0.0, 0.8, 2.4, 5.6, 5.6]
    assert followed.status.errors == {"overloaded": 1, "http_500": 1, "http_504": 1}


def test_a_server_that_is_away_is_asked_with_growing_delays_and_the_status_says_so():
    away = ConnectionFailed("cannot connect to http://127.0.0.1:1/: refused")

    async def main():
        followed = await Followed(*[away] * 8).until(70.0)
        assert followed.connection.times == [0.0, 0.8, 2.4, 5.6, 12.0, 24.8, 39.8, 54.8, 69.8]
        assert followed.status.state == "pending"
        followed.connection.script = [listed(1, A1), Answer([Never])]
        followed.running.cancel()

    run_virtual(main())
    followed = follow(away, until=0.5)
    assert (
        followed.status.message == "cannot connect to http://127.0.0.1:1/: refused; tries again after 0.8 s"
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CertificateRejected("does not verify"), "certificate"),
        (KubeconfigError("the plug-in failed"), "credentials"),
    ],
)
def test_other_failures_to_connect_are_counted_by_their_kind(error, kind):
    followed = follow(error, listed(1, A1), error, Answer([Never]), until=10.0)
    assert followed.status.errors == {kind: 2}
    assert followed.held == {"a": 1}


@pytest.mark.parametrize("code", [401, 403])
def test_refusals_are_reported_and_retried_slowly(code):
    async def main():
        refused = declined(code, "configmaps is forbidden")
        followed = await Followed(*[refused] * 9, listed(1, A1), Answer([Never])).until(200.0)
        assert followed.connection.times == pytest.approx([0, 0.8, 2.4, 5.6, 12, 24.8, 50.4, 101.6, 161.6])
        assert followed.status.state == "refused"
        assert "configmaps is forbidden" in followed.status.message
        await followed.until(222.0)
        assert followed.status.state == "synced"
        assert followed.status.message == ""

    run_virtual(main())


def test_a_watch_that_becomes_forbidden_keeps_what_is_held():
    followed = watched(10.0, then=[declined(403, "not any more")], until=30.0)
    assert followed.status.state == "refused"
    assert followed.held == {"a": 1}


def test_a_vanished_resource_ends_the_reflector():
    gone = Answer([b"404 page not found\n"], 404, {"content-type": "text/plain; charset=utf-8"})
    script = (listed(1, A1), Answer([line("DELETED", A2), 5.0]), gone, gone, gone, gone)

    async def main():
        followed = await Followed(*script).until(30.0)
        assert followed.running.done()
        assert followed.status.state == "gone"
        assert "404 page not found" in followed.status.message
        assert followed.connection.times == [0.0, 0.0, 5.0, 5.8, 7.4, 10.6]
        assert followed.held == {}

    run_virtual(main())


def test_an_error_line_with_429_waits_as_long_as_it_says():
    body = status(429, "too many requests", details={"retryAfterSeconds": 9})
    followed = watched(10.0, line("ERROR", body), then=[Answer([Never])], until=30.0)
    assert followed.connection.times == [0.0, 0.0, 19.0]


# -- covers --------------------------------------------------------------------------------------------------


def test_covers_are_asked_for_in_every_request_and_checked_on_arrival():
    elsewhere = config_map("c", 3, namespace="beta")
    cover = ExceptNamespaces(("beta", "gamma"))
    script = (listed(5, A1, elsewhere), Answer([line("MODIFIED", elsewhere), line("ADDED", B4), Never]))
    followed = follow(*script, until=1.0, cover=cover)
    assert [asked.query["fieldSelector"] for asked in followed.asked] == [
        "metadata.namespace!=beta,metadata.namespace!=gamma"
    ] * 2
    assert followed.store.get("beta/c") is None
    assert followed.store.dropped >= 1


def test_one_namespace_is_asked_for_by_its_path():
    followed = follow(listed(5, A1), Answer([Never]), until=1.0, cover=OneNamespace("alpha"))
    assert [asked.request.path for asked in followed.asked] == ["/api/v1/namespaces/alpha/configmaps"] * 2


def test_an_ignored_shard_selector_is_noticed():
    followed = follow(listed(5, A1), Answer([Never]), until=1.0, cover=HashRange("uid", 0, 1 << 63))
    assert followed.asked[0].query["shardSelector"].startswith("shardRange(object.metadata.uid, '0x0000")
    assert followed.status.errors == {"selector_ignored": 1}


def test_a_cluster_scoped_resource_cannot_be_divided_by_namespaces():
    with pytest.raises(Broken, match="Node has no namespaces"):
        Reflector(
            partition=Partition(NODES.resource, OneNamespace("a")),
            resource_type=NODES,
            connection=ScriptedConnection(),
            store=None,
            decoder=Decoder(NODES),
            permits=NoPermits(),
            settings=WatchSettings(),
            rng=random.Random(),
        )


# -- fairness ------------------------------------------------------------------------------------------------


def test_a_busy_partition_gives_others_their_turn():
    many = b"".join(line("MODIFIED", config_map("a", version)) for version in range(2, 5002))
    assert len(many) > 10 * PIECE_BYTES

    async def main():
        turns, backlogs = 0, []
        followed = await Followed(listed(1, A1), Answer([5.0, many, Never])).until(4.9)

        async def other():
            nonlocal turns
            while followed.store.frontier < 5001:
                turns += 1
                backlogs.append(followed.status.backlog)
                await asyncio.sleep(0)

        await asyncio.sleep(0.1)
        await other()
        assert turns >= len(many) // PIECE_BYTES
        assert max(backlogs) > 4000
        await followed.until(10.0)
        assert followed.status.backlog == 0
        assert followed.held == {"a": 5001}

    run_virtual(main())


def test_a_new_reflector_over_a_store_that_holds_something_only_watches():
    async def main():
        first = await Followed(listed(7, A1), Answer([Never])).until(1.0)
        first.running.cancel()
        await asyncio.wait([first.running])
        second = Followed(Answer([line("ADDED", config_map("b", 8)), Never]), store=first.store)
        await second.until(2.0)
        assert second.asked[0].query["resourceVersion"] == "7"
        assert second.held == {"a": 1, "b": 8}
        assert second.status.lists == {}

    run_virtual(main())
