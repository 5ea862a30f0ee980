import asyncio

from support.clock import run_virtual

from shoal.cluster.gateway.trimming import GROWTH_BYTES, PERIOD_S, keep_trimmed, malloc_trim, resident_bytes


def test_memory_is_given_back_when_the_process_has_grown_and_only_then():
    sizes = {"now": 100 << 20}
    trims = []

    def trim():
        trims.append(sizes["now"])
        sizes["now"] = 110 << 20

    async def main():
        task = asyncio.create_task(keep_trimmed(trim, lambda: sizes["now"]))
        await asyncio.sleep(3 * PERIOD_S)
        assert trims == []
        sizes["now"] += GROWTH_BYTES + 1
        while not trims:
            await asyncio.sleep(PERIOD_S)
        sizes["now"] += GROWTH_BYTES // 2
        await asyncio.sleep(5 * PERIOD_S)
        assert len(trims) == 1
        task.cancel()

    run_virtual(main())


def test_the_c_librarys_own_call_gives_back_what_lay_between_blocks_in_use():
    trim = malloc_trim()
    if trim is None:
        return
    blocks = [bytes(60_000) for _ in range(4_000)]
    kept = blocks[::50] + blocks[-1:]
    full = resident_bytes()
    del blocks
    trim()
    assert resident_bytes() < full - (100 << 20)
    assert len(kept) == 81
