"""Who waits until a partition has reached a version, and the proofs that are made for them.

A partition that is idle while its siblings move learns nothing of newer versions by itself. So while somebody waits,
its frontier is proved (`watch.proof`), one proof at a time, its result for everybody; a version that does not exist yet
is asked for again, less and less often, until nobody waits any more. The first attempt waits for `PROOF_AFTER_S`:
usually the partition's own watch brings the version sooner.

Siblings of a partition whose feeds are read move on together: clients are shown versions of all of them, and come back
with these. So a frontier that stays behind what was shown elsewhere is proved *unasked*, every few seconds, as if
somebody waited for it; few partitions of a shard at once, so that those somebody does wait for find their slots. The
server is asked as well once the settling time of a new history is over: what came in it is not repeated for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .model.errors import PastLost, ShoalError, TooLargeVersion
from .model.versions import Version
from .store.objects import PartitionStore
from .watch.proof import FrontierProof

log = logging.getLogger("shoal.shards.waiting")

PROOF_AFTER_S = 0.05
PROOF_PAUSE_FIRST_S, PROOF_PAUSE_MAX_S = 0.2, 1.0
"""Between two attempts; doubled from one to the next."""
UNASKED_AFTER_S = 3.0
"""A frontier that is behind what was shown of siblings for so long is proved unasked, which takes about a second."""
UNASKED_WAIT_S = 5.0
"""How long that is tried."""
UNASKED_PAUSE_MAX_S = 60.0
"""It is tried less and less often while it brings nothing."""


class ProofSlots(NamedTuple):
    """How many proofs are under way at once in one shard."""

    all: asyncio.Semaphore
    unasked: asyncio.Semaphore
    """Of these, those nobody waits for."""


class _Waiter(NamedTuple):
    version: Version
    reached: asyncio.Future[None]
    existed: bool
    """The API server has told this version once, so one that says less has lost its past."""


class FrontierWaiters:
    """Those who wait for one partition. Belongs to the event loop of its shard."""

    def __init__(
        self,
        store: PartitionStore,
        proof: FrontierProof,
        *,
        slots: ProofSlots,
        followed: Callable[[], bool],
        read: Callable[[], bool],
    ) -> None:
        self.proofs: Counter[str] = Counter()
        """Attempts by outcome, see `watch.proof`."""
        self.unasked = 0
        """Times the frontier was to be proved although nobody waited for it."""
        self._store = store
        self._proof = proof
        self._slots = slots
        self._followed = followed
        self._read = read
        self._attempt = asyncio.Lock()
        self._waiting: list[_Waiter] = []
        self._proving: asyncio.Task[None] | None = None
        self._keeping_up: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None

    async def reached(self, version: Version, wait_s: float, *, existed: bool = False) -> None:
        """Returns when the frontier has reached `version`. `existed`: the API server is known to have had it.

        Raises:
            PastLost: it `existed`, and the API server says it is not there yet.
            TooLargeVersion: the frontier had not reached it after `wait_s`.
            ShoalError: what `end` was called with meanwhile.
        """
        if version <= self._store.frontier:
            return
        waiter = _Waiter(version, asyncio.get_running_loop().create_future(), existed)
        self._waiting.append(waiter)
        if self._proving is None or self._proving.done():
            name = f"proof {self._store.partition.id}"
            self._proving = asyncio.get_running_loop().create_task(self._prove(), name=name)
        try:
            # NB: not `wait_for`, which until Python 3.12 loses a cancellation that comes together with the result.
            async with asyncio.timeout(wait_s):
                await waiter.reached
        except TimeoutError:
            raise TooLargeVersion(version, self._store.frontier) from None
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    async def ask(self) -> Version | None:
        """The version the API server is at now; None if it does not say."""
        async with self._slots.all, self._attempt:
            return await self._proof.ask()

    def moved(self) -> None:
        """The frontier was proved anew."""
        frontier = self._store.frontier
        for version, waiter, _ in self._waiting:
            if version <= frontier and not waiter.done():
                waiter.set_result(None)

    def overtaken(self) -> None:
        """Readers of siblings are about to be shown something newer."""
        if self._behind() and (self._keeping_up is None or self._keeping_up.done()):
            name = f"keeping up {self._store.partition.id}"
            self._keeping_up = asyncio.get_running_loop().create_task(self._keep_up(), name=name)
        self.asked()

    def asked(self) -> None:
        """Somebody asks for changes, or is about to. Where siblings are not overtaken, because names move among them,
        only that tells that it matters what came in the settling time.
        """
        if self._store.settle_due and (self._settling is None or self._settling.done()):
            name = f"settling {self._store.partition.id}"
            self._settling = asyncio.get_running_loop().create_task(self._settle(), name=name)

    async def end(self, error: Callable[[], ShoalError]) -> None:
        """Nobody need wait any longer."""
        for waiter in self._waiting:
            if not waiter.reached.done():
                waiter.reached.set_exception(error())
        self._waiting = []
        tasks = [task for task in (self._keeping_up, self._settling, self._proving) if task is not None]
        self._keeping_up = self._settling = self._proving = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- unasked ---------------------------------------------------------------------------------------------

    def _behind(self) -> bool:
        return self._store.overtaken > self._store.frontier and self._read()

    async def _keep_up(self) -> None:
        """Has the frontier proved until it is not behind any more."""
        pause_s = UNASKED_AFTER_S
        while True:
            await asyncio.sleep(pause_s)
            async with self._slots.unasked:
                if not self._behind():
                    return
                self.unasked += 1
                frontier = self._store.frontier
                try:
                    await self.reached(Version(frontier + 1), UNASKED_WAIT_S)
                except ShoalError:
                    log.debug("not proved unasked", extra={"partition": self._store.partition.id})
            moved = self._store.frontier > frontier
            pause_s = UNASKED_AFTER_S if moved else min(2 * pause_s, UNASKED_PAUSE_MAX_S)

    async def _settle(self) -> None:
        """Has the server asked until what may have been shown in the settling time is known."""
        pause_s = UNASKED_AFTER_S
        while self._store.settle_due and self._followed():
            async with self._slots.unasked, self._slots.all, self._attempt:
                await self._tried(self._store.frontier)
            if self._store.settle_due:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, UNASKED_PAUSE_MAX_S)

    # -- proofs ----------------------------------------------------------------------------------------------

    def _wanted(self) -> Version | None:
        """The least version somebody waits for still."""
        frontier = self._store.frontier
        return min((waiter.version for waiter in self._waiting if waiter.version > frontier), default=None)

    async def _prove(self) -> None:
        await asyncio.sleep(PROOF_AFTER_S)
        pause_s = PROOF_PAUSE_FIRST_S
        while self._followed() and self._wanted() is not None:
            async with self._slots.all, self._attempt:
                wanted = self._wanted()
                if wanted is None or not self._followed():
                    return
                asked = tuple(self._waiting)
                if not await self._tried(wanted):
                    return
                self._refute(asked)
            if self._wanted() is not None:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PROOF_PAUSE_MAX_S)

    async def _tried(self, wanted: Version) -> bool:
        """One attempt; false if it failed in a way nobody foresaw."""
        try:
            outcome = await self._proof.attempt(wanted)
        except Exception:
            # A bug; those who wait get their 504 as if there were no proofs.
            log.exception("proof failed", extra={"partition": self._store.partition.id})
            self.proofs["failed"] += 1
            return False
        self.proofs[outcome] += 1
        return True

    def _refute(self, asked: Iterable[_Waiter]) -> None:
        """Tells those who waited when the server was asked, and for something it does not know any more."""
        said = self._proof.said
        if said is None:
            return
        newest = max(said, self._store.frontier)
        for waiter in asked:
            if waiter.existed and waiter.version > newest and not waiter.reached.done():
                text = f"the API server lost its past: it told {waiter.version} and is at {newest}"
                waiter.reached.set_exception(PastLost(text))
