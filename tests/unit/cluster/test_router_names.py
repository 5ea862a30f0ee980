"""Queries over ranges of uid: which of them are asked, and names that two of them have for a moment."""

import pytest
from support.carved import keys, listed, pod, query
from support.clock import run_virtual
from support.divided import divide
from support.local_shards import PODS, LocalInstallation

from shoal.cluster.query.request import ObjectQuery
from shoal.coordinator.cuts import WHOLE, even_bounds
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import HASH_END, HashRange

POD = PODS.resource


def divided(cut):
    installation = LocalInstallation(3)
    installation.hold(PODS, [pod(namespace, f"web-{number}") for namespace in "abc" for number in range(8)])
    divide(installation, PODS, cut)
    installation.publish()
    return installation


def halves_with_one_name_twice():
    """The object was made again in the upper half, and the lower one has not heard that the old one is gone."""
    middle = even_bounds(2)[0]
    low, high = HashRange("uid", 0, middle), HashRange("uid", middle, HASH_END)
    old = next(v for v in range(1, 99_999) if low.admits("a", f"uid-a-x-{v}"))
    new = next(v for v in range(old + 1, 999_999) if high.admits("a", f"uid-a-x-{v}"))
    installation = LocalInstallation(2)
    installation.hold(PODS, [pod("a", "x", old)], cover=low, version=new - 1)
    installation.hold(PODS, [pod("a", "x", new), pod("b", "y")], cover=high, shard=1, version=new)
    installation.publish()
    return installation, new


def test_of_two_objects_of_one_name_the_newer_is_shown_and_both_are_counted():
    async def main():
        installation, new = halves_with_one_name_twice()
        bodies, listing = await listed(installation.router, query())
        assert keys(bodies) == ["a/x", "b/y"]
        assert bodies[0] == pod("a", "x", new)
        assert listing.version == new - 1
        found = await installation.router.get(ObjectQuery(resource=POD, namespace="a", name="x"))
        assert found.body == pod("a", "x", new)
        paged, page = await listed(installation.router, query(limit=1))
        assert paged == [pod("a", "x", new)]
        rest, _ = await listed(installation.router, query(limit=1, continue_=page.continue_token))
        assert keys(rest) == ["b/y"]
        # Documented: until the lower half has heard of it there seem to be three.
        assert (await installation.router.count(query())).count == 3
        groups = (await installation.router.count(query(), group_by="metadata.namespace")).groups
        assert groups == {"a": 2, "b": 1}

    run_virtual(main())


def test_an_object_is_absent_only_if_all_ranges_say_so():
    async def main():
        installation, _ = halves_with_one_name_twice()
        wanted = ObjectQuery(resource=POD, namespace="b", name="y")
        installation.away.add("shard-0")
        with pytest.raises(NotReady, match="shard-0"):
            await installation.router.get(wanted)
        assert (await installation.router.get(wanted, partial=True)).body == pod("b", "y")
        installation.away = {"shard-1"}
        with pytest.raises(NotReady, match="shard-1"):
            await installation.router.get(wanted, partial=True)

    run_virtual(main())


@pytest.mark.parametrize(
    ("namespace", "parameters", "asked"),
    [
        ("a", {}, {"[a:uid:"}),
        ("b", {}, {"[!a:uid:"}),
        (None, {"fieldSelector": "metadata.namespace=a"}, {"[a:uid:"}),
        (None, {"fieldSelector": "metadata.namespace!=a"}, {"[!a:uid:"}),
        (None, {}, {"[a:uid:", "[!a:uid:"}),
    ],
)
def test_only_partitions_that_can_hold_an_answer_are_asked(namespace, parameters, asked):
    async def main():
        cut = WHOLE.split_namespace("a", even_bounds(2)).split_rest("uid", even_bounds(2))
        installation = divided(cut)
        await listed(installation.router, query(namespace, **parameters))
        called = [call.partition for shard in installation.shards.values() for call in shard.calls]
        assert {name.removeprefix("v1/pods").partition("uid:")[0] + "uid:" for name in called} == asked
        assert len(called) == 2 * len(asked)

    run_virtual(main())


def test_a_hash_selector_leaves_out_ranges_of_the_same_field():
    async def main():
        installation = divided(WHOLE.split_namespace("a", even_bounds(2)))
        lowest = "shardRange(object.metadata.uid, '0x0000000000000000', '0x0000000000000001')"
        await listed(installation.router, query(shardSelector=lowest))
        called = {call.partition for shard in installation.shards.values() for call in shard.calls}
        assert called == {"v1/pods[!a]", "v1/pods[a:uid:0000000000000000-8000000000000000]"}

    run_virtual(main())
