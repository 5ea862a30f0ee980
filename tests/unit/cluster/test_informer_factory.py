"""The factory: what is shared, what ends when, which resource is meant, and what discovery shows."""

import asyncio

import pytest
from support.informing import CONFIG_MAPS, WIDGETS, Remembering, in_world

from shoal.cluster.informers.discovered import Appeared, Vanished
from shoal.cluster.informers.errors import InformerClosed, UnknownResource
from shoal.cluster.informers.transforms import dropping
from shoal.shards.model.errors import BadRequest, BadShardSelector, ConnectionFailed
from shoal.shards.model.resources import Resource


def watches(world):
    """Open watches of config maps."""
    return sum(exchange._request.path.endswith("/configmaps") for exchange in world.connection._open)


def test_who_asks_for_the_same_shares_a_feed():
    async def main(world):
        factory = world.factory
        first = factory.informer("v1/configmaps", label_selector="app = web,tier=x")
        same = factory.informer(CONFIG_MAPS, label_selector="app=web , tier=x")
        assert same is not first
        assert same.lister is first.lister
        others = [
            factory.informer("v1/configmaps"),
            factory.informer("v1/configmaps", namespace="default", label_selector="app=web,tier=x"),
            factory.informer("v1/configmaps", label_selector="app=web,tier=x", transform=dropping("data")),
            factory.informer("v1/secrets", label_selector="app=web,tier=x"),
        ]
        assert len({id(informer.lister) for informer in (first, *others)}) == 5
        dropped = factory.informer(
            "v1/configmaps", label_selector="app=web,tier=x", transform=dropping("data")
        )
        assert dropped.lister is others[2].lister
        await factory.start()
        for spelling in ("configmaps", "cm"):
            # Once discovery is known, spellings do not matter.
            assert factory.informer(spelling).lister is others[0].lister
        assert others[0].status.users == 3
        assert len(factory.informers) == 5

    in_world(main)


def test_one_feed_serves_all_who_share_it_and_ends_with_the_last_of_them():
    async def main(world):
        factory = world.factory
        first, second = factory.informer("v1/configmaps"), factory.informer("v1/configmaps")
        handler = Remembering()
        registration = second.add_handler(handler)
        await second.synced()
        assert watches(world) == 1
        assert first.release() is None
        world.create("a")
        await asyncio.sleep(1)
        assert handler.told == ["add default/a"]
        ending = second.release()
        await ending
        assert watches(world) == 0
        assert factory.informers == ()
        world.create("b")
        await asyncio.sleep(1)
        assert handler.told == ["add default/a"]
        assert registration.has_synced
        with pytest.raises(ValueError, match="released more often"):
            second.release()
        third = factory.informer("v1/configmaps")
        assert third is not first
        await third.synced()
        assert len(third.lister) == 2

    in_world(main)


def test_a_closed_factory_gives_no_informers():
    async def main(world):
        informer = world.factory.informer("configmaps")
        waiting = asyncio.create_task(informer.synced())
        await asyncio.sleep(0)
        await world.factory.aclose()
        with pytest.raises(InformerClosed):
            await waiting
        with pytest.raises(InformerClosed):
            world.factory.informer("configmaps")

    in_world(main)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"label_selector": "app in web"}, BadRequest, "unable to parse requirement"),
        ({"field_selector": "spec.x"}, BadRequest, "can't understand 'spec.x'"),
        ({"shard_selector": "nonsense"}, BadShardSelector, "invalid shard selector"),
        ({"namespace": "a/b"}, ValueError, "is no namespace"),
        ({"namespace": ""}, ValueError, "is no namespace"),
        ({"resync_s": 0}, ValueError, "resync_s is 0"),
    ],
)
def test_what_cannot_be_read_is_an_error_at_once(arguments, error, text):
    async def main(world):
        with pytest.raises(error, match=text):
            world.factory.informer("configmaps", **arguments)
        assert world.factory.informers == ()

    in_world(main)


