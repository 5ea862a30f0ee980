"""The query router over shards in memory: completeness, order, snapshots, freshness, and what goes wrong."""

import asyncio
import json

import pytest
from support.clock import run_virtual
from support.local_shards import (
    DEPLOYMENTS,
    NODES,
    PODS,
    WIDGETS,
    LocalInstallation,
    made,
    named,
)
from support.queries import collection_query

from shoal.cluster.query.request import ObjectQuery
from shoal.cluster.query.rerouting import REROUTE_S
from shoal.cluster.query.tokens import Position, decode_token, encode_token
from shoal.shards.model.errors import (
    BadRequest,
    Broken,
    Expired,
    NotFound,
    NotReady,
    NotServed,
    TooLargeVersion,
)
from shoal.shards.model.partitions import Epoch, ExceptNamespaces, HashRange, OneNamespace
from shoal.shards.model.versions import Version


def pod(namespace, name, version=1, **more):
    return made(PODS, name, namespace=namespace, version=version, **more)


def query(namespace=None, resource_type=PODS, **parameters):
    pairs = [(name.rstrip("_"), str(value)) for name, value in parameters.items()]
    return collection_query(resource_type, pairs, namespace=namespace)


async def listed(router, asked):
    """All bodies of a list, and the listing."""
    listing = await router.list(asked)
    try:
        bodies = list(listing.first)
        async for chunk in listing.rest:
            bodies.extend(chunk)
    finally:
        await listing.aclose()
    return bodies, listing


async def paged(router, limit, namespace=None, **parameters):
    """All pages of a list."""
    token, pages = "", []
    while True:
        more = {"continue_": token} if token else {}
        bodies, listing = await listed(router, query(namespace, limit=limit, **more, **parameters))
        pages.append((bodies, listing))
        token = listing.continue_token
        if not token:
            return pages


def keys(bodies):
    return [named(body) for body in bodies]


def carved(shards=3, per_namespace=5, **options):
    """Pods of namespaces a and b in partitions of their own, all others in a third."""
    installation = LocalInstallation(shards, **options)

    def pods(namespace):
        return [pod(namespace, f"web-{number}", labels={"app": "web"}) for number in range(per_namespace)]

    installation.hold(PODS, pods("a"), cover=OneNamespace("a"), shard=0, version=100)
    installation.hold(PODS, pods("b"), cover=OneNamespace("b"), shard=1, version=95)
    installation.hold(PODS, pods("a-b") + pods("c"), cover=ExceptNamespaces(("a", "b")), shard=2, version=98)
    installation.hold(NODES, [made(NODES, "node-1")], shard=0)
    installation.publish()
    return installation


ALL = sorted(f"{namespace}/web-{number}" for namespace in ("a", "a-b", "b", "c") for number in range(5))


# -- get ----------------------------------------------------------------------------------------------------


def test_a_get_asks_the_one_partition_that_can_hold_the_object():
    async def main():
        installation = carved()
        answer = await installation.router.get(
            ObjectQuery(resource=PODS.resource, namespace="b", name="web-1")
        )
        assert named(answer.body) == "b/web-1"
        assert answer.provenance.shards == ("shard-1",)
        assert answer.provenance.frontier == 95
        assert answer.provenance.age_s == 0.25
        assert [len(shard.calls) for shard in installation.shards.values()] == [0, 1, 0]

    run_virtual(main())


def test_a_cluster_scoped_object_is_found():
    async def main():
        answer = await carved().router.get(ObjectQuery(resource=NODES.resource, name="node-1"))
        assert named(answer.body) == "node-1"

    run_virtual(main())


def test_an_object_that_is_not_there_is_the_api_servers_404():
    async def main():
        installation = LocalInstallation()
        installation.hold(DEPLOYMENTS)
        installation.publish()
        with pytest.raises(NotFound) as caught:
            await installation.router.get(ObjectQuery(resource=DEPLOYMENTS.resource, namespace="a", name="x"))
        assert caught.value.message == 'deployments.apps "x" not found'
        assert caught.value.details == {"name": "x", "group": "apps", "kind": "deployments"}

    run_virtual(main())


def test_of_an_object_in_two_uid_ranges_the_newer_is_got():
    async def main():
        for versions in ((3, 8), (8, 3)):
            installation = LocalInstallation()
            for shard, (low, high) in enumerate(((0, 1 << 63), (1 << 63, 1 << 64))):
                installation.hold(
                    PODS,
                    [pod("a", "x", versions[shard])],
                    cover=HashRange("uid", low, high),
                    shard=shard,
                )
            installation.publish()
            answer = await installation.router.get(
                ObjectQuery(resource=PODS.resource, namespace="a", name="x")
            )
            assert json.loads(answer.body)["metadata"]["resourceVersion"] == "8"
            assert answer.provenance.shards == ("shard-0", "shard-1")
            bodies, _ = await listed(installation.router, query())
            assert [json.loads(body)["metadata"]["resourceVersion"] for body in bodies] == ["8"]

    run_virtual(main())


