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
from support.commands import Command, command_line, until
from support.watcher_oracle import Watcher
from support.watcher_oracle_flavours import CONFIG_MAPS, NODES, PODS, flavours
from support.watcher_oracle_replica import Replica
from support.watcher_oracle_truth import seen_of

from shoal.shards.api.client import HttpConnection, PlainCredentials
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import ShoalError

pytestmark = pytest.mark.e2e

SECONDS = float(os.environ.get("SHOAL_SOAK_SECONDS") or 20)
SEED = int(os.environ.get("SHOAL_SOAK_SEED") or 0)
WRITES_A_S, FAULT_EVERY_S, KILL_EVERY_S = 40.0, 1.5, 6.0
REST_S = 120.0
NAMESPACES = ("alpha", "alpha-2", "beta", "gamma")
RESOURCES = (CONFIG_MAPS, PODS, NODES)
SETTINGS = {
    "follow": {
        "include": ["configmaps", "pods", "nodes"],
        "carve": {"configmaps": ["alpha", "beta"], "pods": ["alpha"]},
    },
    "gateway": {"gateways": 2},
}
FAULTS = (
    *(
        "drop",
        "slow",
        "status-410",
        "status-429",
        "status-500",
        "status-503",
        "ignore-selectors",
        "no-bookmarks",
    ),
    *("cut", "truncate", "garbage", "line-410", "stall", "compact", "restart"),
)
JSON = (("Accept", "application/json"), ("Content-Type", "application/json"))


class Server:
    """The API server over HTTP: writes, faults, and what there is."""

    def __init__(self, url, rng):
        self._connection = HttpConnection(PlainCredentials(url))
        self._rng = rng
        self._faults = []
        self.writes = self.refused = 0

    async def ask(self, method, path, document=None):
        body = b"" if document is None else json.dumps(document).encode()
        async with self._connection.open(ApiRequest(method, path, headers=JSON, body=body)) as answer:
            return answer.status, await answer.read()

    async def make_namespaces(self):
        for name in NAMESPACES:
            status, body = await self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
            assert status == 201, body

    async def change(self):
        """One write. Faults hit writes as well; then nothing has been written."""
        rng = self._rng
        self.writes += 1
        resource = rng.choice((CONFIG_MAPS, CONFIG_MAPS, CONFIG_MAPS, PODS, PODS, NODES))
        namespace = None if resource is NODES else rng.choice(NAMESPACES)
        name = f"node-{rng.randrange(4)}" if resource is NODES else f"object-{rng.randrange(8)}"
        path = resource.path(namespace)
        tier = rng.choice(("front", "back", None))
        labels = {"write": str(self.writes)} | ({"tier": tier} if tier else {})
        document = {"metadata": {"name": name, "labels": labels}}
        if resource is PODS:
            document["spec"] = {
                "nodeName": f"node-{rng.randrange(3)}",
                "containers": [{"name": "c", "image": "i"}],
            }
        try:
            if rng.random() < 0.2:
                options = {"gracePeriodSeconds": 0}
                status, _ = await self.ask("DELETE", f"{path}/{name}", options)
            else:
                status, _ = await self.ask("POST", path, document)
                if status == 409:
                    document.pop("spec", None)
                    status, _ = await self.ask(
                        "PUT", f"{path}/{name}", await self._changed(path, name, labels)
                    )
        except ShoalError:
            status = 0
        self.refused += status not in (200, 201, 404)

    async def _changed(self, path, name, labels):
        status, body = await self.ask("GET", f"{path}/{name}")
        document = json.loads(body)
        if status == 200:
            document["metadata"]["labels"] = labels
        return document

    async def disturb(self):
        """One fault; none a second time before all others were, so that a short run meets most of them."""
        rng = self._rng
        self._faults = self._faults or rng.sample(FAULTS, len(FAULTS))
        kind = self._faults.pop()
        fault = {
            "kind": kind,
            "verb": rng.choice(("list", "watch", "watch")),
            "count": rng.choice((1, 3)),
            "seconds": rng.uniform(0.1, 3.0),
            "immediate": kind in ("cut", "stall") and rng.random() < 0.5,
        }
        status, body = await self.ask("POST", "/simulator/faults", fault)
        assert status == 201, body

    async def calm(self):
        await self.ask("DELETE", "/simulator/faults")
        return json.loads((await self.ask("GET", "/simulator/faults"))[1])["injected"]

    async def objects(self, resource):
        status, body = await self.ask("GET", resource.path())
        assert status == 200, body
        kind = {CONFIG_MAPS: "ConfigMap", PODS: "Pod", NODES: "Node"}[resource]
        return [seen_of({"kind": kind, **item}) for item in json.loads(body)["items"]]

    async def aclose(self):
        await self._connection.aclose()


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


