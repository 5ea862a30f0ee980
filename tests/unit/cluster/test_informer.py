"""Informers over the embedded API server: what handlers are told, in which order, under which troubles."""

import asyncio

import pytest
from support.informing import CONFIG_MAPS, WIDGETS, Remembering, in_world

from shoal.cluster.informers.errors import UnknownResource
from shoal.cluster.informers.handlers import EventHandler
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import Rule, SimulatorSettings, User
from shoal.shards.model.errors import BadRequest, NotReady


def test_a_handler_is_told_of_what_is_there_and_of_each_change():
    async def main(world):
        world.create("a")
        informer = world.factory.informer("v1/configmaps")
        handler = Remembering()
        registration = informer.add_handler(handler)
        assert not informer.has_synced
        await informer.synced()
        await registration.synced()
        assert handler.take() == ["initial default/a"]
        world.create("b")
        world.change("a", app="web")
        gone = world.delete("b")
        await asyncio.sleep(1)
        assert handler.take() == ["add default/b", "update default/a", "delete default/b"]
        assert handler.last.resource_version == str(gone), (
            "the last state carries the version of the deletion"
        )
        assert handler.last.metadata.resourceVersion == str(gone)
        assert handler.state == world.state()
        assert informer.resource == CONFIG_MAPS
        assert informer.status.state == "synced"
        assert registration.statistics.delivered == 4

    in_world(main)


def test_a_handler_that_comes_later_is_told_of_all_that_is_held_as_initial():
    async def main(world):
        for number in range(5):
            world.create(f"a{number}")
        informer = world.factory.informer("v1/configmaps")
        await informer.synced()
        world.change("a1", app="web")
        late = Remembering()
        # Nothing that happens between is lost or told twice.
        registration = informer.add_handler(late)
        world.create("b")
        world.delete("a2")
        await registration.synced()
        await asyncio.sleep(1)
        assert sorted(late.take()[:5]) == [f"initial default/a{number}" for number in range(5)]
        assert late.state == world.state()
        empty = world.factory.informer("v1/secrets")
        registration = empty.add_handler(Remembering())
        await registration.synced()
        assert registration.has_synced

    in_world(main)


def test_plain_functions_and_coroutine_functions_take_the_place_of_a_handler():
    async def main(world):
        world.create("a")
        told = []

        async def changed(old, new):
            await asyncio.sleep(1)
            told.append((old.labels, new.labels))

        informer = world.factory.informer("configmaps")
        registration = informer.add_handler(
            on_add=lambda obj, is_initial: told.append((obj.name, is_initial)), on_update=changed
        )
        await registration.synced()
        world.change("a", n="1")
        world.change("a", n="2")
        world.delete("a")
        await asyncio.sleep(5)
        assert told == [("a", True), ({}, {"n": "1"}), ({"n": "1"}, {"n": "2"})]
        assert registration.statistics.deletes == 1
        assert registration.statistics.seconds == pytest.approx(2, abs=0.1)
        # What a plain function returns is nobody's business.
        values = informer.add_handler(on_add=lambda obj, is_initial: obj.name)
        world.create("b")
        await asyncio.sleep(1)
        assert values.statistics.failed == 0

    in_world(main)


def test_what_is_no_handler_is_refused():
    async def main(world):
        informer = world.factory.informer("configmaps")
        with pytest.raises(TypeError, match="is no handler"):
            informer.add_handler(object())
        with pytest.raises(TypeError, match="nobody would be told"):
            informer.add_handler()
        with pytest.raises(TypeError, match="not both"):
            informer.add_handler(Remembering(), on_add=print)
        with pytest.raises(TypeError, match="expected a function"):
            informer.add_handler(on_add="print")
        with pytest.raises(ValueError, match="queue_max is 0"):
            informer.add_handler(on_add=print, queue_max=0)
        with pytest.raises(ValueError, match="resync_s is -1"):
            informer.add_handler(on_add=print, resync_s=-1)

        class Slow(EventHandler):
            async def on_add(self, obj, is_initial):
                pass

        with pytest.raises(TypeError, match="leave out thread=True"):
            informer.add_handler(Slow(), thread=True)

    in_world(main)


