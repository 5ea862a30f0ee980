"""Controllers over real informers of the embedded API server, in virtual time: one that keeps the world as asked."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest
from support.apiserver import Caller, InProcessConnection, in_virtual_time, virtual_apiserver
from support.candidates import LEASE

from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.errors import LeadershipLost
from shoal.cluster.controller.leader import LeaderElector
from shoal.cluster.controller.sources import Source, owner_of
from shoal.cluster.informers.factory import InformerFactory
from shoal.cluster.simulator.app import ApiServerApp
from shoal.cluster.simulator.faults import Fault
from shoal.shards.model.errors import ConnectionFailed
from shoal.shards.model.refs import Key, ref_of

SECRETS = "/api/v1/namespaces/default/secrets"
MAPS = "/api/v1/namespaces/default/configmaps"


def virtually(main: Coroutine[Any, Any, None]) -> None:
    in_virtual_time(main)


class Mirror:
    """Every ConfigMap has a Secret of its name that it owns, with its generation; nothing else has.

    What the listers show decides; writes that lose a race fail, and are tried again.
    """

    def __init__(self, app: ApiServerApp, identity: str) -> None:
        self.server = Caller(app)
        self.calls: Counter[Key] = Counter()
        self.factory = InformerFactory(InProcessConnection(app))
        self.elector = LeaderElector(
            InProcessConnection(app),
            namespace="default",
            name="demo",
            identity=identity,
            uniform=Random(identity).random,
        )
        self.maps = self.factory.informer("configmaps")
        self.secrets = self.factory.informer("secrets")
        self.controller = Controller(
            "mirror",
            self.reconcile,
            sources=[self.maps, Source(self.secrets, keys=owner_of("ConfigMap"))],
            leader=self.elector,
        )

    async def reconcile(self, key: Key) -> None:
        self.calls[key] += 1
        name = ref_of(key).name
        status, wanted = await self.server.ask("GET", f"{MAPS}/{name}")
        there, secret = await self.server.ask("GET", f"{SECRETS}/{name}")
        if status == 404:
            if there == 200:
                await self._must(200, "DELETE", f"{SECRETS}/{name}")
            return
        assert status == 200, wanted
        data = {"generation": b64encode(wanted["data"]["generation"].encode()).decode()}
        if there == 200:
            if secret["data"] != data:
                await self._must(200, "PUT", f"{SECRETS}/{name}", secret | {"data": data})
            return
        owner = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": name,
            "uid": wanted["metadata"]["uid"],
            "controller": True,
        }
        metadata = {"name": name, "ownerReferences": [owner]}
        await self._must(201, "POST", SECRETS, {"metadata": metadata, "data": data})

    async def _must(self, expected: int, *request: Any) -> None:
        status, answer = await self.server.ask(*request)
        if status != expected:
            raise RuntimeError(f"{status}: {answer}")

    async def run(self) -> None:
        async with self.factory:
            await self.controller.run()


async def mirrored(server: Caller) -> tuple[dict[str, str], dict[str, str]]:
    """What is wanted, and what is there."""
    maps = (await server.get(MAPS))["items"]
    secrets = (await server.get(SECRETS))["items"]
    return (
        {one["metadata"]["name"]: one["data"]["generation"] for one in maps},
        {one["metadata"]["name"]: b64decode(one["data"]["generation"]).decode() for one in secrets},
    )


async def change(server: Caller, name: str, generation: int) -> None:
    path, data = f"{MAPS}/{name}", {"generation": str(generation)}
    status, found = await server.ask("GET", path)
    if status == 404:
        await server.create(MAPS, name, data=data)
    else:
        await server.ask("PUT", path, found | {"data": data})


def test_the_world_follows_what_is_asked_and_is_put_right_again() -> None:
    async def main() -> None:
        app = virtual_apiserver()
        server = Caller(app)
        for n in range(5):
            await change(server, f"m{n}", 1)
        mirror = Mirror(app, "a")
        task = asyncio.create_task(mirror.run())
        await asyncio.sleep(20)
        wanted, there = await mirrored(server)
        assert there == wanted == {f"m{n}": "1" for n in range(5)}
        await change(server, "m1", 2)
        await server.ask("DELETE", f"{MAPS}/m2")
        await server.ask("DELETE", f"{SECRETS}/m3")
        await change(server, "new", 1)
        await asyncio.sleep(20)
        wanted, there = await mirrored(server)
        assert there == wanted == {"m0": "1", "m1": "2", "m3": "1", "m4": "1", "new": "1"}
        mirror.controller.stop()
        await task
        assert (await server.get(LEASE))["spec"]["holderIdentity"] == ""

    virtually(main())


@pytest.mark.parametrize("seed", range(6))
def test_whatever_fails_the_world_is_right_in_the_end(seed: int) -> None:
    """Two controllers and a server with faults: crashes, hand-overs, lost watches, refused writes."""
    rng = Random(seed)

    async def trouble(app: ApiServerApp, server: Caller, mirrors: dict[str, Any]) -> None:
        for step in range(60):
            await asyncio.sleep(rng.uniform(0.0, 4.0))
            name = f"m{rng.randrange(6)}"
            try:
                match rng.randrange(8):
                    case 0 | 1 | 2:
                        await change(server, name, step)
                    case 3:
                        await server.ask("DELETE", f"{rng.choice([MAPS, SECRETS])}/{name}")
                    case 4 | 5:
                        kind = rng.choice(["status-500", "status-503", "drop", "cut", "stall", "line-410"])
                        resource = rng.choice(["configmaps", "secrets"])
                        app.faults.arm(
                            Fault(kind=kind, resource=resource, count=rng.randint(1, 3), seconds=3.0)
                        )
                    case 6:
                        app.faults.arm(Fault(kind="compact"))
                    case _:
                        identity = rng.choice("ab")
                        await ended(mirrors[identity][1])
                        mirrors[identity] = begun(app, identity)
            except ConnectionFailed:
                continue

    def begun(app: ApiServerApp, identity: str) -> tuple[Mirror, asyncio.Task[None]]:
        mirror = Mirror(app, identity)
        return mirror, asyncio.create_task(mirror.run(), name=f"mirror {identity}")

    async def ended(task: asyncio.Task[None]) -> None:
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        assert outcome is None or isinstance(outcome, asyncio.CancelledError | LeadershipLost)

    async def main() -> None:
        app = virtual_apiserver()
        server = Caller(app)
        mirrors = {identity: begun(app, identity) for identity in "ab"}
        await trouble(app, server, mirrors)
        app.faults.disarm()
        await asyncio.sleep(300)
        wanted, there = await mirrored(server)
        assert there == wanted
        for _, task in mirrors.values():
            await ended(task)

    virtually(main())
