"""The monitor over an embedded API server with part of a recorded cluster, in virtual time, for its tests."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
from gateway_monitor.findings import Changed
from gateway_monitor.monitor import Monitor
from gateway_monitor.settings import Alerts, Rollback, Settings
from support.apiserver import EPOCH, Caller, InProcessConnection, in_virtual_time, virtual_apiserver
from support.gateway_objects import GROUP

import shoal
from shoal.cluster.simulator.cluster_file import read_cluster
from shoal.cluster.simulator.filling import fill
from shoal.cluster.simulator.settings import Rule, SimulatorSettings, User

NAMESPACE = "payments"
KINDS = (
    "services",
    "endpointslices",
    "pods",
    "apiroutes",
    "ratelimitpolicies",
    "authnpolicies",
    "securitypolicies",
)
SETTINGS = Settings(alerts=Alerts(group_wait_s=1), rollback=Rollback(delay_s=1))
PATCH = {"Content-Type": "application/merge-patch+json"}
POLICY = f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/ratelimitpolicies/api-svc"
ROUTE = f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/apiroutes/api-svc"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def read_recorded():
    """Of one namespace, what the monitor follows; and the definitions."""
    found = []
    for resource, body in read_cluster():
        if resource.name == "customresourcedefinitions":
            found.append((resource, body))
        elif resource.name in KINDS:
            metadata = msgspec.json.decode(body)["metadata"]
            if metadata.get("namespace") == NAMESPACE:
                found.append((resource, body))
    return found


class Told(list):
    """A receiver."""

    name = "told"

    async def tell(self, notification):
        self.append(notification)


class WithToken(InProcessConnection):
    def open(self, request):
        return super().open(
            msgspec.structs.replace(request, headers=(*request.headers, ("Authorization", "Bearer t")))
        )


class Somebody(Caller):
    """Who may do everything, where anybody has to say who they are."""

    async def ask(self, method, path, document=None, *, headers=None):
        return await super().ask(
            method, path, document, headers={"Authorization": "Bearer all", **(headers or {})}
        )


class World:
    """A server, a monitor over it, and somebody who writes."""

    def __init__(self, objects, server=None):
        self.app = virtual_apiserver(server)
        fill(self.app.verbs, objects)
        self.somebody = Somebody(self.app)
        self.transitions, self.audit, self.told = [], [], Told()
        self.monitor = None

    @asynccontextmanager
    async def monitored(self, settings=SETTINGS, connection=InProcessConnection):
        loop = asyncio.get_running_loop()
        async with shoal.Client(connection(self.app), where="here") as client:
            self.monitor = Monitor(
                client, settings, now=lambda: EPOCH.timestamp() + loop.time(), receivers=[self.told],
                on_transitions=self.transitions.extend, on_audit=self.audit.append,
            )  # fmt: skip
            running = asyncio.create_task(self.monitor.run())
            yield
            assert not running.done()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def patch(self, path, document):
        status, answer = await self.somebody.ask("PATCH", path, document, headers=PATCH)
        assert status == 200, answer

    async def delete(self, path):
        status, answer = await self.somebody.ask("DELETE", path)
        assert status == 200, answer

    def happened(self):
        """What opened and ended since it was last asked."""
        told = [
            (type(one).__name__, one.finding.check, one.finding.subject.name)
            for one in self.transitions
            if not isinstance(one, Changed)
        ]
        self.transitions.clear()
        return told


def world(scenario, objects, *, server=None, settings=SETTINGS, connection=InProcessConnection):
    async def main():
        made = World(objects, server)
        async with made.monitored(settings, connection):
            await scenario(made)

    in_virtual_time(main())


def only_without(*kinds):
    """A server on which the monitor may not read these kinds."""
    allowed = Rule(resources=(*(kind for kind in KINDS if kind not in kinds), "customresourcedefinitions"))
    monitor = User(name="monitor", token="t", rules=(allowed,))
    return SimulatorSettings(seed=1, users=(monitor, User(name="somebody", token="all")))
