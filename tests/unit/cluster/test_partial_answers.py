"""Answers without the shards that do not answer: only to who asks for such, never without saying so."""

import asyncio

import pytest
from support.carved import ALL, carved, keys, listed, pod, query
from support.clock import run_virtual
from support.local_shards import PODS, LocalInstallation, named

from shoal.cluster.query.request import ObjectQuery
from shoal.shards.model.errors import BadRequest, Expired, NotReady, NotServed, TooLargeVersion
from shoal.shards.model.partitions import HashRange, OneNamespace

WITHOUT_B = [key for key in ALL if not key.startswith("b/")]
B = "v1/pods[b]"


@pytest.mark.parametrize("parameters", [{}, {"limit": 500}])
def test_a_shard_that_is_away_is_left_out_and_named(parameters):
    async def main():
        installation = carved()
        installation.away.add("shard-1")
        bodies, listing = await listed(installation.router, query(**parameters), partial=True)
        assert keys(bodies) == WITHOUT_B
        assert listing.provenance.shards == ("shard-0", "shard-2")
        assert listing.provenance.missing == ("shard-1",)
        assert listing.provenance.missing_partitions == (B,)
        assert listing.provenance.partial
        assert listing.version == 98, "of what is there"
        assert set(listing.positions) == {"v1/pods[a]", "v1/pods[!a,b]"}
        with pytest.raises(NotReady, match="shard-1") as caught:
            await listed(installation.router, query(**parameters))
        assert caught.value.retry_after_s == 1

    run_virtual(main())


def test_a_complete_answer_names_nothing_missing():
    async def main():
        bodies, listing = await listed(carved().router, query(), partial=True)
        assert keys(bodies) == ALL
        assert (listing.provenance.missing, listing.provenance.partial) == ((), False)

    run_virtual(main())


def test_a_shard_that_is_silent_is_left_out_after_its_time():
    async def main():
        installation = carved(shard_timeout_s=2.0)
        router = installation.router
        installation.shards["shard-1"].silent = True
        bodies, _ = await listed(router, query(), partial=True)
        assert (keys(bodies), asyncio.get_running_loop().time()) == (WITHOUT_B, pytest.approx(2.0))

    run_virtual(main())


def test_a_partition_that_is_not_synced_or_nowhere_is_left_out():
    async def main():
        installation = carved()
        installation.shards["shard-1"].partitions[B].state = "pending"
        bodies, _ = await listed(installation.router, query(), partial=True)
        assert keys(bodies) == WITHOUT_B
        installation.shards["shard-1"].partitions.clear()
        bodies, listing = await listed(installation.router, query(), partial=True)
        assert keys(bodies) == WITHOUT_B
        assert listing.provenance.missing_partitions == (B,)
        assert installation.shards["shard-1"].calls[-1].partition == B, "asked again with the newest routes"

    run_virtual(main())


def test_old_routes_are_refreshed_before_anything_is_left_out():
    async def main():
        installation = carved()
        installation.shards["shard-1"].raises.append(NotServed(B, 1))
        bodies, listing = await listed(installation.router, query(), partial=True)
        assert (keys(bodies), listing.provenance.missing) == (ALL, ())

    run_virtual(main())


def test_nothing_at_all_is_no_answer():
    async def main():
        installation = carved()
        installation.away |= {"shard-0", "shard-1", "shard-2"}
        for asked in (query(), query(limit=3), query("b")):
            with pytest.raises(NotReady):
                await installation.router.list(asked, partial=True)
        with pytest.raises(NotReady):
            await installation.router.count(query(), partial=True)

    run_virtual(main())


def test_a_version_that_is_not_reached_is_not_a_missing_shard():
    async def main():
        asked = query(resourceVersion=99, resourceVersionMatch="NotOlderThan")
        with pytest.raises(TooLargeVersion):
            await carved().router.list(asked, partial=True)

    run_virtual(main())


def test_a_long_list_that_loses_a_shard_is_broken_off_even_if_a_partial_one_would_do():
    async def main():
        installation = LocalInstallation(2)
        many = [pod("a", f"web-{number:05}") for number in range(2500)]
        installation.hold(PODS, many, cover=OneNamespace("a"))
        installation.publish()
        shard = installation.shards["shard-0"]
        shard.on_page = lambda _: shard.raises.extend([NotReady("killed"), NotReady("killed")])
        with pytest.raises(NotReady):
            await listed(installation.router, query(), partial=True)

    run_virtual(main())


def test_a_page_that_loses_a_shard_on_its_way_names_it():
    async def main():
        installation = carved()
        shard = installation.shards["shard-0"]
        page, asked = shard.page, []

        async def short(question):
            asked.append(question)
            if len(asked) > 1:
                raise NotReady("killed", retry_after_s=1)
            found = await page(question)
            return type(found)(
                version=found.version, keys=found.keys[:2], bodies=found.bodies[:2], more=True, remaining=3
            )

        shard.page = short
        bodies, listing = await listed(installation.router, query(limit=12), partial=True)
        # What was there of it when it was lost comes first in the order, so it had been given out.
        assert keys(bodies) == [key for key in ALL if key not in ("a/web-2", "a/web-3", "a/web-4")][:12]
        assert listing.provenance.missing_partitions == ("v1/pods[a]",)
        following, last = await listed(
            installation.router, query(limit=12, continue_=listing.continue_token), partial=True
        )
        assert keys(bodies + following) == [
            key for key in ALL if key not in ("a/web-2", "a/web-3", "a/web-4")
        ]
        assert last.provenance.missing_partitions == ("v1/pods[a]",)

    run_virtual(main())


