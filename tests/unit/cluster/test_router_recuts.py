"""Queries while partitions move and resources are divided anew: nobody is refused, and pages stay one state."""

import asyncio

import pytest
from support.carved import keys, listed, pod, query
from support.clock import run_virtual
from support.divided import divide
from support.local_shards import PODS, LocalInstallation

from shoal.cluster.query.request import ObjectQuery
from shoal.cluster.query.rerouting import REFRESH_S, REROUTE_S
from shoal.cluster.query.tokens import Position, decode_token, encode_token
from shoal.coordinator.cuts import WHOLE, Cut, even_bounds
from shoal.shards.model.errors import Expired, NotReady, NotServed, RetryLater
from shoal.shards.model.partitions import Epoch, PartitionId

POD = PODS.resource
BY_UID = WHOLE.split_rest("uid", even_bounds(3))
BY_NAMESPACE = WHOLE.split_rest("namespace", even_bounds(2))
CARVED = WHOLE.carve("a").carve("b")
A_IN_RANGES = WHOLE.split_namespace("a", even_bounds(2))
CUTS = (WHOLE, BY_UID, BY_NAMESPACE, CARVED, A_IN_RANGES)
ALL = sorted(f"{namespace}/web-{number}" for namespace in ("a", "a-b", "b", "c") for number in range(8))


def filled(cut: Cut, **options) -> LocalInstallation:
    """Pods of four namespaces, all at version 100, divided like that."""
    installation = LocalInstallation(3, **options)
    pods = [pod(*key.split("/"), labels={"number": key[-1]}) for key in ALL]
    installation.hold(PODS, pods)
    divide(installation, PODS, cut)
    installation.publish()
    return installation


def parts(installation):
    return {name: held for shard in installation.shards.values() for name, held in shard.partitions.items()}


def write(installation, version):
    """Everybody has moved on: one object more, and another one less."""
    for partition, held in parts(installation).items():
        cover = next(
            route.partition.cover for route in installation.routes if route.partition.id == partition
        )
        new = pod("a", "zz-new", version)
        added = [new] if cover.admits("a", f"uid-a-zz-new-{version}") else []
        gone = [key for key in held.states[-1][1] if key == "c/web-7"]
        held.put(*added, version=version, without=gone)


@pytest.mark.parametrize("after", CUTS, ids=str)
@pytest.mark.parametrize("before", CUTS, ids=str)
def test_pages_are_one_state_whatever_the_resource_is_divided_into_between_them(before, after):
    async def main():
        installation = filled(before)
        found, listing = await listed(installation.router, query(limit=5))
        versions, remaining = {listing.version}, [listing.remaining]
        write(installation, 200)
        divide(installation, PODS, after)
        installation.publish()
        while listing.continue_token:
            page, listing = await listed(
                installation.router, query(limit=5, continue_=listing.continue_token)
            )
            found += page
            versions.add(listing.version)
            remaining.append(listing.remaining)
        assert keys(found) == ALL
        assert versions == {100}
        assert remaining == [27, 22, 17, 12, 7, 2, None]

    run_virtual(main())


def test_parts_at_different_versions_that_are_joined_are_no_one_state():
    async def main():
        installation = filled(CARVED)
        parts(installation)["v1/pods[b]"].put(pod("b", "web-0", 120), version=120)
        _, listing = await listed(installation.router, query(limit=5))
        assert listing.version == 100
        asked = query(limit=50, continue_=listing.continue_token)
        divide(installation, PODS, WHOLE.carve("a"))
        installation.publish()
        with pytest.raises(Expired) as caught:
            await installation.router.list(asked)
        goes_on = caught.value.metadata["continue"]
        assert decode_token(goes_on, asked.fingerprint).pins == {}
        rest, _ = await listed(installation.router, query(limit=50, continue_=goes_on))
        assert keys(rest) == ALL[5:]

    run_virtual(main())


def test_parts_at_different_versions_that_are_only_split_go_on():
    async def main():
        installation = filled(CARVED)
        parts(installation)["v1/pods[b]"].put(pod("b", "web-0", 120), version=120)
        found, listing = await listed(installation.router, query(limit=5))
        divide(
            installation,
            PODS,
            CARVED.split_namespace("b", even_bounds(2)).split_rest("namespace", even_bounds(2)),
        )
        installation.publish()
        asked = query(limit=15, continue_=listing.continue_token)
        page, listing = await listed(installation.router, asked)
        pins = decode_token(listing.continue_token, asked.fingerprint).pins
        assert sorted(pins.values()) == [100, 100, 100, 120, 120]
        rest, _ = await listed(installation.router, query(limit=50, continue_=listing.continue_token))
        assert keys(found + page + rest) == ALL

    run_virtual(main())


def test_a_list_of_one_namespace_goes_on_where_that_namespace_is_now():
    async def main():
        installation = filled(CARVED)
        parts(installation)["v1/pods[b]"].put(pod("b", "web-0", 120), version=120)
        found, listing = await listed(installation.router, query("a", limit=3))
        divide(installation, PODS, WHOLE)
        installation.publish()
        rest, _ = await listed(installation.router, query("a", limit=50, continue_=listing.continue_token))
        assert keys(found + rest) == [key for key in ALL if key.startswith("a/")]

    run_virtual(main())


