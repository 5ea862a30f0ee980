"""The queue beside a model of client-go's: sets and lists, every rule written down as it is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.clock import run_virtual

from shoal.cluster.workqueue.core import QueueCore
from shoal.cluster.workqueue.limiters import BucketLimiter, ExponentialLimiter
from shoal.cluster.workqueue.queue import ShutDown, WorkQueue

ITEMS = st.sampled_from(["a/0", "a/1", "a/2", "b/0", "b/1", "c/0"])
PRIORITIES = st.sampled_from([-100, 0, 0, 0, 1, 5])
DELAYS = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 10.0])


def group(item: str) -> str:
    return item[0]


@dataclass
class Model:
    """What is to come out next is looked for among everything, every time."""

    fair: bool
    arrivals: int = 0
    waiting: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Priority and place in the order of arrival."""
    processing: set[str] = field(default_factory=set)
    dirty: dict[str, int] = field(default_factory=dict)
    delayed: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    """Time, place in the order of delays, priority."""
    delays: int = 0
    turns: dict[int, list[str]] = field(default_factory=dict)
    """By priority: groups in turn."""
    down: bool = False

    def add(self, item: str, priority: int) -> None:
        if self.down:
            return
        if item in self.waiting:
            old, place = self.waiting[item]
            if priority > old:
                self.waiting[item] = (priority, place)
                self._turn(item, priority)
                self._forget_turns()
        elif item in self.processing:
            self.dirty[item] = max(priority, self.dirty.get(item, priority))
        else:
            self._push(item, priority)

    def _push(self, item: str, priority: int) -> None:
        self.arrivals += 1
        self.waiting[item] = (priority, self.arrivals)
        self._turn(item, priority)

    def _turn(self, item: str, priority: int) -> None:
        turns = self.turns.setdefault(priority, [])
        if group(item) not in turns:
            turns.append(group(item))

    def _forget_turns(self) -> None:
        """A priority with which nothing waits has no turns left over."""
        used = {priority for priority, _ in self.waiting.values()}
        self.turns = {priority: turns for priority, turns in self.turns.items() if priority in used}

    def get(self) -> str | None:
        if not self.waiting:
            return None
        top = max(priority for priority, _ in self.waiting.values())
        candidates = {item: place for item, (priority, place) in self.waiting.items() if priority == top}
        if self.fair:
            turns = self.turns[top]
            while not any(group(item) == turns[0] for item in candidates):
                turns.pop(0)
            mine = turns.pop(0)
            candidates = {item: place for item, place in candidates.items() if group(item) == mine}
            if len(candidates) > 1:
                turns.append(mine)
        item = min(candidates, key=candidates.__getitem__)
        del self.waiting[item]
        self.processing.add(item)
        self._forget_turns()
        return item

    def done(self, item: str) -> None:
        self.processing.remove(item)
        if item in self.dirty:
            self._push(item, self.dirty.pop(item))

    def add_after(self, item: str, delay: float, now: float, priority: int) -> None:
        if self.down:
            return
        if delay <= 0:
            self.add(item, priority)
            return
        self.delays += 1
        new = (now + delay, self.delays, priority)
        old = self.delayed.get(item)
        if old is None:
            self.delayed[item] = new
        else:
            at, place = (old if old[0] <= new[0] else new)[:2]
            self.delayed[item] = (at, place, max(old[2], priority))

    def advance(self, now: float) -> None:
        ready = sorted((at, place, item) for item, (at, place, _) in self.delayed.items() if at <= now)
        for _, _, item in ready:
            self.add(item, self.delayed.pop(item)[2])