# -- pages --------------------------------------------------------------------------------------------------


def test_a_partial_list_stays_one_when_the_shard_is_back():
    async def main():
        installation = carved()
        installation.away.add("shard-1")
        first, listing = await listed(installation.router, query(limit=4), partial=True)
        installation.away.clear()
        rest, last = await listed(
            installation.router, query(limit=500, continue_=listing.continue_token), partial=True
        )
        assert keys(first + rest) == WITHOUT_B
        assert last.provenance.missing == ("shard-1",)
        assert last.provenance.missing_partitions == (B,)

    run_virtual(main())


def test_a_token_of_a_partial_list_is_for_who_asks_for_one():
    async def main():
        installation = carved()
        installation.away.add("shard-1")
        _, listing = await listed(installation.router, query(limit=4), partial=True)
        installation.away.clear()
        with pytest.raises(BadRequest, match="of a partial list"):
            await installation.router.list(query(continue_=listing.continue_token))

    run_virtual(main())


def test_a_list_that_began_complete_may_become_partial_and_says_so_from_then_on():
    async def main():
        installation = carved()
        first, listing = await listed(installation.router, query(limit=4), partial=True)
        assert not listing.provenance.partial
        installation.shards["shard-1"].partitions[B].state = "pending"
        with pytest.raises(NotReady):
            await installation.router.list(query(limit=4, continue_=listing.continue_token))
        second, following = await listed(
            installation.router, query(limit=4, continue_=listing.continue_token), partial=True
        )
        assert following.provenance.missing_partitions == (B,)
        installation.shards["shard-1"].partitions[B].state = "synced"
        rest, last = await listed(
            installation.router, query(continue_=following.continue_token), partial=True
        )
        assert keys(first + second + rest) == WITHOUT_B
        assert listing.version == following.version == last.version == 95, "what was seen of b is of this"
        assert last.provenance.missing_partitions == (B,)

    run_virtual(main())


def test_going_on_inconsistently_does_not_make_a_partial_list_whole():
    async def main():
        installation = carved()
        installation.away.add("shard-1")
        first, listing = await listed(installation.router, query(limit=4), partial=True)
        installation.away.clear()
        partition = installation.shards["shard-0"].partitions["v1/pods[a]"]
        partition.put(version=200)
        partition.forget(before=200)
        with pytest.raises(Expired) as caught:
            await installation.router.list(query(continue_=listing.continue_token), partial=True)
        token = caught.value.metadata["continue"]
        rest, last = await listed(installation.router, query(continue_=token), partial=True)
        assert keys(first + rest) == WITHOUT_B
        assert last.provenance.missing_partitions == (B,)

    run_virtual(main())


def test_a_partial_token_from_before_a_resource_was_divided_anew_is_expired():
    async def main():
        installation = carved()
        installation.away.add("shard-1")
        _, listing = await listed(installation.router, query(limit=4), partial=True)
        installation.hold(PODS, cover=OneNamespace("c"), shard=0)
        installation.publish()
        with pytest.raises(Expired):
            await installation.router.list(query(continue_=listing.continue_token), partial=True)

    run_virtual(main())


# -- get and count ------------------------------------------------------------------------------------------


def split_by_uid():
    installation = LocalInstallation()
    for shard, (low, high) in enumerate(((0, 1 << 63), (1 << 63, 1 << 64))):
        installation.hold(PODS, [pod("a", f"x-{shard}")], cover=HashRange("uid", low, high), shard=shard)
    installation.publish()
    return installation


def test_what_is_found_will_do_but_nothing_is_concluded_from_not_finding_it():
    async def main():
        installation = split_by_uid()
        installation.away.add("shard-1")
        there = ObjectQuery(resource=PODS.resource, namespace="a", name="x-0")
        with pytest.raises(NotReady):
            await installation.router.get(there)
        answer = await installation.router.get(there, partial=True)
        assert named(answer.body) == "a/x-0"
        assert (answer.provenance.shards, answer.provenance.missing) == (("shard-0",), ("shard-1",))
        perhaps = ObjectQuery(resource=PODS.resource, namespace="a", name="x-1")
        with pytest.raises(NotReady, match="shard-1"):
            await installation.router.get(perhaps, partial=True)

    run_virtual(main())


def test_a_count_may_be_partial():
    async def main():
        installation = carved()
        installation.away.add("shard-1")
        with pytest.raises(NotReady, match="shard-1"):
            await installation.router.count(query())
        answer = await installation.router.count(query(), group_by="metadata.namespace", partial=True)
        assert (answer.count, answer.groups) == (15, {"a": 5, "a-b": 5, "c": 5})
        assert answer.provenance.missing == ("shard-1",)
        assert answer.version == 98

    run_virtual(main())
