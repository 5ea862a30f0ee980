"""Informers over an embedded API server in this process, in virtual time, and handlers that remember."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from support.asgi_connection import AsgiConnection
from support.clock import run_virtual

from shoal.cluster.informers.factory import InformerFactory
from shoal.cluster.informers.objects import KubeObject
from shoal.cluster.informers.settings import InformerSettings
from shoal.cluster.simulator.crds import DEFINITIONS
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource

CONFIG_MAPS = Resource("", "v1", "configmaps")
WIDGETS = Resource("example.com", "v1", "widgets")
WIDGET_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
        "scope": "Namespaced",
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {}}],
    },
}


class Remembering:
    """A handler that writes down what it is told, as texts and as the state it leads to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.state: dict[str, int] = {}
        self.last: KubeObject | None = None

    def on_add(self, obj: KubeObject, is_initial: bool) -> None:
        assert obj.key not in self.state, f"{obj.key} is added twice"
        self.state[obj.key] = int(obj.resource_version)
        self.told.append(f"{'initial' if is_initial else 'add'} {obj.key}")
        self.last = obj

    def on_update(self, old: KubeObject, new: KubeObject) -> None:
        assert self.state[old.key] == int(old.resource_version), "the old state is not the one told last"
        assert old.uid == new.uid
        self.state[new.key] = int(new.resource_version)
        same = old.resource_version == new.resource_version
        self.told.append(f"{'again' if same else 'update'} {new.key}")
        self.last = new

    def on_delete(self, obj: KubeObject, last_state_known: bool) -> None:
        del self.state[obj.key]
        self.told.append(f"{'delete' if last_state_known else 'missed delete'} {obj.key}")
        self.last = obj

    def take(self) -> list[str]:
        """What was told since the last call."""
        told, self.told = self.told, []
        return told


class World:
    """An API server and a factory of informers."""

    def __init__(self, settings: InformerSettings | None = None, **server: Any) -> None:
        self.app = build_app(SimulatorSettings(seed=1, **server))
        self.connection = AsgiConnection(self.app)
        self.factory = InformerFactory(self.connection, settings=settings, rng=random.Random(1))

    def create(
        self, name: str, namespace: str = "default", kind: Resource = CONFIG_MAPS, **members: Any
    ) -> int:
        """Creates an object; `labels` go into its metadata. The server's version afterwards."""
        metadata = {"name": name, "labels": members.pop("labels", {})}
        verbs = self.app.verbs
        verbs.create(verbs.served(kind), namespace, {"metadata": metadata, **members})
        return self.app.storage.revision

    def change(
        self, name: str, namespace: str = "default", kind: Resource = CONFIG_MAPS, **labels: str
    ) -> int:
        """Gives an object these labels."""
        verbs = self.app.verbs
        verbs.update(
            verbs.served(kind),
            Key(f"{namespace}/{name}"),
            lambda document: document["metadata"].update(labels=labels),
        )
        return self.app.storage.revision

    def delete(self, name: str, namespace: str = "default", kind: Resource = CONFIG_MAPS) -> int:
        """Deletes an object."""
        verbs = self.app.verbs
        verbs.delete(verbs.served(kind), namespace, name)
        return self.app.storage.revision

    def define_widgets(self) -> None:
        """Adds a custom resource."""
        self.app.verbs.create(self.app.verbs.served(DEFINITIONS), None, WIDGET_DEFINITION)

    def forget_widgets(self) -> None:
        """Takes it away."""
        self.app.verbs.delete(self.app.verbs.served(DEFINITIONS), None, "widgets.example.com")

    def namespace(self, name: str) -> None:
        """Adds a namespace."""
        kind = self.app.verbs.served(Resource("", "v1", "namespaces"))
        self.app.verbs.create(kind, None, {"metadata": {"name": name}})

    def fault(self, kind: str, **how: Any) -> None:
        """Arms a fault."""
        self.app.faults.arm(Fault(kind=kind, **how))

    def state(self, kind: Resource = CONFIG_MAPS) -> dict[str, int]:
        """What the server has: versions by key."""
        collection = self.app.verbs.collection(self.app.verbs.served(kind))
        return {stored.key: stored.version for stored in collection.objects.values()}


def in_world(
    main: Callable[[World], Awaitable[Any]], settings: InformerSettings | None = None, **server: Any
) -> Any:
    """Runs `main` with a world, in virtual time; nothing of its informers may be left behind."""

    async def run() -> Any:
        world = World(settings, **server)
        before = asyncio.all_tasks()
        try:
            found = await main(world)
        finally:
            await world.factory.aclose()
        left = [task.get_name() for task in asyncio.all_tasks() - before]
        assert not left, f"left behind: {left}"
        return found

    return run_virtual(run())
