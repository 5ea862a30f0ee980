"""Who waits until a partition has reached a version, and the proofs that are made for them.

A partition that is idle while its siblings move learns nothing of newer versions by itself. So while somebody waits,
its frontier is proved (`watch.proof`), one proof at a time, its result for everybody; a version that does not exist yet
is asked for again, less and less often, until nobody waits any more. The first attempt waits for `PROOF_AFTER_S`:
usually the partition's own watch brings the version sooner.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from .model.errors import ShoalError, TooLargeVersion
from .model.versions import Version
from .store.objects import PartitionStore
from .watch.proof import FrontierProof

log = logging.getLogger("shoal.shards.waiting")

PROOF_AFTER_S = 0.05
PROOF_PAUSE_FIRST_S, PROOF_PAUSE_MAX_S = 0.2, 1.0
"""Between two attempts; doubled from one to the next."""


class FrontierWaiters:
    """Those who wait for one partition. Belongs to the event loop of its shard."""

    def __init__(
        self,
        store: PartitionStore,
        proof: FrontierProof,
        *,
        slots: asyncio.Semaphore,
        followed: Callable[[], bool],
    ) -> None:
        self.proofs: Counter[str] = Counter()
        """Attempts by outcome, see `watch.proof`."""
        self._store = store
        self._proof = proof
        self._slots = slots
        self._followed = followed
        self._waiting: list[tuple[Version, asyncio.Future[None]]] = []
        self._proving: asyncio.Task[None] | None = None

    async def reached(self, version: Version, wait_s: float) -> None:
        """Returns when the frontier has reached `version`.

        Raises:
            TooLargeVersion: it had not after `wait_s`.
            ShoalError: what `end` was called with meanwhile.
        """
        if version <= self._store.frontier:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (version, waiter)
        self._waiting.append(entry)
        if self._proving is None or self._proving.done():
            name = f"proof {self._store.partition.id}"
            self._proving = asyncio.get_running_loop().create_task(self._prove(), name=name)
        try:
            await asyncio.wait_for(waiter, wait_s)
        except TimeoutError:
            raise TooLargeVersion(version, self._store.frontier) from None
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def moved(self) -> None:
        """The frontier was proved anew."""
        frontier = self._store.frontier
        for version, waiter in self._waiting:
            if version <= frontier and not waiter.done():
                waiter.set_result(None)

    async def end(self, error: Callable[[], ShoalError]) -> None:
        """Nobody need wait any longer."""
        for _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(error())
        self._waiting = []
        if self._proving is not None:
            self._proving.cancel()
            await asyncio.wait([self._proving])
            self._proving = None

    def _wanted(self) -> Version | None:
        """The least version somebody waits for still."""
        frontier = self._store.frontier
        return min((version for version, _ in self._waiting if version > frontier), default=None)

    async def _prove(self) -> None:
        await asyncio.sleep(PROOF_AFTER_S)
        pause_s = PROOF_PAUSE_FIRST_S
        while self._followed() and self._wanted() is not None:
            async with self._slots:
                wanted = self._wanted()
                if wanted is None or not self._followed():
                    return
                try:
                    outcome = await self._proof.attempt(wanted)
                except Exception:
                    # A bug; those who wait get their 504 as if there were no proofs.
                    log.exception("proof failed", extra={"partition": self._store.partition.id})
                    self.proofs["failed"] += 1
                    return
            self.proofs[outcome] += 1
            if self._wanted() is not None:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PROOF_PAUSE_MAX_S)
