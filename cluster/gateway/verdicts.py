"""Answers of the API server kept for a while: one question however many ask it, and a bound on everything.

A verdict counts from the moment its question was sent, so that its life is a bound on how stale it is. Whoever asks
what is being asked already waits for that answer. Questions under way and questions waiting are bounded; beyond
that a question is refused, not queued for ever. Good and bad verdicts are kept apart, so that a flood of bad ones
(guessed tokens) does not push out the good. An error is never remembered. What is remembered is small, however long
the question was: keys are digests (`digest`), and verdicts past their life are swept, asked for or not.

Time is the running loop's. Belongs to that loop.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

from ...shards.model.errors import NotReady, TooManyRequests


class Verdict(Protocol):
    """What an answer must say of itself."""

    @property
    def good(self) -> bool:
        """Whether it lets somebody in."""


def digest(question: object) -> bytes:
    """A key of 32 bytes for a question made of texts and tuples, of which nobody else can make one that is equal."""
    return hashlib.blake2b(repr(question).encode("utf-8", "surrogatepass"), digest_size=32).digest()


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Verdict)


class Verdicts(Generic[K, V]):
    """Remembers verdicts of one kind. `good_life_s` and `bad_life_s` are seconds; `remembered` bounds each kind."""

    def __init__(
        self,
        subject: str,
        *,
        good_life_s: float,
        bad_life_s: float,
        remembered: int,
        at_once: int,
        waiting: int,
        timeout_s: float,
    ) -> None:
        self._subject = subject
        self._life_s = {True: good_life_s, False: bad_life_s}
        self._remembered = remembered
        self._waiting = waiting + at_once
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(at_once)
        self._held: dict[bool, OrderedDict[K, tuple[V, float]]] = {True: OrderedDict(), False: OrderedDict()}
        self._asking: dict[K, asyncio.Task[V]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def held(self, key: K) -> V | None:
        """The verdict, if there is one that still counts."""
        now = asyncio.get_running_loop().time()
        for held in self._held.values():
            found = held.get(key)
            if found is None:
                continue
            verdict, until = found
            if now < until:
                held.move_to_end(key)
                return verdict
            del held[key]
        return None

    async def of(self, key: K, ask: Callable[[], Awaitable[V]], *, remember: bool = True) -> V:
        """The verdict for `key`, asked for unless one is held; `remember` says whether it is worth being held.

        Raises:
            NotReady: it did not come in time.
            TooManyRequests: too many questions are waiting.
            ShoalError: what `ask` raises.
        """
        verdict = self.held(key)
        if verdict is not None:
            return verdict
        task = self._asking.get(key)
        if task is None:
            if len(self._asking) >= self._waiting:
                raise TooManyRequests(
                    f"too many questions of {self._subject} are waiting for the API server, please try again later",
                    retry_after_s=1,
                )
            # A task of its own: whoever asked first may go away while others wait for the same answer.
            task = asyncio.create_task(
                self._ask(key, ask, remember=remember), name=f"review of {self._subject}"
            )
            self._asking[key] = task
            task.add_done_callback(_looked_at)
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Ends what is being asked."""
        if self._sweep is not None:
            self._sweep.cancel()
        tasks = tuple(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, key: K, ask: Callable[[], Awaitable[V]], *, remember: bool) -> V:
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._turns:
                    asked_at = asyncio.get_running_loop().time()
                    verdict = await ask()
        except TimeoutError:
            raise NotReady(
                f"the API server did not answer a question of {self._subject} within {self._timeout_s:g} s",
                retry_after_s=1,
            ) from None
        finally:
            del self._asking[key]
        if remember:
            self._keep(key, verdict, asked_at)
        return verdict

    def _keep(self, key: K, verdict: V, asked_at: float) -> None:
        held = self._held[verdict.good]
        held[key] = (verdict, asked_at + self._life_s[verdict.good])
        held.move_to_end(key)
        if len(held) > self._remembered:
            held.popitem(last=False)
        self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweep is None and len(self):
            loop = asyncio.get_running_loop()
            self._sweep = loop.call_later(max(self._life_s.values()), self._sweep_now)

    def _sweep_now(self) -> None:
        """Forgets what is past its life: twice that long after it was asked nothing of it is left."""
        self._sweep = None
        now = asyncio.get_running_loop().time()
        for held in self._held.values():
            for key in [key for key, (_, until) in held.items() if until <= now]:
                del held[key]
        self._sweep_later()


def _looked_at(task: asyncio.Task[V]) -> None:
    """Keeps the loop from complaining of an error that nobody waited for any more."""
    if not task.cancelled():
        task.exception()
