"""An informer that a test tells what to tell: `InformerLike` of the controllers, with nothing behind it."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from shoal.cluster.informers.objects import KubeObject


def thing(key: str, version: int = 1, *, owner: str = "", kind: str = "Thing", **more: Any) -> KubeObject:
    """A small object; `owner` is the name of the ReplicaSet that controls it."""
    namespace, slash, name = key.rpartition("/")
    metadata: dict[str, Any] = {"name": name, "resourceVersion": str(version)}
    if slash:
        metadata["namespace"] = namespace
    if owner:
        metadata["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": "u", "controller": True}
        ]
    metadata |= more
    document = {"apiVersion": "example.com/v1", "kind": kind, "metadata": metadata}
    whole = KubeObject.from_dict(document)
    return KubeObject(whole.raw, whole.key, version=version)


class ToldRegistration:
    """One handler: its own queue and task, as a real one has."""

    def __init__(self, informer: ToldInformer, handler: Any, name: str) -> None:
        self.name = name
        self.failures: list[Exception] = []
        self._informer = informer
        self._handler = handler
        self._queue: asyncio.Queue[tuple[str, tuple[Any, ...]]] = asyncio.Queue()
        self._synced = asyncio.Event()
        for obj in informer.objects.values():
            self.tell("on_add", obj, True)
        self._queue.put_nowait(("listed", ()))
        self._task = asyncio.create_task(self._deliver(), name=f"handler {name}")

    def tell(self, method: str, *arguments: Any) -> None:
        self._queue.put_nowait((method, arguments))

    async def _deliver(self) -> None:
        while True:
            method, arguments = await self._queue.get()
            if method == "listed":
                await self._informer.complete.wait()
                self._synced.set()
                continue
            try:
                outcome = getattr(self._handler, method)(*arguments)
                if inspect.isawaitable(outcome):
                    await outcome
            except Exception as error:  # noqa: BLE001 - as a real one does
                self.failures.append(error)

    async def synced(self) -> None:
        await self._synced.wait()

    async def remove(self) -> None:
        self._informer.handlers.remove(self)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class ToldInformer:
    """Holds objects and tells of their changes at once."""

    def __init__(self, name: str = "things", *objects: KubeObject, complete: bool = True) -> None:
        self.name = name
        self.objects = {obj.key: obj for obj in objects}
        self.handlers: list[ToldRegistration] = []
        self.asked: dict[str, Any] = {}
        """Arguments of the last `add_handler`."""
        self.complete = asyncio.Event()
        if complete:
            self.complete.set()

    def add_handler(
        self, handler: Any, *, name: str = "", queue_max: int = 10_000, resync_s: float | None = None
    ) -> ToldRegistration:
        self.asked = {"name": name, "queue_max": queue_max, "resync_s": resync_s}
        self.handlers.append(ToldRegistration(self, handler, name))
        return self.handlers[-1]

    async def synced(self) -> None:
        await self.complete.wait()

    def put(self, obj: KubeObject) -> None:
        old = self.objects.get(obj.key)
        self.objects[obj.key] = obj
        for handler in self.handlers:
            handler.tell(*(("on_add", obj, False) if old is None else ("on_update", old, obj)))

    def resync(self) -> None:
        for obj in self.objects.values():
            for handler in self.handlers:
                handler.tell("on_update", obj, obj)

    def delete(self, key: str, *, known: bool = True) -> None:
        obj = self.objects.pop(key)
        for handler in self.handlers:
            handler.tell("on_delete", obj, known)
