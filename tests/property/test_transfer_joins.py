"""Several partitions made one are what the server said, at every version anybody may ask for.

The parts are out of step, and have found out about some of it by lists: also about names that were deleted, and made
again on the other side of a range of uids.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.handed_over import SETTLED_S, World
from support.moved_stores import DIVISIONS, FIRST, NAMES, NAMESPACES, Clock, asked, moved, sent, state

from shoal.shards.model.errors import Expired
from shoal.shards.model.partitions import EVERYTHING
from shoal.shards.model.versions import Version
from shoal.shards.store.arrival import contradiction
from shoal.shards.store.transfer import join

RUNS = 120


class Truth:
    """A server whose past is known, and parts that follow it, each in its own way."""

    def __init__(self, seed: int, division: str) -> None:
        self.rng = rng = random.Random(f"{seed} {division}")
        self.world = World(DIVISIONS[division], history_bytes=1 << 20)
        self.past = {FIRST: {}}
        for _ in range(rng.randrange(60)):
            before = self.world.version
            if rng.random() < 0.2:
                self.world.version += rng.randrange(1, 4)
            else:
                self.world.change(self.an_object(), deleted=rng.random() < 0.4)
            bodies = {key: held.body for key, held in self.world.state.items()}
            for version in range(before + 1, self.world.version):
                self.past[version] = self.past[before]
            self.past[self.world.version] = bodies
            part = rng.choice(self.world.parts)
            match rng.randrange(6):
                case 0:
                    part.reach(self.world.version)
                case 1 if rng.random() < 0.3:
                    part.list_all()
                case 2:
                    part.store.overtake(Version(self.world.version))
                case 3 if rng.random() < 0.2:
                    self.world.pass_time(SETTLED_S)
                case _:
                    part.receive(rng.randrange(4))

    def an_object(self) -> dict[str, Any]:
        rng = self.rng
        named = {"namespace": rng.choice(NAMESPACES[:2]), "name": rng.choice(NAMES[:2])}
        return named | {"uid": f"uid-{rng.randrange(10**6)}", "labels": {}, "node": ""}


@pytest.mark.parametrize("division", sorted(DIVISIONS))
def test_parts_joined_are_what_the_server_said_and_go_on_as_it_does(division: str) -> None:
    joined = known = 0
    for seed in range(RUNS):
        truth = Truth(seed, division)
        world = truth.world
        extracts = [part.store.extract() for part in world.parts]
        frontier = min(extract.frontier for extract in extracts)
        try:
            one = join([sent(extract) for extract in extracts], EVERYTHING)
        except Expired:
            # A list was made across the oldest frontier, and nobody knows what was before it.
            assert any(
                part.store._history.in_gap(frontier) or part.store.oldest_version > frontier
                for part in world.parts
            )
            continue
        assert not contradiction(one), f"seed {seed}"
        joined += 1
        store = moved([one], Clock(), EVERYTHING, history_bytes=1 << 20)
        assert store.frontier == frontier
        assert state(store) == truth.past[frontier], f"seed {seed}"
        for version in range(FIRST, frontier + 1):
            was = asked(lambda at=version, store=store: state(store, at))
            gone = version < store.oldest_version or store._history.in_gap(Version(version))
            assert (was == "Expired") == gone
            assert gone or was == truth.past[version], f"seed {seed}, version {version}"
            known += not gone
        for event in world.log:
            if event.version > frontier:
                store.apply(event)
                assert state(store) == truth.past[event.version], f"seed {seed}"
    assert joined > RUNS // 4, joined
    assert known > RUNS, known
