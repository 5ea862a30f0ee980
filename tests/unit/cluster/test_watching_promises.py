"""What watches promise at the seams: a shard that moves on or breaks off in the middle of an answer, lists that are
ahead of the feeds, and the bound of what is held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from support.clock import run_virtual
from support.watched_shards import Way, Written
from support.watching import IN_A, NOT_A, WHOLE, Gateway, Reader, gateway, settled

from shoal.cluster.watching import hub
from shoal.cluster.watching.audience import COLLECTED_EVENTS
from shoal.shards.model.errors import NotReady
from shoal.shards.model.queries import ChangesPage


def virtual(test):
    """Runs an asynchronous test in virtual time."""

    def run(*args, **kwargs):
        run_virtual(test(*args, **kwargs))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class Staged(Way):
    """A way on which the test acts between two messages. Each of its acts happens once, `changes_end_after` too."""

    def __init__(self, shard_id, part):
        super().__init__(shard_id, part)
        self.before_list = self.before_changes = self.after_overtaking = None
        self.changes_end_after: int | None = None
        """So many changes come, then the connection breaks."""
        self.holds_above: int | None = None
        """Overtakings by newer versions wait for `released`."""
        self.released = asyncio.Event()

    def _act(self, name: str) -> None:
        act = getattr(self, name)
        setattr(self, name, None)
        if act is not None:
            act()

    async def stream(self, query):
        self._act("before_list")
        async with aclosing(super().stream(query)) as pages:
            async for page in pages:
                yield page

    async def changes(self, query):
        self._act("before_changes")
        async with aclosing(super().changes(query)) as pages:
            async for page in pages:
                after, self.changes_end_after = self.changes_end_after, None
                if after is not None:
                    yield ChangesPage(frontier=page.frontier, changes=page.changes[:after], more=True)
                    raise NotReady(f"the connection to {self.shard_id} broke")
                yield page

    async def overtake(self, query):
        if self.holds_above is not None and query.version > self.holds_above:
            await self.released.wait()
        frontier = await super().overtake(query)
        self._act("after_overtaking")
        return frontier


class StagedGateway(Gateway):
    def _way(self, shard, part):
        way = self.ways[part.partition.id] = Staged(shard, part)
        return way


@asynccontextmanager
async def staged(written: Written, **settings) -> AsyncIterator[StagedGateway]:
    """A gateway all of whose ways are `Staged`, and known from the start."""
    made = StagedGateway(written, **settings)
    for shard in written.shards:
        made.directory(shard)
    try:
        yield made
    finally:
        await made.aclose()


class Gated(Reader):
    """A client that takes what it was told only when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[asyncio.Future[None]] = []
        self.open = True

    async def drained(self) -> None:
        if not self.open:
            gate = asyncio.get_running_loop().create_future()
            self.gates.append(gate)
            await gate

    async def take(self) -> None:
        """Takes what it waits with, and goes on until it has to wait again."""
        assert len(self.gates) == 1, "the watch waits for the client"
        self.gates.pop().set_result(None)
        await settled()


# -- replays -------------------------------------------------------------------------------------------------


@virtual
async def test_a_partition_that_moves_on_while_it_is_asked_again_is_told_without_a_gap_and_nothing_twice():
    written = Written(IN_A, NOT_A)
    written.put("a", "one")
    written.put("b", "two", heard=False)
    written.put("a", "one")
    idle = written.parts[NOT_A.id]

    def moves_on():
        idle.hear()
        written.put("b", "two")
        written.put("b", "three")

    async with staged(written) as gate:
        gate.ways[NOT_A.id].after_overtaking = moves_on
        reader = await gate.watch(resourceVersion=100)
        await settled()
        assert idle.overtaken[0] == 103
        assert [told for told in reader.told if " a/" in told] == ["ADDED a/one 103"]
        assert [told for told in reader.told if " b/" in told] == [
            "ADDED b/two 102", "MODIFIED b/two 104", "ADDED b/three 105",
        ]  # fmt: skip


@virtual
async def test_a_replay_that_breaks_off_goes_on_where_it_was():
    written = Written(WHOLE)
    for _ in range(10):
        written.put("a", "one")
    async with staged(written) as gate:
        gate.ways[WHOLE.id].changes_end_after = 6
        reader = await gate.watch(resourceVersion=100)
        await settled(5.0)
        told = [int(line.rsplit(" ", 1)[1]) for line in reader.told]
        assert sorted(set(told)) == list(range(101, 111))
        assert told == sorted(told)
        assert len(told) <= 11, "of what was told at most the last line is repeated"


@virtual
async def test_a_replay_of_several_partitions_that_breaks_off_shows_no_object_for_the_first_time_as_modified():
    written = Written(IN_A, NOT_A)
    for name in ("one", "two", "three", "one"):
        written.put("a", name)
    written.put("b", "four")
    async with staged(written) as gate:
        gate.ways[IN_A.id].changes_end_after = 2
        reader = await gate.watch(resourceVersion=100)
        await settled(5.0)
        assert set(reader.told) == {
            "ADDED a/two 102", "ADDED a/three 103", "ADDED a/one 104", "ADDED b/four 105",
        }  # fmt: skip
        assert len(reader.told) > 4, "it broke off, and what was told before that is told anew"


