"""Leases that expire by themselves: what they keep true whatever is lost, and what a shard does without one."""

import asyncio
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asgi_connection import AsgiConnection
from support.clock import run_virtual

from shoal.cluster.settings import ShoalSettings, parse_settings
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.coordinator.liveness import Liveness
from shoal.coordinator.settings import LivenessSettings
from shoal.shards.handle import Assignment
from shoal.shards.leasing import ANSWERS_MAX, Lease
from shoal.shards.local import LocalShardHandle
from shoal.shards.model.errors import NoLeave, NotReady, SettingsError
from shoal.shards.model.partitions import Epoch, Partition, ShardId
from shoal.shards.model.queries import GetQuery, OvertakeQuery
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits
from shoal.shards.wire.failures import decode_failure, encode_failure

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
PARTITION = Partition(CONFIG_MAPS.resource)
OVERTAKE = OvertakeQuery(partition=PARTITION.id, epoch=Epoch(1), version=Version(5))


def test_a_lease_is_counted_from_the_answer_that_is_known_to_have_arrived():
    lease = Lease(8.0, "one")
    assert not lease.valid(0.0), "nobody knows of it yet"
    first = lease.answered(0, 10.0)
    assert not lease.valid(10.0)
    second = lease.answered(first, 11.0)
    assert lease.left_s(11.0) == 7.0
    assert lease.valid(17.9)
    assert not lease.valid(18.0)
    lease.answered(second, 30.0)
    assert not lease.valid(30.0), "what is acknowledged is too long ago"
    lease.answered(first, 12.0)
    assert lease.left_s(12.0) == 7.0, "it never becomes shorter"


def test_without_a_limit_it_does_not_expire():
    lease = Lease(None, "one")
    assert lease.valid(1e9)
    assert lease.left_s(1e9) is None


def test_an_answer_of_another_incarnation_renews_nothing():
    old, new = Lease(8.0, "one"), Lease(8.0, "two")
    number = old.answered(0, 1.0)
    new.answered(0, 100.0)
    new.answered(number, 101.0)
    assert not new.valid(101.0)


def test_only_so_many_answers_are_remembered():
    lease = Lease(8.0, "one")
    first = lease.answered(0, 0.0)
    for number in range(ANSWERS_MAX):
        lease.answered(0, float(number))
    lease.answered(first, 1.0)
    assert not lease.valid(1.0)


DELAYS = st.one_of(st.none(), st.floats(0.0, 12.0))
"""On the way; None: lost."""


@given(st.lists(st.tuples(st.floats(0.1, 4.0), DELAYS, DELAYS), max_size=40), st.floats(1.0, 9.9))
def test_it_has_ended_when_the_coordinator_gives_the_shard_up(exchanges, lease_s):
    lease = Lease(lease_s, "one")
    liveness = Liveness(LivenessSettings(dead_after_s=10.0, start_timeout_s=10.0, suspect_after=1), since=0.0)
    events, now, number = [], 0.0, 0
    for pause_s, to_shard_s, to_coordinator_s in exchanges:
        now += pause_s
        events.append((now, 0, ("ask", to_shard_s, to_coordinator_s)))
    heard = 0
    while events:
        events.sort(key=lambda event: event[:2])
        now, _, (what, *rest) = events.pop(0)
        number += 1
        liveness.waited(now)
        if liveness.state == "dead":
            assert not lease.valid(now)
            return
        match what:
            case "ask":
                to_shard_s, to_coordinator_s = rest
                if to_shard_s is not None:
                    events.append((now + to_shard_s, number, ("reaches", heard, to_coordinator_s)))
            case "reaches":
                acknowledged, to_coordinator_s = rest
                answer = lease.answered(acknowledged, now)
                if to_coordinator_s is not None:
                    events.append((now + to_coordinator_s, number, ("answers", answer)))
                else:
                    events.append((now + 3.0, number, ("fails",)))
            case "answers":
                heard = max(heard, rest[0])
                liveness.answered("one", now)
            case "fails":
                liveness.failed("no answer in time", now)


# -- a shard --------------------------------------------------------------------------------------------------


def on(main, **settings):
    async def run():
        app = build_app(SimulatorSettings(seed=1))
        app.verbs.create(app.verbs.served(CONFIG_MAPS.resource), "default", {"metadata": {"name": "a"}})
        shard = Shard(
            ShardId("shard-0"),
            connection=AsgiConnection(app),
            permits=NoPermits(),
            settings=ShardSettings(**settings),
            incarnation="one",
            rng=random.Random(1),
        )
        await shard.adopt([Assignment(partition=PARTITION, resource_type=CONFIG_MAPS)], Epoch(1))
        await asyncio.sleep(1)
        try:
            return await main(LocalShardHandle(shard))
        finally:
            await shard.stop()

    return run_virtual(run())


def test_a_shard_that_hears_nothing_gives_no_leave_and_answers_all_the_same():
    async def main(handle):
        answer = 0
        for _ in range(5):
            answer = (await handle.statistics(answer)).answer
            await asyncio.sleep(1)
        assert await handle.overtake(OVERTAKE) > 0
        for _ in range(10):
            await asyncio.sleep(1)
            assert (await handle.statistics()).answer == 0, "somebody else has asked"
        with pytest.raises(NoLeave, match="shard-0 has not heard of its coordinator"):
            await handle.overtake(OVERTAKE)
        assert (await handle.statistics()).lease_s == 0.0
        query = GetQuery(partition=PARTITION.id, epoch=Epoch(1), key=Key("default/a"))
        assert (await handle.get(query)).body
        answer = (await handle.statistics(answer)).answer
        with pytest.raises(NoLeave):
            await handle.overtake(OVERTAKE)
        await handle.statistics(answer)
        assert await handle.overtake(OVERTAKE) > 0

    on(main, lease_s=8.0)


def test_a_shard_without_a_coordinator_needs_no_lease():
    async def main(handle):
        await asyncio.sleep(1e6)
        assert await handle.overtake(OVERTAKE) > 0
        assert (await handle.statistics()).lease_s is None

    on(main)


def test_that_there_is_no_leave_crosses_the_wire_as_what_it_is():
    error = decode_failure(encode_failure(NoLeave("not heard", retry_after_s=1), 1 << 20))
    assert type(error) is NoLeave
    assert isinstance(error, NotReady)


# -- settings -------------------------------------------------------------------------------------------------


def test_a_lease_is_shorter_than_what_a_shard_is_given_up_after():
    assert ShoalSettings().shard_settings.lease_s == 8.0
    assert LivenessSettings(dead_after_s=5.0).lease == 4.0
    assert LivenessSettings(lease_s=2.0).lease == 2.0
    with pytest.raises(SettingsError, match=r"liveness\.lease_s is 10: expected less than 10"):
        parse_settings({"liveness": {"lease_s": 10}}, where="file")
    with pytest.raises(ValueError, match="start_timeout_s"):
        LivenessSettings(lease_s=6.0, start_timeout_s=5.0)
    assert msgspec.structs.replace(LivenessSettings(), start_timeout_s=5.0).lease == 4.0
