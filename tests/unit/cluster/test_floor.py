"""How new a read must be because of what was written through the same gateway."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import run_virtual
from support.local_shards import CONFIG_MAPS, PODS, LocalInstallation, made, named
from support.queries import collection_query

from shoal.cluster.query.floor import KEEP_S, ReadFloor, written_version
from shoal.cluster.query.request import ObjectQuery
from shoal.cluster.query.router import QueryRouter
from shoal.shards.model.errors import TooLargeVersion
from shoal.shards.model.partitions import ExceptNamespaces, OneNamespace

PODS_, MAPS = PODS.resource, CONFIG_MAPS.resource


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_write_concerns_its_resource_and_the_namespace_written_to():
    floor = ReadFloor(Clock())
    floor.note(PODS_, "7", "a")
    floor.note(PODS_, 9, "b")
    assert floor.of(PODS_, "a") == 7
    assert floor.of(PODS_, "b") == 9
    assert floor.of(PODS_, "c") == 0
    assert floor.of(PODS_) == 9, "a list of all namespaces shows both"
    assert floor.of(MAPS) == 0


def test_a_write_whose_namespace_is_not_known_concerns_all():
    floor = ReadFloor(Clock())
    floor.note(PODS_, "7")
    assert floor.of(PODS_, "a") == floor.of(PODS_) == 7


def test_the_floor_never_falls_while_it_is_kept():
    floor = ReadFloor(Clock())
    floor.note(PODS_, "9", "a")
    floor.note(PODS_, "7", "a")
    assert floor.of(PODS_, "a") == 9


@pytest.mark.parametrize("version", ["", "abc", "-1", "7.5", "0", 0, "\u0661"])
def test_what_is_no_version_is_ignored(version):
    floor = ReadFloor(Clock())
    floor.note(PODS_, version, "a")
    assert (floor.of(PODS_), len(floor)) == (0, 0)


def test_a_note_is_forgotten_after_a_minute():
    clock = Clock()
    floor = ReadFloor(clock)
    floor.note(PODS_, "7", "a")
    clock.now += KEEP_S - 1
    assert floor.of(PODS_, "a") == floor.of(PODS_) == 7
    clock.now += 1
    assert floor.of(PODS_, "a") == floor.of(PODS_) == 0


@given(
    st.lists(st.tuples(st.sampled_from([PODS_, MAPS]), st.integers(0, 30), st.integers(1, 99)), max_size=80)
)
def test_however_much_is_written_memory_is_bounded_and_no_write_is_lost(writes):
    floor = ReadFloor(Clock(), notes_max=5)
    newest = {}
    for resource, namespace, version in writes:
        floor.note(resource, version, f"n{namespace}")
        newest[resource, namespace] = max(version, newest.get((resource, namespace), 0))
        assert len(floor) <= 5
        for (known, at), least in newest.items():
            assert floor.of(known, f"n{at}") >= least


def test_what_is_past_its_time_goes_first():
    clock = Clock()
    floor = ReadFloor(clock, notes_max=2)
    floor.note(PODS_, 50, "a")
    clock.now += KEEP_S + 1
    floor.note(PODS_, 60, "b")
    floor.note(PODS_, 70, "c")
    assert [floor.of(PODS_, namespace) for namespace in "abc"] == [0, 60, 70]


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (b'{"kind":"Pod","metadata":{"name":"x","resourceVersion":"17"},"spec":{}}', "17"),
        (b'{"kind":"Status","metadata":{},"status":"Success"}', ""),
        (b'{"kind":"Status"}', ""),
        (b'{"metadata":{"resourceVersion":17}}', ""),
        (b"k8s\x00\n\x0c\n\x02v1\xff", ""),
        (b"[]", ""),
        (b"", ""),
    ],
)
def test_the_version_an_answer_tells(body, version):
    assert written_version(body) == version


def installation_with(floor):
    """Pods of namespace a at version 100, of all others at 90."""
    installation = LocalInstallation(2)
    a = installation.hold(PODS, [made(PODS, "x", namespace="a")], cover=OneNamespace("a"), version=100)
    rest = installation.hold(
        PODS, [made(PODS, "x", namespace="b")], cover=ExceptNamespaces(("a",)), shard=1, version=90
    )
    installation.publish()
    installation.router = QueryRouter(installation.routing, installation.find, floor=floor)
    return installation, a, rest


def test_reads_without_a_version_wait_for_what_was_written():
    async def main():
        loop = asyncio.get_running_loop()
        floor = ReadFloor(loop.time)
        installation, a, rest = installation_with(floor)
        floor.note(PODS_, "120", "a")
        loop.call_later(0.5, lambda: a.put(made(PODS, "new", namespace="a", version=120), version=120))
        answer = await installation.router.get(ObjectQuery(resource=PODS_, namespace="a", name="new"))
        assert (named(answer.body), loop.time()) == ("a/new", pytest.approx(0.5))
        # Nobody waits who does not read there, or asks for no more than what is at hand.
        await installation.router.get(ObjectQuery(resource=PODS_, namespace="b", name="x"))
        listing = await installation.router.list(collection_query(PODS, [("resourceVersion", "0")]))
        assert (listing.version, loop.time()) == (90, pytest.approx(0.5))
        # A list of everything shows what was written and claims its version.
        loop.call_later(0.5, lambda: rest.put(version=130))
        listing = await installation.router.list(collection_query(PODS))
        assert (listing.version, loop.time()) == (120, pytest.approx(1.0))
        assert (await installation.router.count(collection_query(PODS))).count == 3

    run_virtual(main())


def test_what_was_written_and_never_arrives_is_waited_for_three_seconds():
    async def main():
        loop = asyncio.get_running_loop()
        floor = ReadFloor(loop.time)
        installation, _, _ = installation_with(floor)
        floor.note(PODS_, "120", "a")
        with pytest.raises(TooLargeVersion):
            await installation.router.list(collection_query(PODS, namespace="a"))
        assert loop.time() == pytest.approx(3.0)

    run_virtual(main())
