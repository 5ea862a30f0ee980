"""Counting and grouping over shards: merged numbers, their version, and what cannot be counted."""

import pytest
from support.carved import carved, query
from support.clock import run_virtual
from support.local_shards import PODS, LocalInstallation

from shoal.shards.model.errors import BadRequest, NotFound, TooLargeVersion
from shoal.shards.model.queries import CountQuery


def test_a_count_fetches_nothing():
    async def main():
        installation = carved()
        answer = await installation.router.count(query())
        assert (answer.count, answer.version, dict(answer.groups)) == (20, 95, {})
        assert answer.provenance.shards == ("shard-0", "shard-1", "shard-2")
        assert answer.provenance.age_s == 0.25
        assert all(
            isinstance(asked, CountQuery) for shard in installation.shards.values() for asked in shard.calls
        )
        assert (await installation.router.count(query("a", labelSelector="app!=web"))).count == 1

    run_virtual(main())


def test_groups_of_all_partitions_are_one_the_largest_first():
    async def main():
        router = carved().router
        answer = await router.count(query(), group_by="metadata.labels[app]")
        assert list(answer.groups.items()) == [("web", 16), ("db", 4)]
        answer = await router.count(query(labelSelector="app=web"), group_by="metadata.namespace")
        assert list(answer.groups.items()) == [("a", 4), ("a-b", 4), ("b", 4), ("c", 4)]
        answer = await router.count(query("b"), group_by="metadata.labels[none]")
        assert (answer.count, answer.groups) == (5, {"": 5})

    run_virtual(main())


def test_only_shards_that_can_hold_something_are_asked():
    async def main():
        installation = carved()
        await installation.router.count(query(fieldSelector="metadata.namespace=b"))
        assert [len(shard.calls) for shard in installation.shards.values()] == [0, 1, 0]

    run_virtual(main())


def test_a_count_waits_for_its_version():
    async def main():
        asked = query(resourceVersion=99)
        with pytest.raises(TooLargeVersion):
            await carved().router.count(asked)
        assert (await carved().router.count(query("a", resourceVersion=99))).version == 100

    run_virtual(main())


@pytest.mark.parametrize(
    "parameters",
    [
        {"continue_": "t"},
        {"resourceVersion": 7, "resourceVersionMatch": "Exact"},
        {"resourceVersion": 7, "limit": 2},
    ],
)
def test_what_cannot_be_counted(parameters):
    async def main():
        with pytest.raises(BadRequest):
            await carved().router.count(query(**parameters))

    run_virtual(main())


def test_a_resource_nobody_follows():
    async def main():
        installation = LocalInstallation()
        installation.publish()
        with pytest.raises(NotFound):
            await installation.router.count(query(resource_type=PODS))

    run_virtual(main())
