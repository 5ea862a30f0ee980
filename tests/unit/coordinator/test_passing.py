"""One passing from givers to takers, over shards in memory."""

import asyncio

import pytest
from support.clock import run_virtual
from support.shards import MemoryHandle, MemoryShard

from shoal.coordinator.handoff import Copy
from shoal.coordinator.instructions import Passing
from shoal.coordinator.passing import pass_on
from shoal.shards.handle import Assignment
from shoal.shards.model.covers import parse_partition
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import Epoch, ShardId
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.transfers import HandedOver, Taken
from shoal.shards.model.versions import UNKNOWN, Version

PODS = ResourceType(resource=Resource("", "v1", "pods"), kind="Pod", namespaced=True)


def copy(text):
    partition, _, shard = text.rpartition("@")
    return Copy(parse_partition(partition), ShardId(shard))


class Shards:
    """Shards in memory that hold these copies, each with what it says when it is handed over."""

    def __init__(self, **stood):
        self.handles = {}
        self.stood = {}
        for text, said in stood.pop("givers", {}).items():
            self.stood[self._hold(text).key] = said
        for text in stood.pop("takers", ()):
            self._hold(text)
        assert not stood

    def _hold(self, text):
        held = copy(text)
        if held.shard not in self.handles:
            shard = MemoryShard(held.shard, lambda: 100.0, sync_s=0.0)
            shard.hand_over = lambda partitions, _, name=held.shard: {
                p: self.stood[p, name] for p in partitions if self.stood[p, name] is not None
            }
            shard.take_over = lambda taken: None
            self.handles[held.shard] = MemoryHandle(shard)
        self.handles[held.shard].shard.adopt(
            [Assignment(partition=held.partition, resource_type=PODS)], Epoch(1)
        )
        return held

    def __call__(self, shard):
        return self.handles[shard]

    def taken(self):
        return {
            f"{p}@{name}": taken
            for name, handle in self.handles.items()
            for p, taken in handle.taken_over.items()
        }


def passing(givers, takers, **more):
    silent = tuple(copy(text) for text in more.pop("silent", ()))
    return Passing(tuple(map(copy, givers)), tuple(map(copy, takers)), Epoch(9), silent, **more)


def stood(shown, frontier):
    return HandedOver(Version(shown), Version(frontier))


def carried_out(shards, one, *, lenient=False):
    run_virtual(pass_on(one, shards, lenient=lenient))
    return shards.taken()


def test_what_the_giver_said_is_what_the_taker_is_told():
    shards = Shards(givers={"v1/pods@a": stood(7, 9)}, takers=["v1/pods@b"])
    assert carried_out(shards, passing(["v1/pods@a"], ["v1/pods@b"])) == {
        "v1/pods@b": Taken(Version(7), Version(9))
    }


def test_every_part_of_a_split_is_told_the_same():
    shards = Shards(givers={"v1/pods@a": stood(7, 9)}, takers=["v1/pods[x]@a", "v1/pods[!x]@b"])
    told = carried_out(shards, passing(["v1/pods@a"], ["v1/pods[x]@a", "v1/pods[!x]@b"]))
    assert told == dict.fromkeys(("v1/pods[x]@a", "v1/pods[!x]@b"), Taken(Version(7), Version(9)))


def test_a_merge_is_told_the_newest_of_its_parts():
    shards = Shards(
        givers={"v1/pods[x]@a": stood(7, 20), "v1/pods[!x]@b": stood(12, 9)}, takers=["v1/pods@a"]
    )
    told = carried_out(shards, passing(["v1/pods[x]@a", "v1/pods[!x]@b"], ["v1/pods@a"]))
    assert told == {"v1/pods@a": Taken(Version(12), Version(20))}


