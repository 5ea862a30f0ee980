"""The shards of one coordinator: asks each how it is, judges it, and carries instructions to it.

Each shard has at most one question and one series of instructions under way, each with a deadline; a pass
waits `patience_s` for answers and takes what has come, so a slow shard delays nobody. Statistics count as
*fresh* only if they were asked for after the last instruction to that shard was carried out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from ..shards.handle import ShardHandle, ShardProvider
from ..shards.model.errors import NotReady, RetryLater, ShoalError
from ..shards.model.partitions import PartitionId, ShardId
from ..shards.model.queries import ShardStatistics
from ..shards.model.transfers import Profile
from .handoff import Copy
from .instructions import Adopt, Passing, Release, ShardView, Switch
from .liveness import Liveness
from .passing import pass_on
from .settings import LivenessSettings

_log = logging.getLogger("shoal.coordinator.roster")

_FIND_PAUSE_S = 60.0
"""Between two questions which shards run, if the first was not answered."""


class Member:
    """One shard."""

    def __init__(self, shard: ShardId, settings: LivenessSettings, now: float) -> None:
        self.shard = shard
        self.liveness = Liveness(settings, since=now)
        self.statistics: ShardStatistics | None = None
        self.answered_at: float | None = None
        self.leaving = False
        self.handle: ShardHandle | None = None
        self.question: asyncio.Task[None] | None = None
        self.telling: asyncio.Task[None] | None = None
        self.retiring: asyncio.Task[None] | None = None
        self.told = 0
        """Series of instructions carried out so far."""
        self.answered_after = -1
        """How many of them when the question was asked that `statistics` answers."""

    def view(self) -> ShardView:
        """What decisions see of it."""
        busy = self.telling is not None and not self.telling.done()
        return ShardView(
            shard=self.shard,
            state=self.liveness.state,
            fresh=not busy and self.answered_after == self.told,
            statistics=self.statistics,
            answered_at=self.answered_at,
            leaving=self.leaving,
        )


class Roster:
    """All shards there are to be, and those that are to leave. To be entered before use; leaving ends its
    tasks.
    """

    def __init__(
        self,
        provider: ShardProvider,
        settings: LivenessSettings,
        *,
        lost: Callable[[ShardId], None],
        judged: Callable[[], None],
    ) -> None:
        """`lost` is called for a shard whose process is new or which is given up: what it held is void;
        `judged` when the state of any shard has changed.
        """
        self._provider = provider
        self._settings = settings
        self._lost = lost
        self._state_changed = judged
        self._members: dict[ShardId, Member] = {}
        self._profiling: set[PartitionId] = set()
        self._found = False
        """What a predecessor left running is known."""
        self._find_at = 0.0
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def members(self) -> tuple[Member, ...]:
        """In the order of their names' numbers."""
        return tuple(self._members.values())

    def set_wanted(self, shards: Sequence[ShardId], now: float) -> None:
        """These are to run; all others are to leave."""
        for shard in shards:
            if shard not in self._members:
                self._members[shard] = Member(shard, self._settings, now)
        for member in self._members.values():
            member.leaving = member.shard not in shards

    async def observe(self) -> tuple[ShardView, ...]:
        """Asks every shard that owes no answer, and waits a little; what each said last."""
        loop = asyncio.get_running_loop()
        for member in self._members.values():
            if member.retiring is not None and not member.retiring.done():
                continue  # to ask it might start it again
            if member.question is None or member.question.done():
                member.question = self._spawn(self._ask(member), f"ask {member.shard}")
        # Who is suspect or dead is heard when it answers, and not waited for.
        asked = [
            member.question
            for member in self._members.values()
            if member.question is not None and member.liveness.state in ("healthy", "starting")
        ]
        if asked:
            await asyncio.wait(asked, timeout=self._settings.patience_s)
        for member in self._members.values():
            before = member.liveness.state
            member.liveness.waited(loop.time())
            self._judged(member, before)
        return self.views()

    def views(self) -> tuple[ShardView, ...]:
        """What each said last."""
        return tuple(member.view() for member in self._members.values())

    async def tell(self, instructions: Sequence[Adopt | Release], *, until_one: bool) -> None:
        """Carries instructions out: in order for one shard, at once for all. Returns when all are done, or
        after `patience_s`; with `until_one` not before at least one shard is done (or has failed). The others
        go on.
        """
        by_shard: dict[ShardId, list[Adopt | Release]] = {}
        for instruction in instructions:
            by_shard.setdefault(instruction.shard, []).append(instruction)
        told: list[asyncio.Task[None]] = []
        for shard, few in by_shard.items():
            member = self._members[shard]
            before = member.telling
            member.telling = self._spawn(self._carry(member, few, before), f"tell {shard}")
            told.append(member.telling)
        if told:
            _, under_way = await asyncio.wait(told, timeout=self._settings.patience_s)
            if until_one and len(under_way) == len(told):
                await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)

    async def pass_on(self, passing: Passing, *, timeout_s: float, lenient: bool) -> str:
        """Has partitions pass from who serves them to who is to (`coordinator.passing`); empty, or why it failed.

        Adoptions on their way to a giver would wake it up again, so they are let through first.
        """
        concerned = {copy.shard for copy in (*passing.givers, *passing.takers)}
        try:
            async with asyncio.timeout(timeout_s):
                before = [
                    member.telling
                    for member in self._members.values()
                    if member.shard in concerned and member.telling is not None and not member.telling.done()
                ]
                if before:
                    await asyncio.wait(before)
                await pass_on(passing, self._reachable, lenient=lenient)
        except Exception as error:  # noqa: BLE001 - whatever the failure is, it is this passing's
            for shard in concerned & self._members.keys():
                self._members[shard].told += 1  # what they said before is not how they are now
            why = f"not handed over: {_said(error)}"
            _log.warning("partitions not handed over", extra={"givers": _texts(passing.givers), "error": why})
            return why
        return ""

    def profile(self, shard: ShardId, partition: PartitionId, answered: Callable[[Profile], None]) -> None:
        """Has a shard say where the load of a partition is, beside everything else; one question for each at a time.
        One that fails is forgotten: it is asked again as long as the answer is wanted.
        """
        if partition in self._profiling:
            return

        async def ask() -> None:
            try:
                async with asyncio.timeout(self._settings.call_timeout_s):
                    answered(await self._reachable(shard).profile(partition))
            except Exception as error:  # noqa: BLE001 - whatever the failure is, nothing depends on it
                _log.info("no profile", extra={"shard": shard, "partition": partition, "error": _said(error)})
            finally:
                self._profiling.discard(partition)

        self._profiling.add(partition)
        self._spawn(ask(), f"profile {partition}")

    def begin(self, switch: Switch, outcome: Callable[[Switch, str], None], *, timeout_s: float) -> None:
        """Carries a switch out beside everything else; its outcome is told as soon as it is known."""

        async def carry_out() -> None:
            outcome(switch, await self.pass_on(switch.passing, timeout_s=timeout_s, lenient=switch.lenient))

        self._spawn(carry_out(), f"switch {switch.number}")

    def _reachable(self, shard: ShardId) -> ShardHandle:
        """Raises NotReady: it never answered."""
        member = self._members.get(shard)
        handle = member.handle if member is not None else None
        if handle is None:
            raise NotReady(f"shard {shard} has not answered yet", retry_after_s=1)
        return handle

    def retire(self, shard: ShardId) -> None:
        """Ends a shard for good, beside everything else; one that cannot be ended now stays on the roster and is tried
        again.
        """
        member = self._members[shard]
        if member.retiring is None or member.retiring.done():
            member.retiring = self._spawn(self._retire(member), f"retire {shard}")

    async def _retire(self, member: Member) -> None:
        shard = member.shard
        for task in (member.question, member.telling):
            if task is not None:
                task.cancel()
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await self._provider.retire(shard)
        except Exception as error:  # noqa: BLE001 - whatever a provider's failure is, it is this shard's
            member.liveness.message = f"cannot be ended: {_said(error)}"
            _log.warning("shard not retired", extra={"shard": shard, "error": _said(error)})
            return
        if self._members.get(shard) is member:
            del self._members[shard]
        self._lost(shard)
        _log.info("shard retired", extra={"shard": shard})

    async def find(self, now: float) -> None:
        """Takes in shards that run and that nobody wanted yet: those of a predecessor that had more. Returns when the
        provider has said, which it is asked until it does, or after `call_timeout_s`.
        """
        if self._found or now < self._find_at:
            return
        self._find_at = now + _FIND_PAUSE_S
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                running = await self._provider.existing()
        except Exception as error:  # noqa: BLE001 - it is asked again
            _log.warning("running shards not found out", extra={"error": _said(error)})
            return
        self._found = True
        for shard in sorted(running, key=_in_order):
            if shard not in self._members:
                self._members[shard] = Member(shard, self._settings, now)

    # -- tasks
    # ------------------------------------------------------------------------------------------------

    async def _ask(self, member: Member) -> None:
        loop = asyncio.get_running_loop()
        before = member.liveness.state
        try:
            handle = member.handle
            if handle is None or before in ("suspect", "dead"):
                async with asyncio.timeout(self._settings.start_timeout_s):
                    handle = member.handle = await self._provider.ensure(member.shard)
            told = member.told
            async with asyncio.timeout(self._settings.answer_timeout_s):
                statistics = await handle.statistics(member.statistics.answer if member.statistics else 0)
        except Exception as error:  # noqa: BLE001 - whatever the failure is, it is this shard's
            member.liveness.failed(_said(error), loop.time())
        else:
            member.answered_after = told
            member.statistics = statistics
            member.answered_at = loop.time()
            if member.liveness.answered(statistics.incarnation, loop.time()):
                _log.info("shard restarted", extra={"shard": member.shard})
                self._lost(member.shard)
        self._judged(member, before)

    async def _carry(
        self, member: Member, instructions: Sequence[Adopt | Release], before: asyncio.Task[None] | None
    ) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        handle = member.handle
        assert handle is not None, "only shards that have answered are told anything"
        try:
            for instruction in instructions:
                await self._carry_out(handle, instruction)
        except Exception as error:  # noqa: BLE001 - seen again in the statistics, and told again
            _log.warning("instruction failed", extra={"shard": member.shard, "error": _said(error)})
        finally:
            member.told += 1

    async def _carry_out(self, handle: ShardHandle, instruction: Adopt | Release) -> None:
        async with asyncio.timeout(self._settings.call_timeout_s):
            match instruction:
                case Adopt(_, assignments, epoch, sources):
                    try:
                        await handle.adopt(assignments, epoch, sources)
                    except RetryLater:
                        raise
                    except ShoalError as error:
                        if len(assignments) == 1:
                            raise
                        # One that cannot be followed must not keep the others from being.
                        _log.warning(
                            "adopted one by one", extra={"shard": handle.shard_id, "error": _said(error)}
                        )
                        await self._adopt_each(handle, instruction)
                case Release(_, partitions, epoch):
                    await handle.release(partitions, epoch)

    async def _adopt_each(self, handle: ShardHandle, adopt: Adopt) -> None:
        """Raises what the last one that failed has raised."""
        failure: ShoalError | None = None
        for assignment in adopt.assignments:
            try:
                await handle.adopt((assignment,), adopt.epoch, adopt.sources)
            except ShoalError as error:
                failure = error
        if failure is not None:
            raise failure

    def _judged(self, member: Member, before: str) -> None:
        state = member.liveness.state
        if state == before:
            return
        _log.info(
            "shard judged",
            extra={"shard": member.shard, "state": state, "before": before, "why": member.liveness.message},
        )
        if state == "dead":
            self._lost(member.shard)
        self._state_changed()

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._tasks.create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


def _in_order(shard: ShardId) -> tuple[int, str]:
    number = shard.rpartition("-")[2]
    return (int(number) if number.isdecimal() else 0), shard


def _texts(copies: Iterable[Copy]) -> list[str]:
    return [str(copy) for copy in copies]


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
