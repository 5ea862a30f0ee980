"""What watchers of several partitions are told of the past, while some of it arrives as they are told."""

from __future__ import annotations

import pytest
from support.clock import run_virtual
from support.watched_shards import Way, Written
from support.watching import IN_A, NOT_A, WHOLE, gateway, settled

from shoal.cluster.watching import replay
from shoal.shards.model.errors import NotReady


class Late(Way):
    """A shard that hears of everything right after it has acknowledged an overtaking."""

    async def overtake(self, query):
        frontier = await super().overtake(query)
        self.part.hear()
        return frontier


def ways_are(written, kind):
    """Every gateway reaches the shards of `written` by ways of this kind."""
    directory = written.directory
    written.directory = lambda way=None: directory(kind)
    return written


def run_late(write, *, before=lambda written: None):
    """What a watch from the start is told, if the second partition hears of `write` after it was overtaken by a/one."""

    async def main():
        written = Written(IN_A, NOT_A)
        before(written)
        began = written.revision
        write(written)
        async with gateway(ways_are(written, Late)) as gate:
            reader = await gate.watch(resourceVersion=began)
            await settled()
            return reader.told

    return run_virtual(main())


def test_an_object_created_below_the_ceiling_and_changed_above_it_is_added_first():
    def write(written):
        written.put("a", "zero")
        written.put("b", "x", heard=False)
        written.put("a", "one")  # the ceiling
        written.put("b", "x", heard=False)

    assert run_late(write) == ["ADDED a/zero 101", "ADDED b/x 102", "ADDED a/one 103", "MODIFIED b/x 104"]


def test_an_object_created_below_the_ceiling_and_deleted_above_it_is_added_first():
    def write(written):
        written.put("b", "x", heard=False)
        written.put("a", "one")
        written.delete("b", "x", heard=False)

    assert run_late(write) == ["ADDED b/x 101", "ADDED a/one 102", "DELETED b/x 103"]


def test_an_object_deleted_below_the_ceiling_and_created_again_above_it_is_deleted_first():
    def before(written):
        written.put("b", "x")

    def write(written):
        written.delete("b", "x", heard=False)
        written.put("a", "one")
        written.put("b", "x", heard=False)

    assert run_late(write, before=before) == ["DELETED b/x 102", "ADDED a/one 103", "ADDED b/x 104"]


class Breaking(Way):
    """Gives two pages of its first answer that has more, and is lost."""

    breaks = True

    async def changes(self, query):
        number = 0
        async for page in super().changes(query):
            yield page
            number += 1
            if Breaking.breaks and number == 2 and page.more:
                Breaking.breaks = False
                raise NotReady("the connection broke")


@pytest.fixture
def one_a_page(monkeypatch):
    """Each page of changes has one of them."""
    monkeypatch.setattr(replay, "PAGES_BYTES", 1)
    monkeypatch.setattr(replay, "PAGE_BYTES_MIN", 1)
    monkeypatch.setattr(Breaking, "breaks", True)


@pytest.mark.parametrize("parts", [(WHOLE,), (IN_A, NOT_A)])
def test_a_replay_that_breaks_off_between_its_pages_misses_nothing(parts, one_a_page):
    async def main():
        written = Written(*parts)
        written.put("b", "v")
        written.put("b", "x")
        written.put("a", "one")
        written.put("b", "w")
        written.put("b", "x")
        async with gateway(ways_are(written, Breaking)) as gate:
            reader = await gate.watch(resourceVersion=100)
            await settled(1.0)
            assert not Breaking.breaks
            return reader.told

    told = run_virtual(main())
    if len(parts) == 1:
        rest = ["ADDED a/one 103", "ADDED b/w 104", "MODIFIED b/x 105"]
        assert told == ["ADDED b/v 101", "ADDED b/x 102", "ADDED b/x 102", *rest]
    else:
        # Told anew as a whole: gone on with at 103, x would be MODIFIED without ever having been ADDED.
        begun = ["ADDED b/v 101", "ADDED a/one 103", "ADDED b/w 104"]
        assert told == [*begun, *begun, "ADDED b/x 105"]


def test_an_object_left_to_a_round_that_breaks_off_and_gone_by_then_is_not_told_of(one_a_page):
    async def main():
        written = Written(IN_A, NOT_A)

        class Changing(Breaking):
            """Something is created just before it is listed, and deleted just before its changes are asked for."""

            async def stream(self, query):
                if self.part.partition == NOT_A:
                    written.put("b", "short")
                async for page in super().stream(query):
                    yield page

            async def changes(self, query):
                if self.part.partition == NOT_A and Breaking.breaks:
                    written.delete("b", "short")
                    written.put("b", "two")
                    written.put("b", "three")
                async for page in super().changes(query):
                    yield page

        async with gateway(ways_are(written, Changing)) as gate:
            reader = await gate.watch()
            await settled(1.0)
            assert not Breaking.breaks
            assert set(reader.told) == {"ADDED b/two 103", "ADDED b/three 104"}

    run_virtual(main())


def test_after_a_version_that_all_partitions_have_reached_nothing_is_repeated():
    async def main():
        written = Written(IN_A, NOT_A)
        async with gateway(written) as gate:
            first = await gate.watch(resourceVersion=100)
            for _ in range(3):
                written.put("a", "one")
                written.put("b", "two")
            written.bookmark(IN_A.id)
            written.parts[IN_A.id].hear()
            await settled()
            assert len(first.told) == 6
            again = await gate.watch(resourceVersion=106)
            written.put("a", "one")
            await settled()
            assert again.told == ["MODIFIED a/one 107"]
        async with gateway(written) as other:
            assert (await other.watch(resourceVersion=106)).told == ["MODIFIED a/one 107"]

    run_virtual(main())