def test_a_taker_is_told_of_those_givers_alone_whose_objects_it_gets():
    givers = {"v1/pods[x]@a": stood(7, 20), "v1/pods[!x]@b": stood(12, 9)}
    shards = Shards(givers=givers, takers=["v1/pods[x]@c", "v1/pods[!x]@c"])
    told = carried_out(shards, passing(list(givers), ["v1/pods[x]@c", "v1/pods[!x]@c"]))
    assert told == {
        "v1/pods[x]@c": Taken(Version(7), Version(20)),
        "v1/pods[!x]@c": Taken(Version(12), Version(9)),
    }


@pytest.mark.parametrize(
    ("givers", "more", "frontier"),
    [
        ({"v1/pods[x]@a": stood(7, 20), "v1/pods[!x]@b": None}, {}, 20),
        ({"v1/pods[x]@a": stood(7, 20), "v1/pods[!x]@b": stood(1, 99)}, {"silent": ["v1/pods[!x]@b"]}, 20),
        ({"v1/pods[x]@a": stood(7, 20), "v1/pods[!x]@b": stood(1, 99)}, {"strangers": True}, 99),
        ({}, {}, UNKNOWN),
    ],
    ids=["one has lost what it had", "one is dead", "there may have been others", "there is none"],
)
def test_what_one_giver_cannot_say_nobody_knows(givers, more, frontier):
    shards = Shards(givers=givers, takers=["v1/pods@c"])
    assert carried_out(shards, passing(list(givers), ["v1/pods@c"], **more)) == {
        "v1/pods@c": Taken(None, Version(frontier))
    }


def test_a_giver_that_does_not_answer_fails_it_before_anybody_takes_over():
    shards = Shards(givers={"v1/pods[x]@a": stood(7, 20), "v1/pods[!x]@b": stood(1, 2)}, takers=["v1/pods@c"])
    shards.handles["b"].away = True
    one = passing(["v1/pods[x]@a", "v1/pods[!x]@b"], ["v1/pods@c"])
    with pytest.raises(NotReady, match="shard b is away"):
        run_virtual(pass_on(one, shards, lenient=False))
    assert shards.taken() == {}
    assert carried_out(shards, one, lenient=True) == {"v1/pods@c": Taken(None, Version(20))}


def test_a_giver_that_hangs_does_not_hide_that_another_has_failed():
    async def main():
        shards = Shards(
            givers={"v1/pods[x]@a": stood(7, 20), "v1/pods[!x]@b": stood(1, 2)}, takers=["v1/pods@c"]
        )
        shards.handles["a"].hangs = True
        shards.handles["b"].away = True
        with pytest.raises(NotReady):
            await pass_on(passing(["v1/pods[x]@a", "v1/pods[!x]@b"], ["v1/pods@c"]), shards, lenient=False)
        assert asyncio.get_running_loop().time() == 0

    run_virtual(main())


def test_a_taker_that_does_not_answer_fails_it_also_when_givers_need_not():
    shards = Shards(givers={"v1/pods@a": stood(7, 9)}, takers=["v1/pods[x]@b", "v1/pods[!x]@c"])
    shards.handles["c"].refuses.add("take_over")
    one = passing(["v1/pods@a"], ["v1/pods[x]@b", "v1/pods[!x]@c"])
    with pytest.raises(NotReady, match="shard c is away"):
        run_virtual(pass_on(one, shards, lenient=True))
    assert shards.taken() == {"v1/pods[x]@b": Taken(Version(7), Version(9))}, (
        "the others are told all the same"
    )


def test_all_of_one_side_are_asked_at_once_and_nothing_is_left_running():
    async def main():
        shards = Shards(
            givers={"v1/pods[x]@a": stood(7, 20), "v1/pods[!x]@b": stood(1, 2)}, takers=["v1/pods@c"]
        )
        for handle in shards.handles.values():
            handle.delay_s = 1.0
        await pass_on(passing(["v1/pods[x]@a", "v1/pods[!x]@b"], ["v1/pods@c"]), shards, lenient=False)
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)
        shards.handles["a"].hangs = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await pass_on(passing(["v1/pods[x]@a"], ["v1/pods@c"]), shards, lenient=False)
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())