def test_what_a_partial_list_goes_on_without_stays_missing():
    async def main():
        installation = filled(CARVED)
        shard = next(route.shard for route in installation.routes if route.partition.id == "v1/pods[b]")
        installation.away.add(shard)
        gone = {route.partition.id for route in installation.routes if route.shard == shard}
        _, listing = await listed(installation.router, query(limit=3), partial=True)
        assert set(listing.provenance.missing_partitions) == gone
        installation.away.clear()
        divide(installation, PODS, CARVED.split_namespace("b", even_bounds(2)))
        installation.publish()
        asked = query(limit=3, continue_=listing.continue_token)
        page, listing = await listed(installation.router, asked, partial=True)
        assert len(listing.provenance.missing_partitions) == 2
        assert all(name.startswith("v1/pods[b:uid:") for name in listing.provenance.missing_partitions)
        # Joined with what is there, all of it is missing: the page says so.
        divide(installation, PODS, WHOLE.carve("a"))
        installation.publish()
        asked = query(limit=50, continue_=listing.continue_token)
        rest, listing = await listed(installation.router, asked, partial=True)
        assert listing.provenance.missing_partitions == ("v1/pods[!a]",)
        assert all(key.startswith(("a/", "a-b/")) for key in keys(page + rest))

    run_virtual(main())


def test_a_token_that_names_what_is_no_partition_is_expired():
    async def main():
        installation = filled(WHOLE)
        asked = query(limit=5)
        token = encode_token(Position(Epoch(1), "a/x", {PartitionId("nonsense"): 100}), asked.fingerprint)
        with pytest.raises(Expired):
            await installation.router.list(query(limit=5, continue_=token))

    run_virtual(main())


# -- while it happens --------------------------------------------------------------------------------------------

VERBS = {
    "get": lambda router: router.get(ObjectQuery(resource=POD, namespace="a", name="web-3")),
    "list": lambda router: listed(router, query()),
    "one page": lambda router: listed(router, query(limit=20)),
    "one namespace": lambda router: listed(router, query("a")),
    "exact": lambda router: listed(router, query(resourceVersion=100, resourceVersionMatch="Exact")),
    "count": lambda router: router.count(query()),
    "groups": lambda router: router.count(query(), group_by="metadata.namespace"),
    "partial list": lambda router: listed(router, query(), partial=True),
    "partial count": lambda router: router.count(query(), partial=True),
}


def content(answer):
    """What of an answer does not depend on who gave it."""
    match answer:
        case (bodies, listing):
            return keys(bodies), listing.version, listing.remaining, listing.provenance.partial
        case _:
            return (
                getattr(answer, "body", None),
                getattr(answer, "count", None),
                getattr(answer, "groups", None),
            )


@pytest.mark.parametrize("late_s", [0.0, 0.6], ids=["at once", "a moment later"])
@pytest.mark.parametrize("after", [WHOLE, BY_UID, CARVED, A_IN_RANGES], ids=str)
@pytest.mark.parametrize("verb", VERBS)
def test_a_query_that_meets_a_shard_without_its_partition_is_asked_anew(verb, after, late_s):
    """Old shards have let go, and the router has not heard of it; of some only a part of the fan-out is outdated."""

    async def main():
        installation = filled(BY_NAMESPACE)
        wanted = content(await VERBS[verb](installation.router))
        following = asyncio.create_task(installation.routing.run())
        await asyncio.sleep(0.1)
        divide(installation, PODS, after)
        for shard in installation.shards.values():
            shard.epoch = Epoch(2)
        asyncio.get_running_loop().call_later(late_s, installation.coordinator.publish, installation.table())
        assert content(await VERBS[verb](installation.router)) == wanted
        following.cancel()

    run_virtual(main())


def test_several_divisions_one_after_the_other_refuse_nobody():
    async def main():
        installation = filled(WHOLE)
        following = asyncio.create_task(installation.routing.run())
        for shard in installation.shards.values():
            shard.delay_s = 0.2  # a query takes longer than a division lasts

        async def dividing():
            for cut in (BY_UID, CARVED, BY_NAMESPACE, A_IN_RANGES) * 2:
                divide(installation, PODS, cut)
                await asyncio.sleep(0.05)
                installation.publish()
                await asyncio.sleep(0.1)

        under_way = asyncio.create_task(dividing())
        for _ in range(4):
            bodies, _ = await listed(installation.router, query(limit=100))
            assert keys(bodies) == ALL
            assert (await installation.router.count(query())).count == len(ALL)
        await under_way
        following.cancel()

    run_virtual(main())


