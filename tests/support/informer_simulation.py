"""Informers under trouble, in virtual time, decided by a seed: API server, network, writers, handlers of all kinds.

`InformerSimulation(seed).run()` fills an embedded API server, has several informers with several handlers each follow
parts of it, lets writers write, handlers come and go and faults happen, then takes all trouble away and waits until
every handler, lister and index equals the server. In the end some servers are restored from a backup.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from support.asgi_connection import AsgiConnection
from support.clock import run_virtual
from support.guarantees import GuaranteeBroken, Past
from support.informer_observer import Observer, RaisingObserver, Seen, SlowObserver
from support.simulation import EPOCH, FAULT_KINDS, NAMES, NAMESPACES, STREAM_FAULTS, WIDGET_DEFINITION

from shoal.cluster.informers.factory import InformerFactory
from shoal.cluster.informers.informer import Informer
from shoal.cluster.informers.registration import Registration
from shoal.cluster.informers.settings import InformerSettings
from shoal.cluster.informers.statistics import InformerStatus
from shoal.cluster.simulator.crds import DEFINITIONS
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource
from shoal.shards.settings import WatchSettings

CONFIG_MAPS = Resource("", "v1", "configmaps")
NODES = Resource("", "v1", "nodes")
WIDGETS = Resource("example.com", "v1", "widgets")
PATIENCE_S = 3 * 120.0 + 120.0
"""A stalled stream is noticed after twice the timeout; then come waits, a list behind others, a slow handler."""
SETTLED = "In the end every handler has been told of the state there is"

Wanted = Callable[[str, dict[str, str]], bool]
INFORMERS: tuple[tuple[Resource, dict[str, str], Wanted], ...] = (
    (CONFIG_MAPS, {}, lambda key, labels: True),
    (CONFIG_MAPS, {"namespace": "alpha"}, lambda key, labels: key.startswith("alpha/")),
    (CONFIG_MAPS, {"label_selector": "app=web"}, lambda key, labels: labels.get("app") == "web"),
    (
        CONFIG_MAPS,
        {"namespace": "beta", "label_selector": "app!=web"},
        lambda key, labels: key.startswith("beta/") and labels.get("app") != "web",
    ),
    (
        CONFIG_MAPS,
        {"field_selector": "metadata.name=object-1"},
        lambda key, labels: key.endswith("/object-1"),
    ),
    (NODES, {}, lambda key, labels: True),
    (WIDGETS, {}, lambda key, labels: True),
)
"""What may be followed; the last one comes and goes."""


@dataclass
class Watched:
    """An informer with its observers."""

    resource: Resource
    informer: Informer
    wanted: Wanted
    observers: list[tuple[Observer, Registration]] = field(default_factory=list)


class InformerSimulation:
    """One seed. `run` returns what happened, or raises with the seed and what the handler was told."""

    def __init__(self, seed: int, *, faults: tuple[str, ...] = FAULT_KINDS) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.kinds = faults
        self.watched: list[Watched] = []
        self.pasts: dict[Resource, Past] = {}
        self.recorders: dict[Resource, tuple[Any, Callable[[], None]]] = {}
        self.statuses: list[InformerStatus] = []
        """Of all informers, in the end."""
        self.writes = 0
        self.widgets = True
        self.broken: list[BaseException] = []

    def run(self) -> InformerSimulation:
        """Runs to the end, in virtual time."""
        try:
            run_virtual(self._main())
        except Exception as error:
            raise AssertionError(self._report(error)) from error
        return self

    def _report(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        stories = "\n\n".join(
            f"-- {one.informer.name}: {one.informer.state}\n"
            + (
                feed._following.story
                if (feed := one.informer._feed)._following is not None
                else "not followed"
            )
            for one in self.watched
        )
        return (
            f"seed {self.seed}: {type(error).__name__}: {error}\n\n{stories}\n\n"
            f"again: pytest tests/sim/test_informers.py --first-seed {self.seed} --seeds 1"
        )

    async def _main(self) -> None:
        rng, self.loop = self.rng, asyncio.get_running_loop()
        self.app = build_app(
            SimulatorSettings(
                seed=self.seed,
                watch_list=rng.random() < 0.7,
                history_events=rng.choice((10, 40, 1000)),
                backlog_events=rng.choice((5, 20_000)),
                bookmark_period_s=rng.choice((5.0, 60.0)),
            ),
            now=lambda: EPOCH + timedelta(seconds=self.loop.time()),
        )
        self._fill()
        before = asyncio.all_tasks()
        self.factory = InformerFactory(
            AsgiConnection(self.app, rng=random.Random(rng.getrandbits(64))),
            settings=self._settings(),
            rng=random.Random(rng.getrandbits(64)),
        )
        self._watch()
        trouble_s = rng.uniform(60.0, 200.0)
        async with asyncio.TaskGroup() as group:
            for work in (self._write, self._disturb, self._come_and_go):
                group.create_task(work(trouble_s), name=work.__name__)
        self.app.faults.disarm()
        if not self.widgets:
            self._define_widgets()
        await self._settle()
        await self._write_everywhere()
        if rng.random() < 0.3:
            await self._restore()
            await self._write_everywhere()
        if self.broken:
            raise self.broken[0]
        self.statuses = [watched.informer.status for watched in self.watched]
        await self.factory.aclose()
        left = [task.get_name() for task in asyncio.all_tasks() - before]
        assert not left, f"left behind: {left}"

    def _settings(self) -> InformerSettings:
        rng = self.rng
        return InformerSettings(
            watch=WatchSettings(
                streaming_list=rng.choice(("auto", "auto", "never")),
                page_limit=rng.choice((2, 5, 500)),
                timeout_min_s=rng.choice((10.0, 30.0, 120.0)),
                list_silence_s=10.0,
                grace_s=3.0,
                backoff_max_s=rng.choice((5.0, 30.0)),
            ),
            lists_at_once=rng.randint(1, 3),
        )

    # -- the cluster -----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        verbs = self.app.verbs
        for name in NAMESPACES:
            verbs.create(verbs.served(Resource("", "v1", "namespaces")), None, {"metadata": {"name": name}})
        for resource in (CONFIG_MAPS, NODES):
            self._record(resource)
        self._define_widgets()
        for resource in (CONFIG_MAPS, NODES, WIDGETS):
            for _ in range(self.rng.randint(0, 20)):
                self._change(resource, delete=0.0)

    def _define_widgets(self, *, record: bool = True) -> None:
        verbs = self.app.verbs
        verbs.create(verbs.served(DEFINITIONS), None, WIDGET_DEFINITION)
        self.widgets = True
        if record:
            self._record(WIDGETS)

    def _objects(self, resource: Resource) -> dict[str, Any]:
        if resource == WIDGETS and not self.widgets:
            return {}
        collection = self.app.verbs.collection(self.app.verbs.served(resource))
        return dict(collection.objects)

    def _record(self, resource: Resource) -> None:
        """Has every event of a resource remembered, as it happens."""
        past = self.pasts.setdefault(resource, Past())
        collection = self.app.verbs.collection(self.app.verbs.served(resource))
        for stored in collection.objects.values():
            past.happened(stored.key, stored.version, stored.uid)
        position = collection.end_position

        def happened() -> None:
            nonlocal position
            if collection.end_position > position:
                for event in collection.since(position, 1000):
                    deleted = event.type == "DELETED"
                    past.happened(event.stored.key, event.version, None if deleted else event.stored.uid)
                position = collection.end_position

        self.recorders[resource] = (collection, happened)
        collection.subscribers.add(happened)

    def _change(self, resource: Resource, *, delete: float = 0.3) -> None:
        """Creates, changes or deletes one object."""
        rng, verbs = self.rng, self.app.verbs
        served = verbs.served(resource)
        namespace = None if resource == NODES else rng.choice(NAMESPACES)
        name = rng.choice(NAMES)
        key = name if namespace is None else f"{namespace}/{name}"
        self.writes += 1
        labels = {"app": rng.choice(("web", "db")), "n": str(self.writes)}
        if key not in verbs.collection(served).objects:
            verbs.create(served, namespace, {"metadata": {"name": name, "labels": labels}})
        elif rng.random() < delete:
            verbs.delete(served, namespace, name)
        else:
            verbs.update(served, Key(key), lambda document: document["metadata"].update(labels=labels))

    # -- informers and handlers ------------------------------------------------------------------------------

    def _watch(self) -> None:
        widgets = [INFORMERS[-1]] if self.rng.random() < 0.5 else []
        for resource, how, wanted in widgets + self.rng.sample(INFORMERS[:-1], self.rng.randint(1, 3)):
            text = self.rng.choice((str(resource), resource.qualified_name))
            informer = self.factory.informer(text, **how)
            informer.add_index("n", lambda obj: [obj.labels["n"]] if "n" in obj.labels else [])
            watched = Watched(resource, informer, wanted)
            self.watched.append(watched)
            for _ in range(self.rng.randint(1, 3)):
                self._observe(watched)

    def _observe(self, watched: Watched) -> None:
        rng = self.rng
        kind = rng.choice((Observer, SlowObserver, SlowObserver, RaisingObserver))
        observer = kind(
            watched.informer.name,
            self.pasts[watched.resource],
            random.Random(rng.getrandbits(64)),
            self.loop.time,
        )
        observer.fail = self._caught(observer.fail)
        registration = watched.informer.add_handler(
            observer, queue_max=rng.choice((1, 3, 30)), resync_s=rng.choice((None, None, 20.0))
        )
        watched.observers.append((observer, registration))

        observer.has_synced = lambda: registration.has_synced

    def _caught(self, fail: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
        def caught(promise: str, seen: str) -> Any:
            try:
                fail(promise, seen)
            except GuaranteeBroken as error:
                # Raised in a handler it would be logged and forgotten.
                self.broken.append(error)
                raise

        return caught

    # -- what goes on ----------------------------------------------------------------------------------------

    async def _write(self, seconds: float) -> None:
        rng = self.rng
        pace = rng.choice((0.3, 1.0, 3.0))
        turns_at = rng.uniform(0.0, 1.5) * seconds
        while self.loop.time() < seconds:
            await asyncio.sleep(rng.expovariate(1 / pace))
            for _ in range(rng.choice((1, 1, 1, 1, 12))):
                self._change(
                    rng.choice([CONFIG_MAPS, CONFIG_MAPS, NODES, *([WIDGETS] if self.widgets else [])])
                )
            if self.loop.time() > turns_at:
                turns_at += rng.uniform(0.1, 0.5) * seconds
                if self.widgets:
                    self.widgets = False
                    if self.kinds and rng.random() < 0.6:
                        # Who is cut off now hears of none of the deletions.
                        self.app.faults.arm(Fault(kind="cut", resource="widgets.example.com", immediate=True))
                        await asyncio.sleep(0)
                    self.app.verbs.delete(self.app.verbs.served(DEFINITIONS), None, "widgets.example.com")
                    for key, states in self.pasts[WIDGETS].states.items():
                        if states[-1][1] is not None:
                            self.pasts[WIDGETS].happened(key, self.app.storage.revision, None)
                else:
                    self._define_widgets()

    async def _come_and_go(self, seconds: float) -> None:
        """Handlers are added and removed while things happen."""
        while self.loop.time() < seconds:
            await asyncio.sleep(self.rng.uniform(5.0, 40.0))
            watched = self.rng.choice(self.watched)
            if len(watched.observers) > 1 and self.rng.random() < 0.4:
                observer, registration = watched.observers.pop(self.rng.randrange(len(watched.observers)))
                await registration.remove()
                calls = observer.calls
                await asyncio.sleep(1.0)
                assert observer.calls == calls, f"{observer.name} was told something after it was removed"
            else:
                self._observe(watched)

    async def _disturb(self, seconds: float) -> None:
        rng = self.rng
        if not self.kinds:
            return
        pace = rng.choice((2.0, 8.0, 30.0))
        while self.loop.time() < seconds:
            await asyncio.sleep(rng.expovariate(1 / pace))
            kind = rng.choice(self.kinds)
            self.app.faults.arm(
                Fault(
                    kind=kind,
                    verb=rng.choice(("", "list", "watch")),
                    resource=rng.choice(("", "configmaps", "nodes")),
                    count=rng.choice((1, 1, 3, 10)),
                    probability=rng.choice((1.0, 0.5)),
                    after_lines=rng.choice((0, 0, 1, 5)),
                    immediate=kind in STREAM_FAULTS and rng.random() < 0.5,
                    seconds=0.0 if kind == "stall" and rng.random() < 0.3 else rng.uniform(0.1, 25.0),
                    retry_after_s=rng.choice((None, 0, 1, 5)),
                    jump=rng.choice((0, 0, 1000)),
                )
            )

    async def _write_everywhere(self) -> None:
        """Rest alone proves little: every informer must still be following."""
        for watched in self.watched:
            for _ in range(3):
                self._change(watched.resource)
        await self._settle()

    async def _restore(self) -> None:
        """The server is restored from a backup; nobody writes until that was noticed."""
        for watched in self.watched:
            for observer, _ in watched.observers:
                observer.past_lost = True
        for collection, happened in self.recorders.values():
            collection.subscribers.discard(happened)
        self.app.faults.arm(Fault(kind="restart", jump=-self.rng.randint(1, 40)))
        # The resource itself may not have been defined by then.
        self.widgets = bool(
            self.app.verbs.collection(self.app.verbs.served(DEFINITIONS)).objects.get("widgets.example.com")
        )
        if not self.widgets:
            self._define_widgets(record=False)
        await self._settle()

    # -- the end ---------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Waits until everybody equals the server; what stands in the way by then is raised."""
        last = self.loop.time() + PATIENCE_S
        while True:
            try:
                self._check_rest()
            except GuaranteeBroken:
                if self.broken or self.loop.time() > last:
                    raise
                await asyncio.sleep(5.0)
            else:
                return

    def _check_rest(self) -> None:
        for watched in self.watched:
            informer = watched.informer
            wanted = {
                key: Seen((stored.version, stored.uid, stored.labels.get("n", "")))
                for key, stored in self._objects(watched.resource).items()
                if watched.wanted(key, dict(stored.labels))
            }
            if informer.state != "synced":
                raise GuaranteeBroken(
                    SETTLED, f"{informer.name} is {informer.state}: {informer.status.message}"
                )
            held = {obj.key: Seen.of(obj) for obj in informer.lister.list()}
            _same(f"the lister of {informer.name}", held, wanted)
            for key, (_, _, number) in wanted.items():
                if number and key not in informer.lister.keys_by_index("n", number):
                    raise GuaranteeBroken(
                        SETTLED, f"the index of {informer.name} does not know {key} by {number}"
                    )
            if len(informer.lister.index_values("n")) != len(
                {state[2] for state in wanted.values() if state[2]}
            ):
                raise GuaranteeBroken(SETTLED, f"the index of {informer.name} knows values that nobody has")
            for observer, registration in watched.observers:
                _same(observer.name, observer.state, wanted)
                if not registration.has_synced:
                    raise GuaranteeBroken(SETTLED, f"{observer.name} is not synced")


def _same(where: str, told: dict[str, Seen], wanted: dict[str, Seen]) -> None:
    for key in sorted(told.keys() | wanted.keys()):
        if told.get(key) != wanted.get(key):
            raise GuaranteeBroken(SETTLED, f"{where} has {key} {told.get(key)}, the server {wanted.get(key)}")
