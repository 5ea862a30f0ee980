"""Watchers of an API server in virtual time, decided by a seed: of the embedded one itself, or of Shoal's gateways.

`WatchSimulation(seed).run()` fills a server, starts watchers of every flavour (`support.watcher_oracle_flavours`), lets
writers write and troubles happen, takes all trouble away, and waits until what every watcher has rebuilt equals the
server; then it begins again, a few times, because what was missed is soon overwritten. What watchers are told on the
way is judged line by line.

Against the embedded server alone it proves the oracle: that server's watches are those of kube-apiserver.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from support.clock import run_virtual
from support.watch_simulation_world import World
from support.watcher_oracle import Watcher
from support.watcher_oracle_flavours import Flavour, flavours
from support.watcher_oracle_replica import Replica

from shoal.shards.api.client import ApiConnection

ROUNDS = (1, 3)
REST_S = 700.0
"""More than any stream, stall and back-off takes to be over."""


class WatchSimulation:
    """One seed, with watchers of the embedded API server itself."""

    REPEATED_BY = "WatchSimulation({seed}).run()"
    ROUGH = True
    """What is watched has faults of its own."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.watchers: list[Watcher] = []
        self.world: World

    def run(self) -> WatchSimulation:
        """Raises AssertionError with the seed and the story of what went wrong."""
        try:
            run_virtual(self._main())
        except Exception as error:
            cause: BaseException = error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            story = "\n".join(self.world.log[-60:])
            raise AssertionError(
                f"seed {self.seed}: {type(cause).__name__}: {cause}\n\n{story}\n\n"
                f"again: {self.REPEATED_BY.format(seed=self.seed)}"
            ) from error
        return self

    @property
    def counts(self) -> Counter[str]:
        """What watchers went through."""
        return sum((watcher.counts for watcher in self.watchers), Counter())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.world = self._make_world()
        await self._start()
        watching: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for flavour in self._chosen():
                    watcher = self._watcher(flavour)
                    self.watchers.append(watcher)
                    watching.append(group.create_task(watcher.run(), name=f"watcher {flavour.name}"))
                group.create_task(self._rounds(watching), name="rounds")
        finally:
            await self._stop()

    async def _rounds(self, watching: list[asyncio.Task[None]]) -> None:
        for _ in range(self.rng.choice(ROUNDS)):
            for watcher in self.watchers:
                watcher.steady = False
            await self._trouble(self.loop.time() + self.rng.choice((5.0, 20.0, 60.0)))
            for watcher in self.watchers:
                watcher.steady = True
            self._calm()
            await self._settle()
        for _ in range(10):
            self.world.change()
        await self._settle()
        for task in watching:
            task.cancel()

    # -- what is watched: to be replaced by simulations of more than the API server ---------------------------

    def _make_world(self) -> World:
        return World(self.rng, seed=self.seed)

    async def _start(self) -> None:
        """Brings up what is watched."""

    async def _stop(self) -> None:
        """Takes it down."""

    async def _trouble(self, until: float) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.world.write(until))
            group.create_task(self.world.disturb(until, self.rng.choice((4.0, 15.0, 60.0))))

    def _calm(self) -> None:
        self.world.calm()

    def _connect(self) -> Callable[[], ApiConnection]:
        connection = self.world.connection()
        return lambda: connection

    def _divided(self, flavour: Flavour) -> bool:
        """Whether what it watches is served from several partitions."""
        return False

    def _is_cut(self, flavour: Flavour) -> bool:
        """Whether its resource is."""
        return False

    # -- watchers --------------------------------------------------------------------------------------------

    def _chosen(self) -> list[Flavour]:
        known = flavours()
        return self.rng.sample(known, k=min(len(known), 8))

    def _watcher(self, flavour: Flavour) -> Watcher:
        replica = Replica(
            flavour,
            f"seed {self.seed}",
            self.loop.time,
            self.world.truths[flavour.resource],
            divided=self._divided(flavour),
            cut=self._is_cut(flavour),
        )
        return Watcher(
            replica,
            self._connect(),
            random.Random(self.rng.getrandbits(64)),
            rough=self.ROUGH,
            slow=self.rng.choice((0.0, 0.0, 0.0, 0.05)),
            fickle=self.rng.choice((0.0, 0.0, 0.05, 0.3)),
        )

    async def _settle(self) -> None:
        end = self.loop.time() + REST_S
        while wrong := self._differences():
            if self.loop.time() > end:
                stories = "\n  ".join(self.watchers[wrong[0][0]].replica.story)
                raise AssertionError(f"No gap: at rest, {'; '.join(text for _, text in wrong)}\n  {stories}")
            await asyncio.sleep(2.0)

    def _differences(self) -> list[tuple[int, str]]:
        found = []
        for number, watcher in enumerate(self.watchers):
            flavour = watcher.flavour
            truth = self.world.truths[flavour.resource]
            wanted = {state.key: state.version for state in truth.objects() if flavour.wants(state)}
            if text := watcher.replica.equals(wanted):
                found.append((number, text))
        return found