def test_what_was_missed_is_found_by_a_relist():
    async def main(world):
        for name in ("same", "changed", "gone"):
            world.create(name)
        informer = world.factory.informer("configmaps")
        handler = Remembering()
        await informer.add_handler(handler).synced()
        handler.take()
        world.fault("drop", verb="watch", count=3)
        world.fault("cut", immediate=True)
        await asyncio.sleep(0.1)
        world.change("changed", n="1")
        world.delete("gone")
        world.create("new")
        world.fault("compact")
        await asyncio.sleep(60)
        assert sorted(handler.take()) == [
            "add default/new",
            "missed delete default/gone",
            "update default/changed",
        ]
        assert handler.state == world.state()
        assert informer.status.reconnects > 0
        assert informer.has_synced

    in_world(main)


def test_an_object_that_was_replaced_while_nobody_looked_is_told_as_a_delete_and_an_add():
    async def main(world):
        world.create("a")
        informer = world.factory.informer("configmaps")
        handler = Remembering()
        await informer.add_handler(handler).synced()
        first = handler.last.uid
        world.fault("drop", verb="watch", count=3)
        world.fault("cut", immediate=True)
        await asyncio.sleep(0.1)
        world.delete("a")
        world.create("a")
        world.fault("compact")
        await asyncio.sleep(60)
        assert handler.take() == ["initial default/a", "missed delete default/a", "add default/a"]
        assert handler.last.uid != first

    in_world(main)


def test_handlers_are_told_what_is_different_after_the_server_lost_its_past():
    async def main(world):
        world.create("kept")
        for number in range(30):
            world.create(f"lost{number}")
        world.change("kept", n="1")
        informer = world.factory.informer("configmaps")
        informer.add_index("n", lambda obj: [obj.labels["n"]] if "n" in obj.labels else [])
        handler = Remembering()
        await informer.add_handler(handler).synced()
        handler.take()
        older = build_app(SimulatorSettings(seed=1))
        kind = older.verbs.served(CONFIG_MAPS)
        for name in ("kept", "other"):
            older.verbs.create(kind, "default", {"metadata": {"name": name}})
        world.connection._app, old = older, world.app
        old.faults.arm(Fault(kind="cut", immediate=True))
        await asyncio.sleep(60)
        told = handler.take()
        assert handler.state.keys() == {"default/kept", "default/other"}
        assert "add default/other" in told
        assert told.count("missed delete default/lost7") == 1
        assert informer.lister.by_index("n", "1") == []
        assert informer.status.went_back == 1

    in_world(main)


def test_an_older_server_is_noticed_when_a_watch_has_run_out_in_time():
    """A balancer led elsewhere by then; nothing was broken, and what is held used to be wrong for ever."""

    async def main(world):
        for number in range(30):
            world.create(f"lost{number}")
        informer = world.factory.informer("configmaps")
        handler = Remembering()
        await informer.add_handler(handler).synced()
        older = build_app(SimulatorSettings(seed=1))
        older.verbs.create(older.verbs.served(CONFIG_MAPS), "default", {"metadata": {"name": "other"}})
        world.connection._app = older
        await asyncio.sleep(700)
        assert informer.status.watch_restarts == {"timeout": 1}
        assert informer.status.errors == {"went_back": 1}
        assert handler.state.keys() == {"default/other"}
        assert [obj.name for obj in informer.lister.list()] == ["other"]

    in_world(main)


def test_a_resource_that_vanishes_has_its_objects_deleted_and_is_followed_again_when_it_is_back():
    async def main(world):
        world.define_widgets()
        world.create("a", kind=WIDGETS)
        informer = world.factory.informer("wd")
        informer.add_index("all", lambda obj: ["one"])
        handler = Remembering()
        await informer.add_handler(handler).synced()
        assert informer.resource == WIDGETS
        world.forget_widgets()
        await asyncio.sleep(60)
        assert handler.take()[1:] in (["delete default/a"], ["missed delete default/a"])
        assert informer.status.state == "gone"
        assert "widgets" in informer.status.message or "wd" in informer.status.message
        assert informer.lister.list() == []
        assert informer.lister.index_values("all") == []
        late = Remembering()
        await informer.add_handler(late).synced()
        world.define_widgets()
        world.create("b", kind=WIDGETS)
        await asyncio.sleep(90)
        assert informer.status.state == "synced"
        assert handler.take() == ["add default/b"]
        assert late.take() == ["add default/b"]
        assert [obj.key for obj in informer.lister.by_index("all", "one")] == ["default/b"]

    in_world(main)


