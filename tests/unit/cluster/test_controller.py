"""A controller in virtual time: events to reconciles, sources that do not sync, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from support.apiserver import in_virtual_time
from support.reconciles import Log, now, running
from support.told import ToldInformer, thing

from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.errors import NotSynced
from shoal.cluster.controller.metrics import ControllerCollector
from shoal.cluster.controller.sources import Source, owner_of
from shoal.shards.model.refs import Key


def virtually(main: Coroutine[Any, Any, None]) -> None:
    in_virtual_time(main)


# -- events to reconciles -------------------------------------------------------------------------------------


def test_every_object_is_reconciled_at_first_and_then_whenever_it_changes() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"), thing("x/b"), thing("node"))
        log = Log()
        controller = Controller("demo", log, sources=[informer])
        async with running(controller):
            assert sorted(log.keys) == ["node", "x/a", "x/b"]
            assert controller.synced
            informer.put(thing("x/a", 2))
            informer.put(thing("x/new"))
            informer.delete("x/b")
            await asyncio.sleep(1)
            assert log.keys[3:] == ["x/a", "x/new", "x/b"]
        assert not controller.synced
        assert informer.handlers == []
        assert controller.statistics().outcomes == {"success": 6}

    virtually(main())


def test_many_events_of_one_object_are_one_reconcile_and_one_more_for_those_meanwhile() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        log = Log(seconds=5.0)
        async with running(Controller("demo", log, sources=[informer], workers=4)):
            for version in range(2, 50):
                informer.put(thing("x/a", version))
            await asyncio.sleep(60)
        assert log.calls == [(0.0, "x/a"), (5.0, "x/a")]

    virtually(main())


def test_changes_overtake_what_was_there_from_the_beginning() -> None:
    async def main() -> None:
        informer = ToldInformer("things", *(thing(f"x/{n}") for n in range(10)))
        log = Log(seconds=1.0)
        async with running(Controller("demo", log, sources=[informer], workers=1)):
            informer.put(thing("x/9", 2))
            await asyncio.sleep(2.5)
            assert log.keys == ["x/0", "x/9", "x/1"]
            informer.resync()
            informer.put(thing("x/8", 2))
            await asyncio.sleep(1)
            assert log.keys[3:] == ["x/8"]

    virtually(main())


def test_owned_objects_have_their_owner_reconciled_and_both_when_it_changes() -> None:
    async def main() -> None:
        pods = ToldInformer("pods", thing("x/pod", owner="web"))
        log = Log()
        source = Source(pods, keys=owner_of("ReplicaSet", group="apps"), resync_s=60.0, queue_max=5)
        async with running(Controller("demo", log, sources=[source])):
            assert log.keys == ["x/web"]
            assert pods.asked == {"name": "demo", "queue_max": 5, "resync_s": 60.0}
            pods.put(thing("x/pod", 2, owner="other"))
            await asyncio.sleep(1)
            assert sorted(log.keys[1:]) == ["x/other", "x/web"]
            pods.put(thing("x/orphan"))
            pods.delete("x/pod", known=False)
            await asyncio.sleep(1)
            assert log.keys[3:] == ["x/other"]

    virtually(main())


def test_owners_are_told_apart_by_group_kind_and_control() -> None:
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u"}
    core = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": False}
    obj = thing("x/pod", ownerReferences=[reference, core])
    assert list(owner_of("ReplicaSet", group="apps")(obj)) == []
    assert list(owner_of("ReplicaSet", group="apps", controller=False)(obj)) == ["x/web"]
    assert list(owner_of("ReplicaSet", group="extensions", controller=False)(obj)) == []
    assert list(owner_of("Deployment", group="apps", controller=False)(obj)) == []
    assert list(owner_of("Node", controller=False, namespaced=False)(obj)) == ["n1"]
    assert list(owner_of("Node", namespaced=False)(obj)) == []
    assert list(owner_of("Node")(thing("x/pod"))) == []


def test_a_mapping_that_fails_for_one_state_does_not_lose_the_other() -> None:
    async def main() -> None:
        def keys(obj: Any) -> list[Key]:
            if obj.metadata.resourceVersion == "2":
                raise ZeroDivisionError
            return [obj.key]

        informer = ToldInformer("things", thing("x/a"))
        log = Log()
        async with running(Controller("demo", log, sources=[Source(informer, keys)])):
            informer.put(thing("x/a", 2))
            await asyncio.sleep(1)
            informer.put(thing("x/a", 3))
            await asyncio.sleep(1)
            assert log.keys == ["x/a"] * 3
            assert [type(error) for error in informer.handlers[0].failures] == [ZeroDivisionError] * 2

    virtually(main())


def test_a_reason_that_no_source_knows_of() -> None:
    async def main() -> None:
        log = Log()
        controller = Controller("demo", log, sources=[ToldInformer()])
        with pytest.raises(RuntimeError, match="demo does not run: x/a cannot be enqueued"):
            controller.enqueue(Key("x/a"))
        async with running(controller):
            controller.enqueue(Key("x/a"))
            await asyncio.sleep(1)
        assert log.keys == ["x/a"]
        with pytest.raises(RuntimeError, match="does not run"):
            controller.enqueue(Key("x/a"))

    virtually(main())


def test_namespaces_take_turns_if_asked() -> None:
    async def main() -> None:
        informer = ToldInformer("things", *(thing(f"{name}") for name in ("a/0", "a/1", "a/2", "b/0", "c/0")))
        log = Log(seconds=1.0)
        controller = Controller(
            "demo", log, sources=[informer], workers=1, fair_by=lambda key: key.partition("/")[0]
        )
        async with running(controller):
            await asyncio.sleep(10)
        assert log.keys == ["a/0", "b/0", "c/0", "a/1", "a/2"]

    virtually(main())


# -- sources --------------------------------------------------------------------------------------------------


def test_nothing_is_reconciled_before_every_source_has_everything() -> None:
    async def main() -> None:
        fast, slow = ToldInformer("fast", thing("x/a")), ToldInformer("slow", thing("x/b"), complete=False)
        log = Log()
        controller = Controller("demo", log, sources=[fast, slow])
        async with running(controller):
            await asyncio.sleep(60)
            assert log.calls == []
            assert not controller.synced
            slow.complete.set()
            await asyncio.sleep(0.001)
            assert sorted(log.keys) == ["x/a", "x/b"]

    virtually(main())


def test_sources_that_do_not_sync_are_named() -> None:
    async def main() -> None:
        sources = [ToldInformer("good"), *(ToldInformer(name, complete=False) for name in ("pods", "nodes"))]
        controller = Controller("demo", Log(), sources=sources, sync_timeout_s=20.0)
        with pytest.raises(
            NotSynced, match="controller demo: nodes, pods did not have everything within 20 s"
        ):
            await controller.run()
        assert now() == 20
        assert all(source.handlers == [] for source in sources)

    virtually(main())


def test_a_source_that_fails_ends_the_run_with_its_error() -> None:
    async def main() -> None:
        broken = ToldInformer("broken")

        async def synced() -> None:
            raise ZeroDivisionError

        broken.synced = synced  # type: ignore[method-assign]
        other = ToldInformer("other", complete=False)
        with pytest.raises(ZeroDivisionError):
            await Controller("demo", Log(), sources=[other, broken]).run()
        assert other.handlers == []

    virtually(main())


# -- metrics --------------------------------------------------------------------------------------------------


def test_metrics() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"), thing("x/b"))
        log = Log(lambda key: asyncio.sleep(50 if key == "x/a" else 0))
        controller = Controller("demo", log, sources=[informer], hung_after_s=5.0)
        collector = ControllerCollector([controller])
        with pytest.raises(ValueError, match="two controllers are called 'demo'"):
            ControllerCollector([controller, Controller("demo", log, sources=[informer])])
        registry = CollectorRegistry()
        registry.register(collector)
        async with running(controller):
            await asyncio.sleep(10)
            text = generate_latest(registry).decode()
        for line in (
            'shoal_controller_reconciles_total{controller="demo",result="success"} 1.0',
            'shoal_controller_reconciles_total{controller="demo",result="terminal"} 0.0',
            'shoal_controller_reconcile_seconds_count{controller="demo"} 1.0',
            'shoal_controller_workers{controller="demo"} 2.0',
            'shoal_controller_active_workers{controller="demo"} 1.0',
            'shoal_controller_hung{controller="demo"} 1.0',
            'shoal_controller_reconciles_hung_total{controller="demo"} 1.0',
            'shoal_controller_synced{controller="demo"} 1.0',
        ):
            assert line in text

    virtually(main())
