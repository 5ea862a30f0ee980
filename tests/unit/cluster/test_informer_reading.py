"""Reading what informers hold: listers, local indexes, transforms."""

import asyncio
import json

import msgspec
import pytest
from support.informing import Remembering, in_world

from shoal.cluster.informers.transforms import dropping
from shoal.shards.model.errors import BadRequest, NotFound, NotReady


def test_a_lister_reads_what_is_held():
    async def main(world):
        world.namespace("shop")
        world.create("b", labels={"app": "web"})
        world.create("a", labels={"app": "db"})
        world.create("a", "shop", labels={"app": "web"})
        informer = world.factory.informer("configmaps")
        lister = informer.lister
        for read in (
            lister.list,
            lister.__len__,
            lambda: lister.get("a", "shop"),
            lambda: lister.by_index("x", "y"),
        ):
            with pytest.raises((NotReady, NotFound)):
                read()
        await informer.synced()
        assert [obj.key for obj in lister.list()] == ["default/a", "default/b", "shop/a"]
        assert [obj.key for obj in lister] == ["default/a", "default/b", "shop/a"]
        assert [obj.key for obj in lister.list("shop")] == ["shop/a"]
        assert [obj.key for obj in lister.list(label_selector="app=web")] == ["default/b", "shop/a"]
        assert [obj.key for obj in lister.list("default", label_selector="app in (web)")] == ["default/b"]
        assert [obj.key for obj in lister.list(field_selector="metadata.name=a")] == ["default/a", "shop/a"]
        assert (len(lister), lister.count(), lister.count("shop"), lister.count(label_selector="app=db")) == (
            3,
            3,
            1,
            1,
        )
        assert lister.get("a", "shop").labels == {"app": "web"}
        assert lister.get("none", "shop") is None
        assert lister.get_by_key("default/b").metadata.name == "b"
        assert "default/b" in lister
        assert "default/c" not in lister
        assert 7 not in lister
        with pytest.raises(BadRequest, match="say in which 'a' is"):
            lister.get("a")
        with pytest.raises(BadRequest, match="unable to parse requirement"):
            lister.list(label_selector="app in web")
        with pytest.raises(BadRequest, match="field label not supported"):
            lister.list(field_selector="spec.x=1")
        nodes = world.factory.informer("nodes")
        await nodes.synced()
        assert nodes.lister.get("none") is None

    in_world(main)


def test_an_index_may_be_added_at_any_time_and_follows_changes():
    async def main(world):
        world.create("a", labels={"team": "x"})
        informer = world.factory.informer("configmaps")

        def by_team(obj):
            return [obj.labels["team"]] if "team" in obj.labels else []

        informer.add_index("team", by_team)
        await informer.synced()
        world.create("b", labels={"team": "x"})
        world.create("c")
        await asyncio.sleep(1)
        informer.add_index("late", lambda obj: [*obj.labels, obj.name])
        lister = informer.lister
        assert [obj.key for obj in lister.by_index("team", "x")] == ["default/a", "default/b"]
        assert lister.index_values("late") == ["a", "b", "c", "team"]
        world.change("a", team="y")
        world.delete("b")
        await asyncio.sleep(1)
        assert lister.keys_by_index("team", "x") == []
        assert lister.keys_by_index("team", "y") == ["default/a"]
        assert lister.index_values("team") == ["y"]
        assert lister.index_values("late") == ["a", "c", "team"]
        informer.add_index("team", by_team)
        with pytest.raises(ValueError, match="another index called 'team'"):
            informer.add_index("team", lambda obj: [])
        with pytest.raises(NotFound, match="has no index 'nope'; there are: late, team"):
            lister.by_index("nope", "x")
        with pytest.raises(TypeError, match="is no function"):
            informer.add_index("bad", 3)

    in_world(main)


def test_an_index_shows_a_change_before_a_handler_is_told_of_it():
    async def main(world):
        informer = world.factory.informer("configmaps")
        informer.add_index("name", lambda obj: [obj.name])
        seen = []
        informer.add_handler(
            on_add=lambda obj, is_initial: seen.append(informer.lister.keys_by_index("name", obj.name)),
            on_delete=lambda obj, known: seen.append(informer.lister.keys_by_index("name", obj.name)),
        )
        await informer.synced()
        world.create("a")
        await asyncio.sleep(1)
        world.delete("a")
        await asyncio.sleep(1)
        assert seen == [["default/a"], []]

    in_world(main)