def test_an_unknown_resource_is_an_error_that_names_what_it_may_have_been():
    async def main(world):
        informer = world.factory.informer("apps/v1/deploymets")
        registration = informer.add_handler(Remembering())
        with pytest.raises(
            UnknownResource, match=r"no resource 'apps/v1/deploymets'; did you mean apps/v1/deployments"
        ):
            await informer.synced()
        with pytest.raises(UnknownResource):
            await registration.synced()
        assert informer.status.state == "unknown"
        with pytest.raises(UnknownResource):
            await world.factory.start()
        with pytest.raises(NotReady, match="is not synced yet"):
            informer.lister.list()
        again = world.factory.informer("apps/v1/deploymets")
        assert again is not informer, "what has failed is not shared"

    in_world(main)


def test_a_resource_that_does_not_exist_yet_is_waited_for_if_asked():
    async def main(world):
        informer = world.factory.informer("example.com/v1/widgets", wait=True)
        handler = Remembering()
        registration = informer.add_handler(handler)
        await world.factory.start()
        await asyncio.sleep(20)
        assert informer.status.state == "waiting"
        assert "serves no resource 'example.com/v1/widgets'" in informer.status.message
        world.define_widgets()
        world.create("a", kind=WIDGETS)
        await asyncio.wait_for(registration.synced(), 60)
        assert handler.take() == ["initial default/a"]

    in_world(main)


def test_what_the_api_server_does_not_select_by_is_refused_and_not_asked_for_again():
    async def main(world):
        informer = world.factory.informer("configmaps", field_selector="spec.color=red")
        await asyncio.sleep(120)
        status = informer.status
        assert status.state == "refused"
        assert status.message.startswith('"spec.color" is not a known field selector')
        assert sum(status.lists.values()) < 3
        with pytest.raises(BadRequest):
            await informer.synced()
        await world.factory.release(informer)
        assert informer.failure.message == status.message

    in_world(main)


def test_who_may_not_list_is_refused_until_he_may():
    async def main(world):
        informer = world.factory.informer("configmaps", wait=True)
        await asyncio.sleep(5)
        assert informer.status.state == "refused"
        assert "discovery failed: the API server answered GET /api" in informer.status.message
        world.connection._token = "t"
        await asyncio.sleep(60)
        assert informer.status.state == "refused"
        assert informer.status.message.startswith("403: ")
        allowed = world.factory.informer("pods")
        await allowed.synced()
        assert allowed.status.state == "synced"

    in_world(main, users=(User(name="nobody", token="t", rules=(Rule(resources=("pods",)),)),))


def test_a_namespace_of_a_resource_that_has_none_is_an_error():
    async def main(world):
        informer = world.factory.informer("v1/nodes", namespace="default")
        with pytest.raises(BadRequest, match="v1/nodes is cluster-scoped"):
            await informer.synced()

    in_world(main)


def test_only_selected_objects_are_told_and_what_leaves_the_selector_is_deleted():
    async def main(world):
        world.namespace("shop")
        world.create("a", labels={"app": "web"})
        world.create("b", labels={"app": "db"})
        world.create("c", "shop", labels={"app": "web"})
        web = world.factory.informer("configmaps", label_selector="app = web")
        shop = world.factory.informer("configmaps", namespace="shop")
        named = world.factory.informer("configmaps", field_selector="metadata.name=b")
        handlers = [Remembering() for _ in range(3)]
        for informer, handler in zip((web, shop, named), handlers, strict=True):
            await informer.add_handler(handler).synced()
        assert [sorted(handler.take()) for handler in handlers] == [
            ["initial default/a", "initial shop/c"],
            ["initial shop/c"],
            ["initial default/b"],
        ]
        left = world.change("a", app="db")
        world.change("b", app="web")
        await asyncio.sleep(1)
        assert handlers[0].take() == ["delete default/a", "add default/b"]
        assert handlers[2].take() == ["update default/b"]
        assert shop.lister.get("c").name == "c"
        assert left

    in_world(main)


def test_selectors_hold_although_the_server_ignores_them():
    async def main(world):
        world.fault("ignore-selectors", count=None)
        world.create("a", labels={"app": "web"})
        world.create("b", labels={"app": "db"})
        informer = world.factory.informer("configmaps", label_selector="app=web")
        handler = Remembering()
        await informer.add_handler(handler).synced()
        world.change("a", app="db")
        world.change("b", app="web")
        await asyncio.sleep(1)
        assert handler.take() == ["initial default/a", "delete default/a", "add default/b"]
        assert informer.status.dropped > 0

    in_world(main)