# -- list ---------------------------------------------------------------------------------------------------


def test_a_list_over_partitions_is_complete_in_order_and_claims_the_oldest_frontier():
    async def main():
        bodies, listing = await listed(carved().router, query())
        assert keys(bodies) == ALL
        assert listing.version == 95
        assert listing.provenance.shards == ("shard-0", "shard-1", "shard-2")
        assert listing.continue_token == ""
        assert listing.remaining is None

    run_virtual(main())


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 19, 20, 21, 500])
def test_pages_together_are_the_list(limit):
    async def main():
        pages = await paged(carved().router, limit)
        assert [key for bodies, _ in pages for key in keys(bodies)] == ALL
        assert all(len(bodies) == limit for bodies, _ in pages[:-1])
        left = 20
        for bodies, listing in pages:
            left -= len(bodies)
            assert listing.remaining == (left or None)
            assert listing.version == 95

    run_virtual(main())


def test_a_page_over_many_partitions_fetches_little_more_than_a_page():
    async def main():
        step = (1 << 64) // 8
        installation = LocalInstallation(1)
        for at in range(8):
            pods = [pod("a", f"web-{number:04}") for number in range(at, 1600, 8)]
            installation.hold(PODS, pods, cover=HashRange("uid", at * step, (at + 1) * step))
        installation.publish()
        shard = installation.shards["shard-0"]
        bodies, listing = await listed(installation.router, query(limit=400))
        assert keys(bodies) == [f"a/web-{number:04}" for number in range(400)]
        assert (listing.remaining, sum(asked.limit for asked in shard.calls)) == (1200, 8 * 78)
        # One that has them all is asked for the rest alone.
        shard.calls.clear()
        for held in list(shard.partitions.values())[1:]:
            held.put(version=101, without=list(held.states[-1][1]))
        bodies, _ = await listed(installation.router, query(limit=100))
        assert keys(bodies) == [f"a/web-{number:04}" for number in range(0, 800, 8)]
        assert len(shard.calls) == 9

    run_virtual(main())


@pytest.mark.parametrize(
    ("namespace", "parameters", "shards"),
    [
        ("a", {}, [0]),
        ("zzz", {}, [2]),
        (None, {"fieldSelector": "metadata.namespace=b"}, [1]),
        (None, {"fieldSelector": "metadata.namespace!=b"}, [0, 2]),
        (None, {"fieldSelector": "metadata.namespace!=c"}, [0, 1, 2]),
        ("a", {"fieldSelector": "metadata.namespace=b"}, [0]),
    ],
)
def test_only_shards_that_can_hold_an_answer_are_asked(namespace, parameters, shards):
    async def main():
        installation = carved()
        await listed(installation.router, query(namespace, **parameters))
        asked = [at for at, shard in enumerate(installation.shards.values()) if shard.calls]
        assert asked == shards

    run_virtual(main())


def test_a_namespace_without_objects_is_an_empty_list_with_a_version():
    async def main():
        bodies, listing = await listed(carved().router, query("zzz"))
        assert bodies == []
        assert listing.version == 98

    run_virtual(main())


def test_with_a_selector_the_number_that_remains_is_not_said():
    async def main():
        ((bodies, listing), *_) = await paged(carved().router, 3, labelSelector="app=web")
        assert len(bodies) == 3
        assert listing.remaining is None
        assert listing.continue_token

    run_virtual(main())


def test_pages_are_one_state_whatever_happens_meanwhile():
    async def main():
        installation = carved()
        first, listing = await listed(installation.router, query(limit=4))
        for shard, namespace in ((0, "a"), (1, "b")):
            partition = installation.shards[f"shard-{shard}"].partitions[f"v1/pods[{namespace}]"]
            partition.put(pod(namespace, "zz-new", 200), version=200, without=[f"{namespace}/web-4"])
        rest, last = await listed(installation.router, query(continue_=listing.continue_token))
        assert keys(first + rest) == ALL
        assert last.version == 95
        fresh, _ = await listed(installation.router, query())
        assert "a/zz-new" in keys(fresh)
        assert "b/web-4" not in keys(fresh)

    run_virtual(main())