def test_an_index_function_that_fails_is_counted_and_its_object_found_by_nothing(caplog):
    async def main(world):
        world.create("a", labels={"app": "web"})
        world.create("b")
        informer = world.factory.informer("configmaps")
        await informer.synced()
        informer.add_index("app", lambda obj: [obj.labels["app"]])
        informer.add_index("text", lambda obj: obj.name)
        informer.add_index("number", lambda obj: [1])
        assert informer.lister.keys_by_index("app", "web") == ["default/a"]
        assert informer.lister.index_values("text") == []
        assert informer.lister.index_values("number") == []
        assert informer.status.index_failures == 5
        world.change("b", app="db")
        await asyncio.sleep(1)
        assert informer.lister.keys_by_index("app", "db") == ["default/b"]
        assert {record.key for record in caplog.records if record.message == "index function failed"} == {
            "default/a",
            "default/b",
        }

    in_world(main)


def test_a_transform_decides_what_is_held():
    async def main(world):
        world.create("a", data={"large": "x" * 1000, "small": "y"}, labels={"app": "web"})

        def slim(document):
            del document["data"]["large"]
            return document

        informer = world.factory.informer("configmaps", transform=slim, label_selector="app=web")
        handler = Remembering()
        await informer.add_handler(handler).synced()
        assert dict(handler.last.data.items()) == {"small": "y"}
        world.factory.informer("configmaps", transform=slim, label_selector="app=web")
        assert len(world.factory.informers) == 1
        world.factory.informer("configmaps", label_selector="app=web")
        assert len(world.factory.informers) == 2
        # A list made anew shows the same objects, and tells of nothing.
        world.fault("line-410", immediate=True, count=2)
        await asyncio.sleep(60)
        assert sum(informer.status.lists.values()) > 1
        assert handler.told == ["initial default/a"]

    in_world(main)


def test_a_transform_that_fails_loses_nothing(caplog):
    async def main(world):
        world.create("a", data={"k": "v"})

        def renames(document):
            document["metadata"]["name"] = "other"
            return document

        for transform in (renames, lambda document: None, lambda document: document["none"]):
            informer = world.factory.informer("configmaps", transform=transform)
            await informer.synced()
            assert informer.lister.get("a", "default").data.k == "v"
            assert informer.status.transform_failures == 1
        assert sum(record.message == "transform failed" for record in caplog.records) == 3
        with pytest.raises(TypeError, match="expected a function of a parsed object"):
            world.factory.informer("configmaps", transform="metadata")

    in_world(main)


def test_members_can_be_dropped_without_parsing_the_object():
    metadata = {"name": "a", "annotations": {"x": "y"}, "labels": {"a": "b"}}
    body = msgspec.json.encode(
        {"kind": "Pod", "metadata": metadata, "spec": [1], "status": {"a": {"b": 1, "c": 2}}}
    )
    slim = dropping("metadata.annotations", "status.a.b", "spec.nodeName", "none.x", "none")
    assert json.loads(slim.reshape(body)) == {
        "kind": "Pod",
        "metadata": {"name": "a", "labels": {"a": "b"}},
        "spec": [1],
        "status": {"a": {"c": 2}},
    }
    assert json.loads(dropping("spec", "status").reshape(body)).keys() == {"kind", "metadata"}
    assert dropping("a", "b") == dropping("b", "a")
    assert hash(dropping("a", "b")) == hash(dropping("b", "a"))


@pytest.mark.parametrize("path", ["metadata", "metadata.name", "metadata.uid", "kind", "a..b", ""])
def test_what_identifies_an_object_cannot_be_dropped(path):
    with pytest.raises(ValueError, match=r"cannot be left out|is not the path of a member"):
        dropping(path)


def test_dropping_nothing_is_an_error():
    with pytest.raises(ValueError, match="names nothing"):
        dropping()
