import asyncio

import pytest
from support.clock import run_virtual

from shoal.coordinator.permit_desk import PermitDesk
from shoal.coordinator.permits import Holder, PermitBook
from shoal.coordinator.settings import PermitSettings
from shoal.shards.model.errors import TimedOut
from shoal.shards.model.partitions import PartitionId, ShardId

TWO = PermitSettings(lists_at_once=2, lease_s=60, place_kept_s=10)


def who(number, shard=0):
    return Holder(ShardId(f"shard-{shard}"), PartitionId(f"v1/p{number}"))


def granted(book, now, count=9):
    return [number for number in range(count) if book.lease_of(who(number), now) is not None]


def test_first_come_first_served_and_never_more_than_allowed():
    book = PermitBook(TWO)
    for number in range(5):
        book.ask(who(number), 0)
    assert granted(book, 0) == [0, 1]
    book.release(book.lease_of(who(1), 1).lease_id, 1)
    assert granted(book, 1) == [0, 2]
    status = book.status(1)
    assert (status.limit, status.held, status.waiting, status.granted_total) == (2, 2, 2, 3)


def test_asking_twice_is_asking_once():
    book = PermitBook(TWO)
    for _ in range(3):
        book.ask(who(0), 0)
    lease = book.lease_of(who(0), 0)
    book.ask(who(0), 1)
    assert book.lease_of(who(0), 1) == lease
    assert book.status(1).held == 1


def test_a_permit_that_is_not_given_back_expires():
    book = PermitBook(TWO)
    for number in range(3):
        book.ask(who(number), number)
    assert book.next_change(10) == 50
    assert granted(book, 59) == [0, 1]
    assert granted(book, 60) == [1, 2]
    assert book.status(60).expired_total == 1


def test_giving_back_twice_or_too_late_frees_nothing_of_others():
    book = PermitBook(TWO)
    book.ask(who(0), 0)
    lease = book.lease_of(who(0), 0)
    book.release(lease.lease_id, 1)
    book.ask(who(0), 2)
    book.release(lease.lease_id, 3)
    assert granted(book, 3) == [0]


def test_a_shard_that_died_gives_back_everything():
    book = PermitBook(TWO)
    book.ask(who(0, shard=1), 0)
    book.ask(who(1, shard=1), 0)
    book.ask(who(2, shard=1), 0)
    book.ask(who(3), 0)
    book.shard_gone(ShardId("shard-1"), 1)
    assert book.lease_of(who(3), 1) is not None
    assert (book.status(1).held, book.status(1).waiting, book.status(1).expired_total) == (1, 0, 2)


def test_who_asks_again_soon_keeps_its_place_and_blocks_nobody():
    book = PermitBook(PermitSettings(lists_at_once=1, lease_s=60, place_kept_s=10))
    for number in range(4):
        book.ask(who(number), 0)
    book.leave(who(1), 5)
    book.release(book.lease_of(who(0), 6).lease_id, 6)
    assert granted(book, 6) == [2], "the absent one is passed over"
    book.ask(who(1), 8)
    book.release(book.lease_of(who(2), 9).lease_id, 9)
    assert granted(book, 9) == [1], "and is served before those behind it"


def test_a_place_left_for_long_is_lost():
    book = PermitBook(PermitSettings(lists_at_once=1, place_kept_s=10))
    for number in range(3):
        book.ask(who(number), 0)
    book.leave(who(1), 0)
    assert book.status(10).waiting == 1


def test_leases_of_two_coordinators_have_different_names():
    first, second = PermitBook(TWO, prefix="a"), PermitBook(TWO, prefix="b")
    first.ask(who(0), 0)
    second.ask(who(0), 0)
    second.release(first.lease_of(who(0), 0).lease_id, 1)
    assert second.lease_of(who(0), 1) is not None


# -- waiting
# --------------------------------------------------------------------------------------------------


def test_waiting_ends_when_a_permit_is_given_back():
    async def main():
        desk = PermitDesk(PermitSettings(lists_at_once=2))
        loop, order = asyncio.get_running_loop(), []

        async def lists(number):
            await asyncio.sleep(number / 1000)
            lease = await desk.acquire(*who(number), timeout_s=60)
            order.append((number, round(loop.time())))
            assert desk.status().held <= 2
            await asyncio.sleep(5)
            desk.release(lease)

        async with asyncio.TaskGroup() as tasks:
            for number in range(6):
                tasks.create_task(lists(number))
        assert order == [(0, 0), (1, 0), (2, 5), (3, 5), (4, 10), (5, 10)]
        assert desk.status().held == desk.status().waiting == 0

    run_virtual(main())


def test_waiting_has_a_deadline():
    async def main():
        desk = PermitDesk(PermitSettings(lists_at_once=1))
        await desk.acquire(*who(0))
        with pytest.raises(TimedOut, match="no permit to list v1/p1 within 7 s"):
            await desk.acquire(*who(1), timeout_s=7)
        assert asyncio.get_running_loop().time() == pytest.approx(7)

    run_virtual(main())


def test_waiting_ends_when_a_lease_expires_or_its_holder_dies():
    async def main():
        desk = PermitDesk(PermitSettings(lists_at_once=1, lease_s=20))
        loop = asyncio.get_running_loop()
        await desk.acquire(*who(0))
        await desk.acquire(*who(1, shard=1))
        assert loop.time() == pytest.approx(20)
        loop.call_later(5, desk.shard_gone, ShardId("shard-1"))
        await desk.acquire(*who(2))
        assert loop.time() == pytest.approx(25)

    run_virtual(main())


def test_who_is_cancelled_does_not_wait_any_more():
    async def main():
        desk = PermitDesk(PermitSettings(lists_at_once=1, place_kept_s=5))
        first = await desk.acquire(*who(0))
        waiting = asyncio.create_task(desk.acquire(*who(1)))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.sleep(1)
        desk.release(first)
        await desk.acquire(*who(2), timeout_s=0)
        assert asyncio.get_running_loop().time() == pytest.approx(2)

    run_virtual(main())