@virtual
async def test_a_watch_of_one_namespace_is_not_taken_back_from_the_version_of_a_late_event():
    """It was replayed event by event, although the version it brought was older than what it had been shown."""
    written = Written(IN_A, NOT_A)
    written.put("a", "one")
    written.put("a", "two", heard=False)
    written.put("b", "three")
    async with staged(written) as gate:
        await gate.watch(resourceVersion=100)
        await settled()
        assert written.parts[IN_A.id].overtaken[-1] == 103
        written.parts[IN_A.id].hear()
        written.put("a", "one")
        written.put("a", "one")
        await settled()
        reader = await gate.watch("a", resourceVersion=103)
        assert reader.told == ["ADDED a/two 102", "MODIFIED a/one 105"]
        reader = await gate.watch("a", resourceVersion=102)
        assert "MODIFIED a/one 105" in reader.told
        assert "MODIFIED a/one 104" not in reader.told


# -- lists that are ahead ------------------------------------------------------------------------------------


@virtual
async def test_an_object_listed_newer_than_all_are_cleared_to_waits_until_they_are():
    written = Written(IN_A, NOT_A)
    written.put("a", "one")
    written.put("b", "two")

    def moves_on():
        written.put("b", "late", heard=False)
        written.put("a", "one")

    async with staged(written) as gate:
        gate.ways[IN_A.id].before_list = moves_on
        idle = gate.ways[NOT_A.id]
        idle.holds_above = 102
        reader = await gate.watch(resourceVersion=0)
        await settled(1.0)
        assert reader.told == ["ADDED b/two 102"], (
            "104 may not be shown: who comes back with it would miss 103"
        )
        idle.released.set()
        await settled(1.0)
        assert reader.told[1:] == ["ADDED a/one 104"]
        written.parts[NOT_A.id].hear()
        await settled(1.0)
        assert reader.told[2:] == ["ADDED b/late 103"]


@virtual
async def test_an_object_that_was_left_out_of_the_list_and_is_deleted_is_never_spoken_of():
    written = Written(IN_A, NOT_A)
    written.put("a", "one")
    written.put("b", "two")
    async with staged(written) as gate:
        way = gate.ways[IN_A.id]
        way.before_list = lambda: written.put("a", "one")
        way.before_changes = lambda: written.delete("a", "one")
        reader = await gate.watch(resourceVersion=0)
        await settled(1.0)
        assert written.revision == 104
        assert reader.told == ["ADDED b/two 102"]
        written.put("a", "one")
        await settled(1.0)
        assert reader.told[1:] == ["ADDED a/one 105"]


@virtual
async def test_what_was_left_out_of_the_list_is_told_of_like_any_other_object_after_the_first_round():
    written = Written(IN_A, NOT_A)
    written.put("b", "two")

    def deleted():
        written.delete("a", "one")
        written.put("b", "three")

    async with staged(written) as gate:
        way = gate.ways[IN_A.id]
        way.before_list = lambda: written.put("a", "one")
        way.before_changes = deleted
        reader = Gated()
        reader.open = False
        await gate.watch(resourceVersion=0, reader=reader)
        assert reader.told == ["ADDED b/two 101"]
        await reader.take()
        assert reader.told[1:] == ["ADDED b/three 104"]
        again = written.put("a", "one")
        await settled()
        await reader.take()
        assert reader.told[2:] == [f"ADDED a/one {again}"]
        gone = written.delete("a", "one")
        for _ in range(COLLECTED_EVENTS + 1):
            written.put("b", "two")
        await settled()
        reader.open = True
        await reader.take()
        await settled(1.0)
        assert gate.router.statistics.overrun == 1
        assert reader.told[3:] == [f"DELETED a/one {gone}", f"MODIFIED b/two {written.revision}"]


# -- bounds ------------------------------------------------------------------------------------------------


def test_what_waits_for_a_partition_that_does_not_acknowledge_is_bounded_in_bytes(monkeypatch):
    async def main():
        written = Written(IN_A, NOT_A)
        written.parts[NOT_A.id].mute = True
        async with gateway(written, patience_s=1000.0) as gate:
            everything = await gate.watch(resourceVersion=100)
            of_a = await gate.watch("a", resourceVersion=100)
            for _ in range(9):
                written.put("a", "one", label="x" * 10_000)
            await settled(1.0)
            assert not gate.running[0].done()
            for _ in range(3):
                written.put("a", "one", label="x" * 10_000)
            await settled(1.0)
            assert gate.running[0].done()
            assert everything.told == [], "none of it was cleared"
            assert not gate.running[1].done()
            assert of_a.told[-1] == "MODIFIED a/one 112"

    monkeypatch.setattr(hub, "PENDING_BYTES", 100_000)
    run_virtual(main())
