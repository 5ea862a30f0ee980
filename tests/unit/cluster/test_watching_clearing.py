"""Clearing a partition whose shard has no lease: it has to reach the version, and nothing is given up."""

import asyncio

from support.clock import run_virtual

from shoal.cluster.query.directory import KnownShards
from shoal.cluster.query.routing import Routing
from shoal.cluster.watching.clearing import Clearing
from shoal.cluster.watching.lanes import Clearance
from shoal.cluster.watching.statistics import WatchStatistics
from shoal.coordinator.routes import RouteTable
from shoal.shards.model.errors import NoLeave, NotReady
from shoal.shards.model.partitions import PartitionId, ShardId
from shoal.shards.model.queries import PartitionCount
from shoal.shards.model.versions import Version

PARTITION = PartitionId("v1/pods[a]")
SHARD = ShardId("shard-0")


class Leaseless:
    """A shard that answers, and gives no leave while it has no lease. Proving its frontier takes a second."""

    def __init__(self, clearance):
        self.clearance = clearance
        self.leased = self.away = False
        self.asked = []

    async def overtake(self, query):
        self.asked.append("overtake")
        if self.away:
            raise NotReady("away")
        if not self.leased:
            raise NoLeave("not heard of the coordinator")
        return self.clearance.fed

    async def count(self, query):
        self.asked.append("count")
        await asyncio.sleep(1)
        self.clearance.told(query.not_older_than)
        return PartitionCount(version=query.not_older_than, count=0)


class Coordinator:
    async def routes(self, after, timeout_s):
        return RouteTable()


def on(main):
    async def run():
        clearance = Clearance(Version(10))
        shard, statistics, given_up = Leaseless(clearance), WatchStatistics(), []
        clearing = Clearing(
            PARTITION,
            clearance,
            roams=False,
            routing=Routing(Coordinator()),
            shards=KnownShards(lambda _: shard),
            patience_s=5.0,
            statistics=statistics,
            cleared=lambda: None,
            given_up=given_up.append,
        )
        clearing.begin(SHARD)
        try:
            await main(clearing, clearance, shard, statistics, given_up)
        finally:
            await clearing.stop()

    run_virtual(run())


def test_a_version_that_no_leave_is_given_for_is_reached_instead():
    async def main(clearing, clearance, shard, statistics, given_up):
        for version in (20, 30, 40):
            clearing.want(Version(version))
            await asyncio.sleep(10)
            assert clearance.cleared == version
        assert shard.asked == ["overtake", "count"] * 3
        assert statistics.overtakings == 0
        assert given_up == []

    on(main)


def test_leave_is_asked_for_again_each_time():
    async def main(clearing, clearance, shard, statistics, given_up):
        clearing.want(Version(20))
        await asyncio.sleep(10)
        shard.leased = True
        clearing.want(Version(30))
        await asyncio.sleep(0.01)
        assert clearance.cleared == 30
        assert statistics.overtakings == 1

    on(main)


def test_a_shard_that_fails_otherwise_is_still_given_up():
    async def main(clearing, clearance, shard, statistics, given_up):
        shard.away = True
        clearing.want(Version(20))
        await asyncio.sleep(30)
        assert [type(error) for error in given_up] == [NotReady]
        assert clearance.cleared == 10

    on(main)
