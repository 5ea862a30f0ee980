"""Everything at once, with real processes: four shards on two nodes of a Ray cluster, changes without pause, shards,
gateways and coordinator killed, a node lost and one that hangs, an API server that misbehaves, and partitions that are
moved, cut and put together meanwhile.

At the end every object equals the API server's, no watcher missed anything or went back, nothing is left running and
memory has not grown. ``make chaos`` lets it go on for ten minutes.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
from collections import Counter

import msgspec
import psutil
import pytest
from support.commands import SHOAL, Command, environment, until
from support.ray_nodes import ENVIRONMENT, Nodes
from support.soaking import NAMESPACES, REST_S, Crowd, Server, repeat, settle
from support.watcher_oracle_flavours import CONFIG_MAPS, PODS

from shoal.cluster.cli.comparison import compare
from shoal.cluster.cli.server import Server as Installation
from shoal.shards.model.errors import ShoalError

pytestmark = pytest.mark.e2e

SECONDS = float(os.environ.get("SHOAL_CHAOS_SECONDS") or 30)
SEED = int(os.environ.get("SHOAL_CHAOS_SEED") or 0)
SHARDS = 4
CHURN_A_S, WRITES_A_S = 270.0, 30.0
FAULT_EVERY_S, KILL_EVERY_S, ARRANGE_EVERY_S, NODE_EVERY_S = 3.0, 5.0, 4.0, 25.0
HANG_S = 6.0
GROWTH_MAX = 1.5
"""Memory at the end over that after a third of the time."""
SETTINGS = {
    "follow": {"include": ["configmaps", "pods", "nodes", "events", "leases"]},
    "gateway": {"gateways": 2},
    "ray": {"shard_cpus": 1.0},
    # With these full from the beginning, memory says something.
    "store": {"history_bytes": 1 << 20},
}


@pytest.fixture
def installation(folder, shoal):
    kubeconfig, config = folder / "chaos-kubeconfig", folder / "chaos.yaml"
    config.write_text(json.dumps(SETTINGS))
    source_arguments = ("--seed", SEED, "--pods", 1000, "--kubeconfig", kubeconfig)
    with (
        Nodes(2, cpus=SHARDS, head_cpus=2) as nodes,
        Command("apiserver", *source_arguments, folder=folder) as source,
    ):
        source.says(r"\n")
        arguments = ("--kubeconfig", kubeconfig, "--config", config, "--shards", SHARDS)
        up = Command(
            *("up", *arguments, "--listen", "127.0.0.1:0", "--ray-address", nodes.address),
            folder=folder,
            env=environment(folder, **ENVIRONMENT),
        )
        with up:
            url = up.says(r"Shoal answers at (http://127.0.0.1:\d+)")[1]
            until("ready", lambda: shoal("status", server=url).stdout.startswith("ready"))
            yield msgspec.json.decode(source.stdout)["url"], url, nodes


class Chaos:
    """What is done to an installation, at random, and how often."""

    def __init__(self, url, nodes, folder, rng):
        self._url = url
        self._nodes = nodes
        self._folder = folder
        self._rng = rng
        self._busy = asyncio.Lock()
        self.done = Counter()
        self.refused = Counter()
        self.resident = []

    async def kill(self):
        """One process, as the kernel does when memory is short."""
        name = self._rng.choices(("ShardActor", "GatewayActor", "CoordinatorActor"), (6, 2, 2))[0]
        running = await asyncio.to_thread(self._nodes.actors, name)
        if running:
            try:
                self._rng.choice(running).kill()
            except psutil.NoSuchProcess:
                return
            self.done[f"killed {name}"] += 1

    async def node(self):
        """A node is lost and another comes, or it hangs for a while."""
        async with self._busy:
            node = self._rng.choice(self._nodes.running)
            if self._rng.random() < 0.5:
                await asyncio.to_thread(self._nodes.lose, node)
                self._nodes.add()  # not in a thread: Ray sets signal handlers
                self.done["node lost"] += 1
            else:
                await asyncio.to_thread(self._nodes.hang, node)
                await asyncio.sleep(HANG_S)
                await asyncio.to_thread(self._nodes.wake, node)
                self.done["node hung"] += 1

    async def arrange(self):
        """Moves, cuts, merges or drains something."""
        arguments = await self._order()
        if arguments is None:
            return
        process = await asyncio.create_subprocess_exec(
            *SHOAL,
            *arguments,
            cwd=self._folder,
            env=environment(self._folder, SHOAL_SERVER=self._url),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            _, said = await process.communicate()
        (self.refused if process.returncode else self.done)[arguments[0]] += 1
        assert process.returncode in (0, 1), (arguments, said)

    async def _order(self):
        """Something the coordinator may be asked for; None if nothing is known of partitions just now."""
        try:
            async with Installation(self._url) as shoal:
                report = (await shoal.status()).report
        except ShoalError:
            return None
        partitions = sorted(
            {held.partition for statistics in report.statistics().values() for held in statistics.partitions}
        )
        shards = [f"shard-{number}" for number in range(SHARDS)]
        if not partitions:
            return None
        rng = self._rng
        match rng.choice(("move", "move", "carve", "ranges", "merge", "drain", "undrain", "rebalance")):
            case "move":
                return "move", rng.choice(partitions), rng.choice(shards)
            case "carve":
                return "split", rng.choice(("pods", "configmaps")), "--namespace", rng.choice(NAMESPACES)
            case "ranges":
                return (
                    "split",
                    rng.choice(("pods", "configmaps")),
                    "--ranges",
                    "2",
                    "--field",
                    rng.choice(("uid", "namespace")),
                )
            case "merge":
                return "split", rng.choice(("pods", "configmaps")), "--merge"
            case "drain":
                return "drain", rng.choice(shards)
            case "undrain":
                return "drain", rng.choice(shards), "--undo"
            case _:
                return ("rebalance",)

    async def weigh(self):
        """Notes the memory of all shards."""

        def resident():
            total = 0
            for process in self._nodes.actors("ShardActor"):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
            return total

        self.resident.append(await asyncio.to_thread(resident))


@pytest.mark.timeout(SECONDS + 2 * REST_S + 180)
async def test_nothing_is_missed_and_nothing_goes_back_whatever_happens(installation, folder):
    source_url, url, nodes = installation
    logging.getLogger("shoal").setLevel(logging.CRITICAL)
    rng = random.Random(SEED)
    print(f"SHOAL_CHAOS_SEED={SEED}")
    source = Server(source_url, rng)
    await source.make_namespaces()
    for _ in range(60):
        await source.change()
    crowd = Crowd(url, f"chaos, seed {SEED}", rng, divided=(CONFIG_MAPS, PODS))
    chaos = Chaos(url, nodes, folder, rng)
    try:
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(watcher.run()) for watcher in crowd.watchers]
            await source.churn(CHURN_A_S)
            await asyncio.gather(
                repeat(source.change, 1 / WRITES_A_S, rng, SECONDS),
                repeat(source.disturb, FAULT_EVERY_S, rng, SECONDS),
                repeat(chaos.kill, KILL_EVERY_S, rng, SECONDS),
                repeat(chaos.arrange, ARRANGE_EVERY_S, rng, SECONDS),
                repeat(chaos.node, NODE_EVERY_S, rng, SECONDS),
                repeat(chaos.weigh, SECONDS / 30, rng, SECONDS),
            )
            injected = await source.calm()
            changed = await source.churn(0)
            crowd.steady()
            await settle(source, crowd.watchers)
            for task in watching:
                task.cancel()
        await equal(url, source_url)
    finally:
        await crowd.aclose()
        await source.aclose()
    print(
        dict(chaos.done), "refused:", dict(chaos.refused), "memory:", [size >> 20 for size in chaos.resident]
    )
    assert changed > SECONDS * CHURN_A_S / 2
    assert len(injected) > 4, injected
    assert chaos.done["killed ShardActor"], chaos.done
    assert chaos.done["move"] + chaos.done["split"], (chaos.done, chaos.refused)
    assert crowd.counts["resumed"], crowd.counts
    early, late = (max(part) for part in (chaos.resident[: len(chaos.resident) // 2], chaos.resident[-3:]))
    assert late < GROWTH_MAX * early, chaos.resident


async def equal(url, source_url):
    """Waits until every object Shoal serves is the API server's, and no other."""
    end = asyncio.get_running_loop().time() + REST_S
    while True:
        problem = "not ready"
        try:
            async with Installation(url) as shoal, Installation(source_url) as source:
                comparison = await compare(shoal, source, await shoal.resource_types())
            if comparison.equal:
                return
            problem = str(comparison)
        except ShoalError as error:
            problem = str(error)
        assert asyncio.get_running_loop().time() < end, problem[:3000]
        await asyncio.sleep(1)