class QueueMachine(RuleBasedStateMachine):
    """The core does what the model does."""

    fair = False

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.model = Model(self.fair)
        self.core: QueueCore[str] = QueueCore(ExponentialLimiter(), group if self.fair else None)

    @rule(item=ITEMS, priority=PRIORITIES)
    def add(self, item: str, priority: int) -> None:
        before = len(self.model.waiting)
        self.model.add(item, priority)
        assert self.core.add(item, self.now, priority) == (len(self.model.waiting) > before)

    @rule(item=ITEMS, delay=DELAYS, priority=PRIORITIES)
    def add_after(self, item: str, delay: float, priority: int) -> None:
        self.model.add_after(item, delay, self.now, priority)
        self.core.add_after(item, delay, self.now, priority)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        before = len(self.model.waiting)
        self.model.advance(self.now)
        assert self.core.advance(self.now) == len(self.model.waiting) - before

    @rule()
    def get(self) -> None:
        expected = self.model.get()
        found = self.core.get(self.now)
        assert (None if found is None else found.item) == expected

    @precondition(lambda self: self.model.processing)
    @rule(choice=st.integers(0, 5))
    def done(self, choice: int) -> None:
        processing = sorted(self.model.processing)
        item = processing[choice % len(processing)]
        again = item in self.model.dirty
        self.model.done(item)
        assert self.core.done(item, self.now) == again

    @precondition(lambda self: self.model.arrivals > 8)
    @rule()
    def shut_down(self) -> None:
        self.model.down = True
        self.model.delayed.clear()
        self.core.shut_down()

    @invariant()
    def they_agree(self) -> None:
        model, core = self.model, self.core
        assert len(core) == len(model.waiting)
        assert core.idle == (not model.waiting and not model.processing)
        assert core.next_ready_at == min((at for at, _, _ in model.delayed.values()), default=None)
        statistics = core.statistics(self.now)
        depth: dict[int, int] = {}
        for priority in [*(priority for priority, _ in model.waiting.values()), *model.dirty.values()]:
            depth[priority] = depth.get(priority, 0) + 1
        assert statistics.depth == depth
        assert statistics.processing == len(model.processing)
        assert statistics.delayed == len(model.delayed)
        assert statistics.adds == statistics.queue_s.count + sum(depth.values())
        assert statistics.work_s.count + statistics.processing == statistics.queue_s.count


class FairQueueMachine(QueueMachine):
    """With groups that take turns."""

    fair = True


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
FairQueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestQueue = QueueMachine.TestCase
TestFairQueue = FairQueueMachine.TestCase


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.tuples(ITEMS, DELAYS, st.sampled_from([0.0, 0.3, 1.0])), max_size=40),
    workers=st.integers(1, 4),
    seconds=st.sampled_from([0.0, 0.4, 3.0]),
)
def test_workers_see_every_item_after_its_last_add_and_never_twice_at_a_time(
    steps: list[tuple[str, float, float]], workers: int, seconds: float
) -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue(fair_by=group)
        loop = asyncio.get_running_loop()
        added: dict[str, float] = {}
        earliest: dict[str, float] = {}
        began: dict[str, list[float]] = {}
        busy: set[str] = set()

        async def work() -> None:
            while True:
                try:
                    item = await queue.get()
                except ShutDown:
                    return
                assert item not in busy
                busy.add(item)
                began.setdefault(item, []).append(loop.time())
                await asyncio.sleep(seconds)
                busy.remove(item)
                queue.done(item)

        running = [asyncio.create_task(work()) for _ in range(workers)]
        for item, delay, pause in steps:
            queue.add_after(item, delay)
            added[item] = loop.time()
            earliest[item] = min(earliest.get(item, 1e9), loop.time() + max(delay, 0.0))
            await asyncio.sleep(pause)
        await asyncio.sleep(200.0)
        assert queue.statistics().delayed == 0
        assert await queue.drain(10.0)
        await asyncio.gather(*running)
        assert began.keys() == added.keys()
        assert all(began[item][-1] >= at for item, at in added.items()), "something was missed"
        # Timers of a loop may come early by the resolution of its clock.
        assert all(began[item][0] >= at - 1e-6 for item, at in earliest.items()), "something came too early"

    run_virtual(main())


@given(moments=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=200), burst=st.integers(1, 20))
def test_a_bucket_never_lets_more_through_than_its_rate(moments: list[float], burst: int) -> None:
    bucket: BucketLimiter[str] = BucketLimiter(10.0, burst)
    now, allowed = 0.0, []
    for pause in moments:
        now += pause / 50
        allowed.append(now + bucket.delay_s("x", now))
    for first, begin in enumerate(allowed):
        within = sum(begin <= at <= begin + 1.0 + 1e-9 for at in allowed[first:])
        assert within <= burst + 10 + 1
