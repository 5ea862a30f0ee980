"""What long runs against real processes have in common: a misbehaving API server that is written to, watchers of every
flavour, and the wait until each of them has what the API server has.
"""

import asyncio
import json
import random

from support.commands import command_line
from support.watcher_oracle import Watcher
from support.watcher_oracle_flavours import CONFIG_MAPS, NODES, PODS, flavours
from support.watcher_oracle_replica import Replica
from support.watcher_oracle_truth import seen_of

from shoal.shards.api.client import HttpConnection, PlainCredentials
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import ShoalError

REST_S = 120.0
NAMESPACES = ("alpha", "alpha-2", "beta", "gamma")
RESOURCES = (CONFIG_MAPS, PODS, NODES)
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

    async def churn(self, rate):
        """Has the API server change objects by itself, so many a second; those changed so far."""
        status, body = await self.ask("PUT", "/simulator/churn", {"rate": rate})
        assert status == 200, body
        return json.loads(body)["total"]


def actors(command, name):
    """Processes of the command's actors of that class."""
    return [
        process
        for process in command.family()
        if (line := command_line(process)) and line[0].startswith(f"ray::{name}")
    ]


class Crowd:
    """A watcher of every flavour, each with connections of its own, which the kernel divides among the gateways."""

    def __init__(self, url, where, rng, *, divided):
        self._url = url
        self._connections = []
        loop = asyncio.get_running_loop()
        self.watchers = [
            Watcher(
                Replica(
                    flavour,
                    where,
                    loop.time,
                    divided=flavour.resource in divided and flavour.namespace is None,
                    cut=flavour.resource in divided,
                ),
                self._connect(),
                random.Random(rng.getrandbits(64)),
                fickle=rng.choice((0.0, 0.02)),
                timeouts_s=(2, 5, 30),
            )
            for flavour in flavours()
        ]

    def _connect(self):
        connection = HttpConnection(PlainCredentials(self._url))
        self._connections.append(connection)
        return lambda: connection

    @property
    def counts(self):
        """What they went through."""
        return sum((watcher.counts for watcher in self.watchers[1:]), start=self.watchers[0].counts)

    @property
    def lines(self):
        """Lines they were told."""
        return sum(watcher.replica.lines for watcher in self.watchers)

    def steady(self):
        """Nobody leaves of their own accord any more."""
        for watcher in self.watchers:
            watcher.steady = True

    async def aclose(self):
        for connection in self._connections:
            await connection.aclose()


async def repeat(work, every_s, rng, seconds):
    """Does something at random moments, for so many seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await asyncio.sleep(rng.expovariate(1 / every_s))
        await work()


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