def test_an_expired_token_offers_to_go_on_inconsistently():
    async def main():
        installation = carved()
        first, listing = await listed(installation.router, query(limit=4))
        partition = installation.shards["shard-1"].partitions["v1/pods[b]"]
        partition.put(pod("b", "web-9", 200), version=200)
        partition.forget(before=200)
        with pytest.raises(Expired) as caught:
            await installation.router.list(query(limit=100, continue_=listing.continue_token))
        goes_on = caught.value.metadata["continue"]
        rest, last = await listed(installation.router, query(limit=5, continue_=goes_on))
        # The next pages are one state again, that of the first page after the interruption.
        following, _ = await listed(installation.router, query(limit=100, continue_=last.continue_token))
        assert keys(first + rest + following) == sorted([*ALL, "b/web-9"])

    run_virtual(main())


def test_a_token_from_before_a_resource_was_divided_anew_is_expired():
    async def main():
        installation = carved()
        _, listing = await listed(installation.router, query(limit=4))
        installation.hold(PODS, cover=OneNamespace("c"), shard=0)
        installation.publish()
        with pytest.raises(Expired) as caught:
            await installation.router.list(query(continue_=listing.continue_token))
        asked = query()
        assert decode_token(caught.value.metadata["continue"], asked.fingerprint).pins == {}

    run_virtual(main())


def test_a_token_of_newer_routes_waits_for_them():
    async def main():
        installation = carved()
        following = asyncio.create_task(installation.routing.run())
        other = carved()
        other.publish(epoch=7)
        _, newer = await listed(other.router, query(limit=4))
        asyncio.get_running_loop().call_later(0.5, installation.coordinator.publish, installation.table(7))
        bodies, _ = await listed(installation.router, query(continue_=newer.continue_token))
        assert installation.routing.table.epoch == 7
        assert len(bodies) == 16
        following.cancel()

    run_virtual(main())


def test_a_token_of_another_list_is_refused():
    async def main():
        router = carved().router
        _, listing = await listed(router, query(limit=4))
        with pytest.raises(BadRequest, match="belongs to a list of another"):
            await router.list(query("a", continue_=listing.continue_token))

    run_virtual(main())


def test_an_age_that_a_shard_does_not_say_is_not_made_up():
    async def main():
        installation = carved()
        installation.shards["shard-0"].age_s = 7.0
        _, listing = await listed(installation.router, query())
        assert listing.provenance.age_s == 7.0
        installation.shards["shard-1"].age_s = None
        _, listing = await listed(installation.router, query())
        assert listing.provenance.age_s is None

    run_virtual(main())


def test_a_long_list_is_streamed_page_by_page_and_buffers_one_of_each_partition():
    async def main():
        installation = LocalInstallation(2)
        per = 2500
        for shard, namespace in enumerate(("a", "b")):
            installation.hold(
                PODS,
                [pod(namespace, f"web-{number:05}") for number in range(per)],
                cover=OneNamespace(namespace),
                shard=shard,
            )
        installation.hold(PODS, cover=ExceptNamespaces(("a", "b")), shard=0)
        installation.publish()
        listing = await installation.router.list(query())
        assert not listing.complete
        sizes = [len(listing.first)]
        sizes.extend([len(chunk) async for chunk in listing.rest])
        assert sum(sizes) == 2 * per
        assert max(sizes) <= 2000
        assert [shard.open_streams for shard in installation.shards.values()] == [0, 0]

    run_virtual(main())


def test_a_list_that_is_given_up_half_way_leaves_nothing_open():
    async def main():
        installation = LocalInstallation(1)
        installation.hold(PODS, [pod("a", f"web-{number:05}") for number in range(5000)])
        installation.publish()
        listing = await installation.router.list(query())
        assert installation.shards["shard-0"].open_streams == 1
        await listing.aclose()
        await listing.aclose()
        assert installation.shards["shard-0"].open_streams == 0

    run_virtual(main())


# -- versions -----------------------------------------------------------------------------------------------


def test_an_exact_version_is_answered_from_history():
    async def main():
        installation = LocalInstallation(1)
        held = installation.hold(PODS, [pod("a", "old", 90)], version=100)
        installation.publish()
        held.put(pod("a", "new", 110), version=110)
        bodies, listing = await listed(
            installation.router, query(resourceVersion=105, resourceVersionMatch="Exact")
        )
        assert keys(bodies) == ["a/old"]
        assert listing.version == 105
        held.forget(before=110)
        with pytest.raises(Expired) as caught:
            await installation.router.list(query(resourceVersion=105, resourceVersionMatch="Exact"))
        assert caught.value.message == "The resourceVersion for the provided list is too old."
        assert caught.value.metadata == {}

    run_virtual(main())


