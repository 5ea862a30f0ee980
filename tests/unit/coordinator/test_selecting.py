"""By which resources the API server selects by hash, asked of the embedded one."""

import asyncio

import pytest
from support.apiserver import InProcessConnection, virtual_apiserver
from support.clock import run_virtual

from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.coordinator.selecting import Selecting
from shoal.shards.model.resources import Resource, ResourceType

PODS, NODES = (
    ResourceType(resource=Resource("", "v1", name), kind=kind, namespaced=name == "pods")
    for name, kind in (("pods", "Pod"), ("nodes", "Node"))
)


@pytest.mark.parametrize("gate", [False, True])
def test_what_is_of_interest_is_asked_for_and_nothing_else(gate):
    async def main():
        app = virtual_apiserver(SimulatorSettings(shard_selector=gate))
        changes = []
        selecting = Selecting(InProcessConnection(app), lambda: changes.append(1))
        running = asyncio.create_task(selecting.run())
        assert selecting.fields(PODS.resource) == frozenset(), "nobody asked"
        selecting.want([PODS])
        await asyncio.sleep(5)
        proved = frozenset({"uid", "namespace"}) if gate else frozenset()
        assert selecting.fields(PODS.resource) == proved
        assert selecting.fields(NODES.resource) == frozenset()
        assert len(changes) == gate
        for _ in range(3):
            selecting.want([PODS])
            await asyncio.sleep(5)
        assert len(changes) == gate, "what was found is not news again"
        selecting.want([])
        assert selecting.fields(PODS.resource) == frozenset(), "what nobody wants to know is forgotten"
        running.cancel()
        await asyncio.wait([running])

    run_virtual(main())


def test_a_server_that_learns_to_select_is_noticed():
    async def main():
        connections = [
            InProcessConnection(virtual_apiserver(SimulatorSettings(shard_selector=gate)))
            for gate in (False, True)
        ]

        class Replaced:
            def __getattr__(self, name):
                return getattr(connections[0], name)

        selecting = Selecting(Replaced(), lambda: None)
        running = asyncio.create_task(selecting.run())
        selecting.want([PODS])
        await asyncio.sleep(5)
        assert not selecting.fields(PODS.resource)
        connections.pop(0)
        for _ in range(100):
            selecting.want([PODS])
            await asyncio.sleep(5)
        assert selecting.fields(PODS.resource)
        running.cancel()
        await asyncio.wait([running])

    run_virtual(main())
