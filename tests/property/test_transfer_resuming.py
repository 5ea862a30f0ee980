"""Hand-offs lose nobody anything: whoever was shown a version before comes back at it afterwards, wherever.

Partitions of one resource are moved, cut and joined without a list, while the server goes on, while events arrive late
and out of step, and while clients are shown versions of one partition that others have not reached. What a client then
knows must be what the partitions hold, and nothing it knew may have gone back. Each run is made of a seed, which its
name and its story tell.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.handed_over import SETTLED_S, Client, World
from support.moved_stores import BY_UID, DIVISIONS, NAMES, NAMESPACES

from shoal.shards.model.versions import Version

CUTS = sorted(set(DIVISIONS) - BY_UID)
SELECTORS = ("", "app=web", "app!=web")
STEPS = 250
RUNS, SEEDS_A_RUN = 12, 25


class Simulation:
    """One run: what happens, in an order of chance."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.story: list[str] = []
        self.seen: Counter[str] = Counter()
        covers = DIVISIONS[self.rng.choice(CUTS)]
        self.world = World(covers, history_bytes=self.rng.choice([5000, 1 << 20, 1 << 20]))
        for _ in range(self.rng.randrange(6)):
            self.world.change(self.an_object(), deleted=False)
        for part in self.world.parts:
            part.list_all()
        if self.rng.random() < 0.7:
            self.world.pass_time(SETTLED_S)
        self.actions: list[tuple[Callable[[], object], int]] = [
            (self.event, 10),
            (self.elsewhere, 3),
            (self.arrive, 8),
            (self.proved, 3),
            (self.relist, 1),
            (self.asked_where_it_is, 1),
            (self.time_passes, 1),
            (self.hand_off, 6),
            (self.hand_off_fails, 1),
            (self.a_shard_dies, 1),
            (self.a_client_lists, 3),
            (self.a_bookmark, 6),
            (self.clients_go_away, 4),
            (self.a_client_comes_back, 12),
        ]

    def run(self) -> None:
        acts, weights = zip(*self.actions, strict=True)
        for _ in range(STEPS):
            act = self.rng.choices(acts, weights)[0]
            self.story.append(f"{act.__name__} at {self.world.version}")
            act()
            for client in self.world.clients:
                assert not client.connected or client.known == self.world.matching(client.selector)

    def tell(self, text: str) -> None:
        self.story[-1] += f": {text}"

    def an_object(self) -> dict[str, Any]:
        rng = self.rng
        labels: dict[str, str] = {"app": rng.choice(["web", "db"])} if rng.random() < 0.7 else {}
        named = {"namespace": rng.choice(NAMESPACES), "name": rng.choice(NAMES)}
        return named | {"uid": f"uid-{rng.randrange(10**6)}", "labels": labels, "node": ""}

    def one_of(self, clients: Sequence[Client]) -> Client | None:
        return self.rng.choice(clients) if clients else None

    # -- the server and its followers ------------------------------------------------------------------------

    def event(self) -> None:
        self.world.change(self.an_object(), deleted=self.rng.random() < 0.3)

    def elsewhere(self) -> None:
        self.world.version += self.rng.randrange(1, 4)

    def arrive(self) -> None:
        self.rng.choice(self.world.followers()).receive(self.rng.randrange(1, 6))

    def proved(self) -> None:
        self.rng.choice(self.world.followers()).reach(self.world.version)

    def relist(self) -> None:
        self.rng.choice(self.world.followers()).list_all()

    def asked_where_it_is(self) -> None:
        store = self.rng.choice(self.world.followers()).store
        store.told(Version(self.world.version), store.moment)

    def time_passes(self) -> None:
        self.world.pass_time(self.rng.choice([1.0, 1.0, 8.0, SETTLED_S, 61.0]))

    # -- hand-offs -------------------------------------------------------------------------------------------

    def hand_off(self) -> None:
        """Its next step, or its first one."""
        world = self.world
        if not world.arriving:
            world.begin(DIVISIONS[self.rng.choice(CUTS)])
        waiting = [arriving for arriving in world.arriving if arriving.part is None]
        if waiting:
            world.capture(waiting[0], wire=self.rng.random() < 0.1)
            self.tell(f"{waiting[0].cover or 'everything'}, {len(waiting[0].extracts)} sources")
        else:
            before = len(world.parts)
            world.switch()
            self.seen[f"{min(before, 2)} to {min(len(world.parts), 2)}"] += 1

    def hand_off_fails(self) -> None:
        self.world.arriving = []

    def a_shard_dies(self) -> None:
        if self.rng.random() < 0.2:
            self.world.die(self.rng.choice(self.world.parts))

    # -- clients ---------------------------------------------------------------------------------------------

    def a_client_lists(self) -> None:
        self.world.list(self.rng.choice(SELECTORS), self.rng.choice([0, 0, 1, 5]))

    def a_bookmark(self) -> None:
        self.world.bookmark(self.world.version - self.rng.choice([0, 0, 1, 3]))

    def clients_go_away(self) -> None:
        for client in self.world.clients:
            client.connected &= self.rng.random() < 0.5

    def a_client_comes_back(self) -> None:
        world = self.world
        client = self.one_of([client for client in world.clients if not client.connected])
        if client is None:
            return
        versions = client.resumable(divided=world.divided)
        since = self.rng.choice([versions[-1], self.rng.choice(versions)])
        self.tell(
            f"{world.clients.index(client)} at {since} of {[part.store.frontier for part in world.parts]}"
        )
        world.resume(client, since)
        self.seen["resumed" if client.connected else "had to list"] += 1


@pytest.mark.parametrize("run", range(RUNS))
def test_whoever_comes_back_after_a_hand_off_knows_everything_and_nothing_went_back(run: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(run * SEEDS_A_RUN, (run + 1) * SEEDS_A_RUN):
        simulation = Simulation(seed)
        try:
            simulation.run()
        except Exception as error:
            error.add_note(f"seed {seed}\n" + "\n".join(simulation.story))
            raise
        seen += simulation.seen
    for wanted in ("1 to 1", "1 to 2", "2 to 1", "2 to 2", "resumed"):
        assert seen[wanted], seen