def test_a_version_to_come_is_waited_for_by_every_partition():
    async def main():
        installation = carved()
        loop = asyncio.get_running_loop()
        partitions = [next(iter(shard.partitions.values())) for shard in installation.shards.values()]
        for at, partition in enumerate(partitions):
            loop.call_later(0.5 * (at + 1), lambda held=partition: held.put(version=120))
        _, listing = await listed(installation.router, query(resourceVersion=110))
        assert listing.version == 120
        assert loop.time() == pytest.approx(1.5)

    run_virtual(main())


@pytest.mark.parametrize("parameters", [{}, {"resourceVersionMatch": "Exact"}, {"limit": 5}])
def test_a_version_that_is_not_reached_in_three_seconds_is_too_large(parameters):
    async def main():
        with pytest.raises(TooLargeVersion, match="Too large resource version: 5000, current: "):
            await carved().router.list(query(resourceVersion=5000, **parameters))
        assert asyncio.get_running_loop().time() == pytest.approx(3.0)
        with pytest.raises(TooLargeVersion):
            await carved().router.get(
                ObjectQuery(resource=PODS.resource, namespace="a", name="x", resource_version="5000")
            )

    run_virtual(main())


# -- what goes wrong ----------------------------------------------------------------------------------------


def test_an_unknown_resource_is_not_found():
    async def main():
        installation = carved()
        for asked in (
            installation.router.list(query(resource_type=WIDGETS)),
            installation.router.get(ObjectQuery(resource=WIDGETS.resource, namespace="a", name="x")),
        ):
            with pytest.raises(NotFound, match="could not find the requested resource") as caught:
                await asked
            assert caught.value.status()["details"] == {}

    run_virtual(main())


def test_a_resource_nobody_has_yet_is_not_ready_rather_than_empty():
    async def main():
        installation = carved()
        installation.catalogue.append(DEPLOYMENTS)
        installation.publish()
        with pytest.raises(NotReady, match="apps/v1/deployments is with no shard yet"):
            await installation.router.list(query(resource_type=DEPLOYMENTS))

    run_virtual(main())


@pytest.mark.parametrize("parameters", [{}, {"limit": 5}])
def test_a_shard_that_does_not_answer_is_an_error_that_names_it(parameters):
    async def main():
        installation = carved(shard_timeout_s=2.0)
        installation.shards["shard-1"].silent = True
        with pytest.raises(NotReady, match=r"shard shard-1 did not answer within 2 s") as caught:
            await installation.router.list(query(**parameters))
        assert caught.value.retry_after_s == 1
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)
        assert [shard.open_streams for shard in installation.shards.values()] == [0, 0, 0]
        bodies, _ = await listed(installation.router, query("a", **parameters))
        assert len(bodies) == 5

    run_virtual(main())


def test_a_shard_that_is_not_running_is_an_error_that_names_it():
    async def main():
        installation = carved()
        installation.away.add("shard-2")
        with pytest.raises(NotReady, match="shard-2 is not running"):
            await installation.router.list(query())

    run_virtual(main())


def test_a_stream_that_ends_early_is_taken_up_again():
    async def main():
        installation = long_list(lambda *_: None)
        shard = installation.shards["shard-0"]
        whole = shard.stream
        opened = []

        async def cut_off(asked):
            opened.append(asked.after)
            pages = whole(asked)
            yield await anext(pages)
            await pages.aclose()

        shard.stream = cut_off
        bodies, _ = await listed(installation.router, query())
        assert keys(bodies) == [f"a/web-{number:05}" for number in range(3500)]
        assert opened == ["", *(f"a/web-{at:05}" for at in range(249, 3499, 250))]

    run_virtual(main())


def test_a_partition_that_is_not_synced_is_not_ready():
    async def main():
        installation = carved()
        next(iter(installation.shards["shard-0"].partitions.values())).state = "pending"
        with pytest.raises(NotReady, match="not synced yet") as caught:
            await installation.router.list(query())
        assert caught.value.retry_after_s == 1

    run_virtual(main())


def test_a_partition_that_moved_is_found_with_newer_routes():
    async def main():
        installation = carved()
        following = asyncio.create_task(installation.routing.run())
        installation.move(0, to=2)
        asyncio.get_running_loop().call_later(
            0.3, lambda: installation.coordinator.publish(installation.table(2))
        )
        bodies, listing = await listed(installation.router, query())
        assert keys(bodies) == ALL
        assert listing.provenance.shards == ("shard-1", "shard-2")
        assert asyncio.get_running_loop().time() == pytest.approx(0.3)
        answer = await installation.router.get(
            ObjectQuery(resource=PODS.resource, namespace="a", name="web-0")
        )
        assert answer.provenance.shards == ("shard-2",)
        following.cancel()

    run_virtual(main())


