"""Watchers of a real installation: what each has rebuilt equals the API server's objects, and never went back.

Two shards and two gateways on Ray follow an embedded API server that misbehaves while objects change; shards and
gateways are killed with SIGKILL. Watchers of every flavour (`support.watcher_oracle`) read over HTTP. ``make soak
SECONDS=300`` lets it go on for longer.
"""

import asyncio
import json
import logging
import os
import random

import msgspec
import psutil
import pytest
from support.commands import Command, until
from support.soaking import REST_S, Crowd, Server, actors, repeat, settle
from support.watcher_oracle_flavours import CONFIG_MAPS, PODS

pytestmark = pytest.mark.e2e

SECONDS = float(os.environ.get("SHOAL_SOAK_SECONDS") or 20)
SEED = int(os.environ.get("SHOAL_SOAK_SEED") or 0)
WRITES_A_S, FAULT_EVERY_S, KILL_EVERY_S = 40.0, 1.5, 6.0
SETTINGS = {
    "follow": {
        "include": ["configmaps", "pods", "nodes"],
        "carve": {"configmaps": ["alpha", "beta"], "pods": ["alpha"]},
    },
    "gateway": {"gateways": 2},
}


@pytest.fixture
def installation(folder, shoal):
    """The running commands: an API server, and Shoal with two shards and two gateways."""
    kubeconfig, config = folder / "soak-kubeconfig", folder / "soak.yaml"
    config.write_text(json.dumps(SETTINGS))  # JSON is YAML
    with Command("apiserver", "--seed", SEED, "--kubeconfig", kubeconfig, folder=folder) as source:
        source.says(r"\n")
        arguments = ("--kubeconfig", kubeconfig, "--config", config, "--shards", 2, "--listen", "127.0.0.1:0")
        with Command("up", *arguments, folder=folder) as up:
            url = up.says(r"Shoal answers at (http://127.0.0.1:\d+)")[1]
            until("ready", lambda: shoal("status", server=url).stdout.startswith("ready"))
            yield msgspec.json.decode(source.stdout)["url"], url, up


@pytest.mark.timeout(SECONDS + REST_S + 120)
async def test_watchers_survive_whatever_happens_to_processes(installation):
    source_url, url, command = installation
    logging.getLogger("shoal").setLevel(logging.CRITICAL)
    rng = random.Random(SEED)
    source = Server(source_url, rng)
    await source.make_namespaces()
    for _ in range(60):
        await source.change()
    crowd = Crowd(url, f"soak, seed {SEED}", rng, divided=(CONFIG_MAPS, PODS))
    killed = []
    try:
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(watcher.run()) for watcher in crowd.watchers]
            await asyncio.gather(
                repeat(source.change, 1 / WRITES_A_S, rng, SECONDS),
                repeat(source.disturb, FAULT_EVERY_S, rng, SECONDS),
                repeat(lambda: kill(command, rng, killed), KILL_EVERY_S, rng, SECONDS),
            )
            injected = await source.calm()
            crowd.steady()
            await settle(source, crowd.watchers)
            for task in watching:
                task.cancel()
    finally:
        await crowd.aclose()
        await source.aclose()
    assert killed
    assert len(injected) > 4, injected
    assert source.refused < source.writes / 2
    counts = crowd.counts
    assert {"lists", "resumed", "ended", "restarts", "bookmarks"} <= counts.keys(), counts
    # A broken connection, or an answer to try again: a short run need not meet both.
    assert counts["broken"] + counts["again"], counts
    assert crowd.lines > SECONDS * WRITES_A_S


async def kill(command, rng, killed):
    """Ends a shard, or, the next time, a gateway, as the kernel does when memory is short."""
    name = ("ShardActor", "GatewayActor")[len(killed) % 2]
    running = await asyncio.to_thread(actors, command, name)
    if running:
        try:
            rng.choice(running).kill()
        except psutil.NoSuchProcess:
            return
        killed.append(name)