def actors(command, name):
    """Processes of the command's actors of that class."""
    return [
        process
        for process in command.family()
        if (line := command_line(process)) and line[0].startswith(f"ray::{name}")
    ]


@pytest.mark.timeout(SECONDS + REST_S + 120)
async def test_watchers_survive_whatever_happens_to_processes(installation):
    source_url, url, command = installation
    logging.getLogger("shoal").setLevel(logging.CRITICAL)
    rng = random.Random(SEED)
    loop = asyncio.get_running_loop()
    source = Server(source_url, rng)
    await source.make_namespaces()
    for _ in range(60):
        await source.change()
    # Each watcher with connections of its own, which the kernel divides among the gateways.
    connections = []

    def connect():
        connections.append(HttpConnection(PlainCredentials(url)))
        return lambda connection=connections[-1]: connection

    watchers = [
        Watcher(
            Replica(
                flavour,
                f"soak, seed {SEED}",
                loop.time,
                divided=flavour.resource is not NODES and flavour.namespace is None,
                cut=flavour.resource is not NODES,
            ),
            connect(),
            random.Random(rng.getrandbits(64)),
            fickle=rng.choice((0.0, 0.02)),
            timeouts_s=(2, 5, 30),
        )
        for flavour in flavours()
    ]
    killed = []
    try:
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(watcher.run()) for watcher in watchers]
            await asyncio.gather(
                repeat(source.change, 1 / WRITES_A_S, rng),
                repeat(source.disturb, FAULT_EVERY_S, rng),
                repeat(lambda: kill(command, rng, killed), KILL_EVERY_S, rng),
            )
            injected = await source.calm()
            for watcher in watchers:
                watcher.steady = True
            await settle(source, watchers)
            for task in watching:
                task.cancel()
    finally:
        for connection in connections:
            await connection.aclose()
        await source.aclose()
    assert killed
    assert len(injected) > 4, injected
    assert source.refused < source.writes / 2
    counts = sum((watcher.counts for watcher in watchers[1:]), start=watchers[0].counts)
    assert {"lists", "resumed", "ended", "restarts", "bookmarks"} <= counts.keys(), counts
    # A broken connection, or an answer to try again: a short run need not meet both.
    assert counts["broken"] + counts["again"], counts
    assert sum(watcher.replica.lines for watcher in watchers) > SECONDS * WRITES_A_S


async def repeat(work, every_s, rng):
    """Does something at random moments, for as long as the test is to go on."""
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS
    while loop.time() < end:
        await asyncio.sleep(rng.expovariate(1 / every_s))
        await work()


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


async def settle(source, watchers):
    """Waits until every watcher has what the API server has."""
    wanted = {resource: await source.objects(resource) for resource in RESOURCES}
    end = asyncio.get_running_loop().time() + REST_S
    while True:
        wrong = [
            (text, watcher)
            for watcher in watchers
            if (
                text := watcher.replica.equals(
                    {
                        state.key: state.version
                        for state in wanted[watcher.flavour.resource]
                        if watcher.flavour.wants(state)
                    }
                )
            )
        ]
        if not wrong:
            return
        if asyncio.get_running_loop().time() > end:
            story = "\n  ".join(wrong[0][1].replica.story)
            raise AssertionError(f"No gap: at rest {'; '.join(text for text, _ in wrong)}\n  {story}")
        await asyncio.sleep(0.5)