@pytest.mark.parametrize("text", ["", "a//b", "a/b/c/d", ".apps", "deployments.", "two words"])
def test_what_names_no_resource_is_an_error_at_once(text):
    async def main(world):
        with pytest.raises(BadRequest, match="names no resource: expected a form like v1/pods"):
            world.factory.informer(text)
        with pytest.raises(BadRequest, match="names no resource: expected a form like v1/pods"):
            await world.factory.resolve(text)
        assert world.factory.informers == ()

    in_world(main)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("v1/pods", "v1/pods"),
        ("apps/v1/deployments", "apps/v1/deployments"),
        ("apps/deployments", "apps/v1/deployments"),
        ("deployments.apps", "apps/v1/deployments"),
        ("deployments.v1.apps", "apps/v1/deployments"),
        ("deploy", "apps/v1/deployments"),
        ("Deployment", "apps/v1/deployments"),
        ("pods", "v1/pods"),
        ("po", "v1/pods"),
        ("events", "v1/events"),
        ("events.events.k8s.io", "events.k8s.io/v1/events"),
        (Resource("apps", "v1", "deployments"), "apps/v1/deployments"),
        ("widgets.example.com", "example.com/v1/widgets"),
        ("widget.v1.example.com", "example.com/v1/widgets"),
    ],
)
def test_a_resource_may_be_named_in_many_ways(text, meant):
    async def main(world):
        world.define_widgets()
        assert str((await world.factory.resolve(text)).resource) == meant

    in_world(main)


@pytest.mark.parametrize(
    ("text", "close"),
    [
        ("podz", "v1/pods"),
        ("apps/v2/deployments", "apps/v1/deployments"),
        ("v1/deployments", "apps/v1/deployments"),
        ("deployment.app", "apps/v1/deployments"),
        ("networking/v1/ingresses", "networking.k8s.io/v1/ingresses"),
        ("configmap.v2.", "v1/configmaps"),
    ],
)
def test_an_unknown_resource_names_the_closest(text, close):
    async def main(world):
        with pytest.raises(UnknownResource) as caught:
            await world.factory.resolve(text)
        assert caught.value.close[0] == close
        assert f"did you mean {close}" in caught.value.message
        with pytest.raises(UnknownResource, match=r"serves no resource 'qqqqqqqqqqq'$"):
            await world.factory.resolve("qqqqqqqqqqq")
        with pytest.raises(
            UnknownResource, match="cannot be followed: the API server offers no list and no watch"
        ):
            await world.factory.resolve("tokenreviews")

    in_world(main)


def test_a_resource_defined_a_moment_ago_is_known():
    async def main(world):
        await world.factory.start()
        world.define_widgets()
        assert (await world.factory.resolve("wd")).resource == WIDGETS
        informer = world.factory.informer("wd")
        await informer.synced()

    in_world(main)


def test_resources_are_told_as_they_come_and_go():
    async def main(world):
        world.define_widgets()
        told, also_told = [], []

        async def follow(told, **what):
            async for event in world.factory.discovered(**what):
                told.append((type(event), str(event.resource_type.resource)))

        followers = [
            asyncio.create_task(follow(told, group="example.com")),
            asyncio.create_task(follow(also_told, pattern="*.*.com")),
        ]
        await asyncio.sleep(1)
        here, gone = (Appeared, "example.com/v1/widgets"), (Vanished, "example.com/v1/widgets")
        assert told == [here]
        world.forget_widgets()
        await asyncio.sleep(15)
        assert told == [here, gone]
        world.define_widgets()
        await asyncio.sleep(15)
        assert told == also_told == [here, gone, here]
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        every = []
        async for event in world.factory.discovered(group=""):
            every.append(str(event.resource_type.resource))
            if "v1/services" in every:
                break
        assert "v1/pods" in every
        assert "v1/secrets" in every
        assert not any(name.startswith("apps/") for name in every)

    in_world(main)


def test_a_pattern_that_cannot_be_read_is_an_error():
    async def main(world):
        for what in ({"group": "a", "pattern": "b"}, {"pattern": "A/b"}, {"group": "x y"}):
            with pytest.raises(ValueError, match=r"not both|is not a resource pattern"):
                await anext(world.factory.discovered(**what))

    in_world(main)


def test_an_api_server_that_is_away_is_waited_for():
    async def main(world):
        world.create("a")
        world.fault("drop", count=12)
        informer = world.factory.informer("configmaps")
        with pytest.raises(ConnectionFailed):
            await world.factory.start()
        await asyncio.sleep(0)
        assert informer.status.state == "waiting"
        assert "discovery failed" in informer.status.message
        found = []

        async def follow():
            found.append(await anext(world.factory.discovered(group="apps")))

        follower = asyncio.create_task(follow())
        await asyncio.wait_for(informer.synced(), 120)
        await asyncio.sleep(30)
        follower.cancel()
        await asyncio.wait([follower])
        assert found
        assert len(informer.lister) == 1

    in_world(main)