@pytest.mark.parametrize("verb", ["get", "list", "count"])
def test_who_waits_for_news_at_a_shard_that_stands_still_gets_them_from_its_successor(verb):
    async def main():
        installation = filled(WHOLE)
        following = asyncio.create_task(installation.routing.run())
        old = dict(installation.shards["shard-0"].partitions)
        newer = {
            "get": lambda: installation.router.get(
                ObjectQuery(resource=POD, namespace="a", name="web-3", resource_version="150")
            ),
            "list": lambda: listed(installation.router, query(resourceVersion=150)),
            "count": lambda: installation.router.count(query(resourceVersion=150)),
        }[verb]
        asking = asyncio.create_task(newer())
        await asyncio.sleep(1.0)
        divide(installation, PODS, BY_UID)
        write(installation, 160)
        installation.shards["shard-0"].partitions |= old  # it goes on serving what it had
        installation.publish()
        answer = await asking
        told = answer[1] if verb == "list" else answer
        assert told.provenance.frontier == 160
        following.cancel()

    run_virtual(main())


def test_a_shard_that_stands_still_may_keep_a_query_waiting_for_long_and_still_nobody_is_refused():
    async def main():
        installation = filled(WHOLE)
        following = asyncio.create_task(installation.routing.run())
        shard = installation.shards["shard-0"]
        shard.delay_s = REROUTE_S + 1.0
        shard.raises.append(NotServed("v1/pods", 1))
        asking = asyncio.create_task(installation.router.count(query()))
        await asyncio.sleep(REROUTE_S)
        divide(installation, PODS, BY_UID)
        installation.publish()
        shard.delay_s = 0.0
        assert (await asking).count == len(ALL)
        following.cancel()

    run_virtual(main())


def test_a_query_fails_with_its_own_error_while_nothing_has_moved():
    async def main():
        installation = filled(BY_UID)
        installation.away.add("shard-1")
        began = asyncio.get_running_loop().time()
        with pytest.raises(NotReady, match="shard-1 is not running"):
            await installation.router.list(query())
        assert asyncio.get_running_loop().time() == began

    run_virtual(main())


def test_a_partition_that_is_with_nobody_for_a_moment_is_waited_for():
    async def main():
        installation = filled(WHOLE)
        shard = installation.shards["shard-0"]
        held, shard.partitions = shard.partitions, {}
        asyncio.get_running_loop().call_later(REROUTE_S / 2, lambda: shard.partitions.update(held))
        assert (await installation.router.count(query())).count == len(ALL)

    run_virtual(main())


def test_where_a_partial_answer_will_do_nobody_waits_longer_than_for_routes():
    async def main():
        installation = filled(CARVED)
        shard = next(one for one in installation.shards.values() if "v1/pods[b]" in one.partitions)
        del shard.partitions[PartitionId("v1/pods[b]")]
        began = asyncio.get_running_loop().time()
        answer = await installation.router.count(query(), partial=True)
        assert answer.provenance.missing_partitions == ("v1/pods[b]",)
        assert asyncio.get_running_loop().time() - began == pytest.approx(REFRESH_S)

    run_virtual(main())


def test_a_page_is_planned_anew_if_its_partition_goes_between_two_rounds():
    async def main():
        installation = filled(CARVED)
        following = asyncio.create_task(installation.routing.run())
        shard = next(one for one in installation.shards.values() if "v1/pods[a]" in one.partitions)
        page, rounds = shard.page, []

        async def dividing_after_the_first(asked):
            answer = await page(asked)
            if asked.partition == "v1/pods[a]" and not rounds:
                rounds.append(asked)
                asyncio.get_running_loop().call_soon(divide, installation, PODS, BY_UID)
                asyncio.get_running_loop().call_later(0.1, installation.publish)
            return answer

        shard.page = dividing_after_the_first
        # Namespace a alone has less than the page takes, so others are asked for more.
        bodies, listing = await listed(installation.router, query(limit=31))
        assert keys(bodies) == ALL[:31]
        assert listing.remaining == 1
        assert rounds
        following.cancel()

    run_virtual(main())


def long_list(cut):
    installation = LocalInstallation(3)
    installation.hold(PODS, [pod("a", f"web-{number:04}") for number in range(2000)])
    divide(installation, PODS, cut)
    installation.publish()
    return installation


def test_a_long_list_goes_on_where_its_partition_has_moved():
    async def main():
        installation = long_list(WHOLE)
        following = asyncio.create_task(installation.routing.run())
        listing = await installation.router.list(query())
        bodies = list(listing.first)
        held = installation.shards["shard-0"]
        held.raises.append(NotServed("v1/pods", 2))
        installation.move(0, 2)
        installation.shards["shard-2"].partitions["v1/pods"].put(version=200, without=["a/web-1999"])
        installation.publish()
        async for chunk in listing.rest:
            bodies += chunk
        assert len(keys(bodies)) == 2000
        assert listing.version == 100
        await listing.aclose()
        following.cancel()

    run_virtual(main())


def test_a_long_list_that_loses_a_partition_for_good_breaks_off_and_never_looks_complete():
    async def main():
        installation = long_list(WHOLE)
        following = asyncio.create_task(installation.routing.run())
        listing = await installation.router.list(query())
        installation.shards["shard-0"].raises.append(NotServed("v1/pods", 2))
        divide(installation, PODS, BY_UID)
        installation.publish()
        with pytest.raises(RetryLater):
            async for _ in listing.rest:
                pass
        await listing.aclose()
        following.cancel()

    run_virtual(main())
