"""What pages behind the first one wait for."""

from __future__ import annotations

import asyncio

from support.clock import run_virtual
from support.watching import WHOLE

from shoal.cluster.query.cursor import PartitionCursor
from shoal.cluster.query.directory import KnownShards
from shoal.coordinator.routes import Route
from shoal.shards.model.partitions import Epoch, ShardId
from shoal.shards.model.queries import PageAnswer, PageQuery
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import UNKNOWN, Version


class Paging:
    """A shard whose second page does not come the first time it is asked for."""

    def __init__(self):
        self.queries: list[PageQuery] = []

    async def page(self, query):
        self.queries.append(query)
        if len(self.queries) == 2:
            await asyncio.Event().wait()
        number = len(self.queries)
        return PageAnswer(
            version=Version(60), keys=[Key(f"a/{number}")], bodies=[b"{}"], more=number < 3, remaining=0
        )


def test_only_the_first_page_waits_for_the_version_asked_for():
    async def main():
        loop, shard = asyncio.get_running_loop(), Paging()
        route, relocated = Route(WHOLE, ShardId("shard-0")), []

        async def relocate(partition, epoch):
            relocated.append(loop.time())
            return route, Epoch(2)

        query = PageQuery(partition=WHOLE.id, epoch=Epoch(1), not_older_than=Version(50), wait_s=30.0)
        cursor = PartitionCursor(
            route,
            query,
            shards=KnownShards(lambda _: shard),
            relocate=relocate,
            timeout_s=5.0,
            streamed=False,
        )
        await cursor.next()
        await cursor.next()
        assert relocated == [5.0], "nothing is waited for that the first page has proved"
        first, second, again = shard.queries
        assert (first.not_older_than, first.at) == (50, None)
        for following in (second, again):
            assert (following.not_older_than, following.at, following.after) == (UNKNOWN, 60, "a/1")

    run_virtual(main())
