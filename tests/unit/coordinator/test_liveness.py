import asyncio

import msgspec
from support.clock import run_virtual
from support.shards import MemoryHandle, MemoryProvider, MemoryShard

from shoal.coordinator.liveness import Liveness
from shoal.coordinator.roster import Roster
from shoal.coordinator.settings import LivenessSettings
from shoal.shards.leasing import Lease
from shoal.shards.model.partitions import ShardId

SETTINGS = LivenessSettings(suspect_after=2, dead_after_s=10, healthy_after=2, start_timeout_s=60)


def healthy():
    shard = Liveness(SETTINGS, since=0)
    shard.answered("one", 1)
    assert shard.state == "healthy"
    return shard


def test_one_failure_is_no_verdict_two_are_a_suspicion_and_silence_is_death():
    shard = healthy()
    states = []
    for now in range(2, 14):
        shard.failed("away", now)
        states.append((now, shard.state))
    assert states[0] == (2, "healthy")
    assert states[1] == (3, "suspect")
    assert states[8] == (10, "suspect")
    assert states[9] == (11, "dead")
    assert shard.message == "away"


def test_an_answer_between_failures_starts_the_count_afresh():
    shard = healthy()
    for now in range(2, 40, 2):
        shard.failed("away", now)
        shard.answered("one", now + 1)
    assert shard.state == "healthy"


def test_a_suspect_must_answer_twice():
    shard = healthy()
    shard.failed("away", 2)
    shard.failed("away", 3)
    shard.answered("one", 4)
    assert shard.state == "suspect"
    shard.answered("one", 5)
    assert (shard.state, shard.message) == ("healthy", "")


def test_a_new_process_is_healthy_at_once_and_counts_as_restarted():
    shard = healthy()
    shard.failed("away", 2)
    shard.failed("away", 3)
    assert shard.answered("two", 4) is True
    assert shard.state == "healthy"
    assert shard.answered("two", 5) is False


def test_the_first_answer_is_no_restart():
    assert Liveness(SETTINGS, since=0).answered("one", 1) is False


def test_a_shard_that_never_answers_is_dead_after_the_start_timeout():
    shard = Liveness(SETTINGS, since=0)
    shard.failed("no room", 59)
    assert shard.state == "starting"
    shard.waited(60)
    assert shard.state == "dead"


def test_time_alone_makes_a_suspect_dead_even_while_a_question_is_open():
    shard = healthy()
    shard.failed("", 2)
    shard.failed("", 3)
    shard.waited(11)
    assert shard.state == "dead"
    assert shard.message == "no answer for 10 s"


def test_each_question_says_which_answer_has_arrived_and_so_renews_the_lease():
    class Leased(MemoryHandle):
        """Has a real lease; its answers are lost while `mute`."""

        def __init__(self, shard):
            super().__init__(shard)
            self.lease = Lease(8.0, shard.shard_id)
            self.mute = False

        async def statistics(self, acknowledged=None):
            assert acknowledged is not None, "the coordinator says that it asks"
            answer = self.lease.answered(acknowledged, asyncio.get_running_loop().time())
            found = await super().statistics()
            if self.mute:
                await asyncio.Event().wait()
            return msgspec.structs.replace(found, answer=answer)

    class Provider(MemoryProvider):
        async def ensure(self, shard_id):
            if shard_id not in self.handles:
                self.handles[shard_id] = Leased(MemoryShard(shard_id, asyncio.get_running_loop().time))
            return self.handles[shard_id]

    async def main():
        loop, provider = asyncio.get_running_loop(), Provider()
        roster = Roster(provider, LivenessSettings(), lost=lambda _: None, judged=lambda: None)
        async with roster:
            roster.set_wanted([ShardId("shard-0")], loop.time())
            for _ in range(30):
                (view,) = await roster.observe()
                await asyncio.sleep(1)
            shard = provider.handles["shard-0"]
            assert view.state == "healthy"
            assert shard.lease.left_s(loop.time()) > 4
            shard.mute = True  # questions still reach it, and none of its answers arrives
            while view.state != "dead":
                (view,) = await roster.observe()
                await asyncio.sleep(0.2)
                assert view.state != "dead" or not shard.lease.valid(loop.time())
            assert not shard.lease.valid(loop.time())

    run_virtual(main())