def test_a_partition_nobody_serves_is_not_ready_after_some_seconds():
    async def main():
        installation = carved()
        installation.shards["shard-1"].partitions.clear()
        began = asyncio.get_running_loop().time()
        with pytest.raises(NotReady, match=r"partition v1/pods\[b\] is with no shard at the moment"):
            await installation.router.list(query("b"))
        assert asyncio.get_running_loop().time() - began == pytest.approx(REROUTE_S)
        assert len(installation.shards["shard-1"].calls) == 6

    run_virtual(main())


def test_old_routes_are_refreshed_even_if_another_shard_is_not_ready():
    async def main():
        installation = carved()
        installation.shards["shard-0"].raises.append(NotReady("starting"))
        installation.shards["shard-1"].raises.append(NotServed("v1/pods[b]", 1))
        bodies, _ = await listed(installation.router, query())
        assert keys(bodies) == ALL

    run_virtual(main())


def long_list(on_page):
    installation = LocalInstallation(2)
    held = installation.hold(PODS, [pod("a", f"web-{number:05}") for number in range(3500)], version=100)
    installation.publish()
    installation.shards["shard-0"].on_page = lambda sent: on_page(installation, held, sent)
    return installation


def test_a_list_goes_on_where_the_partition_moved_to_at_the_same_state():
    async def main():
        def moves(installation, held, sent):
            if sent == 2:
                held.put(pod("a", "zz-new", 200), version=200)
                installation.move(0, to=1)
                installation.publish()
                installation.shards["shard-0"].raises.append(NotServed("v1/pods", 2))

        installation = long_list(moves)
        bodies, listing = await listed(installation.router, query())
        assert keys(bodies) == [f"a/web-{number:05}" for number in range(3500)]
        assert listing.version == 100
        assert installation.shards["shard-1"].calls[0].at == Version(100)

    run_virtual(main())


def test_a_list_whose_state_is_lost_half_way_ends_with_an_error():
    async def main():
        def dies(installation, held, sent):
            if sent == 2:
                held.put(version=200)
                held.forget(before=200)
                installation.shards["shard-0"].raises.append(NotReady("killed"))

        installation = long_list(dies)
        with pytest.raises(Expired):
            await listed(installation.router, query())
        assert installation.shards["shard-0"].open_streams == 0

    run_virtual(main())


def test_a_bug_in_one_shard_is_not_hidden_by_the_others():
    async def main():
        installation = carved()
        installation.shards["shard-0"].raises.append(Broken("index and store differ"))
        with pytest.raises(Broken):
            await installation.router.list(query())

    run_virtual(main())


def test_before_the_first_routes_a_query_waits_a_moment_for_them():
    async def main():
        installation = carved()
        fresh = LocalInstallation(3)
        fresh.shards = installation.shards
        following = asyncio.create_task(fresh.routing.run())
        asyncio.get_running_loop().call_later(0.2, fresh.coordinator.publish, installation.table(1))
        bodies, _ = await listed(fresh.router, query())
        assert keys(bodies) == ALL
        following.cancel()

    run_virtual(main())


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("garbage", "invalid character '\\u0081' looking for beginning of value"),
        ("bogus", "illegal base64 data at input byte 4"),
        ("gar*bage", "illegal base64 data at input byte 3"),
        ("e30", "it was not made here, or was changed"),
        ("Jw", "invalid character '\\'' looking for beginning of value"),
        ("AA", "invalid character '\\x00' looking for beginning of value"),
        ("Bw", "invalid character '\\a' looking for beginning of value"),
        ("IA", "unexpected end of JSON input"),
    ],
)
async def test_a_bad_token_is_refused_in_the_words_of_the_api_server(token, problem):
    built = LocalInstallation(1)
    built.hold(PODS)
    built.publish()
    with pytest.raises(BadRequest) as refused:
        await built.router.list(collection_query(PODS, [("continue", token)]))
    start = "invalid continue token: continue key is not valid: "
    assert str(refused.value) == start + problem


def test_the_spare_bits_of_a_token_count():
    fingerprint = b"12345678"
    token = next(
        token
        for after in ("a", "ab", "abc")
        if len(token := encode_token(Position(Epoch(1), after), fingerprint)) % 4 == 2
    )
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = token[:-1] + alphabet[alphabet.index(token[-1]) + 1]
    with pytest.raises(BadRequest, match="continue key is not valid"):
        decode_token(other, fingerprint)
