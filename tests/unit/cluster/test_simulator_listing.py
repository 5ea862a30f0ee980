"""LIST: states, pages, tokens, selectors, sharding."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from support.apiserver import Caller, in_virtual_time, virtual_apiserver

from shoal.cluster.simulator.listing import ContinueToken
from shoal.cluster.simulator.selection import BadShardSelector, parse_shard_selector
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.model.errors import BadRequest
from shoal.shards.model.partitions import fnv1a64

MAPS = "/api/v1/namespaces/default/configmaps"
ALL_MAPS = "/api/v1/configmaps"


def caller(**settings: object) -> Caller:
    return Caller(virtual_apiserver(SimulatorSettings(seed=1, **settings)))


def names(document: dict) -> list[str]:
    return [item["metadata"]["name"] for item in document["items"]]


def test_pages_are_one_snapshot() -> None:
    async def main() -> None:
        server = caller()
        for name in "abcdef":
            await server.create(MAPS, name)
        page = await server.get(f"{ALL_MAPS}?limit=2")
        assert (names(page), page["metadata"]["remainingItemCount"]) == (["a", "b"], 4)
        await server.ask("DELETE", f"{MAPS}/c")
        await server.create(MAPS, "bb")
        token = page["metadata"]["continue"]
        page = await server.get(f"{ALL_MAPS}?limit=3&continue={token}")
        assert names(page) == ["c", "d", "e"]
        assert page["metadata"]["resourceVersion"] == "11"
        page = await server.get(f"{ALL_MAPS}?limit=3&continue={page['metadata']['continue']}")
        assert names(page) == ["f"]
        assert "continue" not in page["metadata"]
        assert "remainingItemCount" not in page["metadata"]

    in_virtual_time(main())


def test_a_token_that_expired_offers_one_to_go_on_with() -> None:
    async def main() -> None:
        server = caller()
        for name in "abcd":
            await server.create(MAPS, name)
        token = (await server.get(f"{MAPS}?limit=2"))["metadata"]["continue"]
        await server.create(MAPS, "bb")
        server.app.storage.compact()
        status, expired = await server.ask("GET", f"{MAPS}?limit=2&continue={token}")
        assert (status, expired["reason"]) == (410, "Expired")
        onward = expired["metadata"]["continue"]
        page = await server.get(f"{MAPS}?limit=2&continue={onward}")
        assert names(page) == ["bb", "c"]
        page = await server.get(f"{MAPS}?continue={page['metadata']['continue']}")
        assert names(page) == ["d"]

    in_virtual_time(main())


def test_exact_versions() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a")
        await server.create(MAPS, "b")
        assert names(await server.get(f"{MAPS}?resourceVersion=6&resourceVersionMatch=Exact")) == ["a"]
        assert names(await server.get(f"{MAPS}?resourceVersion=6&limit=9")) == ["a"]
        assert names(await server.get(f"{MAPS}?resourceVersion=6")) == ["a", "b"]
        server.app.storage.compact()
        status, expired = await server.ask("GET", f"{MAPS}?resourceVersion=6&resourceVersionMatch=Exact")
        assert (status, expired["message"]) == (410, "The resourceVersion for the provided list is too old.")

    in_virtual_time(main())


def test_a_version_that_comes_is_waited_for_and_one_that_does_not_is_504() -> None:
    async def main() -> None:
        server = caller()
        loop = asyncio.get_running_loop()
        asked = asyncio.create_task(server.get(f"{MAPS}?resourceVersion=6"))
        await asyncio.sleep(2)
        await server.create(MAPS, "a")
        assert names(await asked) == ["a"]
        assert loop.time() == pytest.approx(2)
        status, document = await server.ask("GET", f"{MAPS}?resourceVersion=99")
        assert (status, document["details"]["retryAfterSeconds"]) == (504, 1)
        assert loop.time() == pytest.approx(5)

    in_virtual_time(main())


def test_get_waits_for_a_version_as_list_does() -> None:
    """It answered what it had, however old, and a version that is no number was no error."""

    async def main() -> None:
        server = caller()
        created = await server.create(MAPS, "a")
        version = int(created["metadata"]["resourceVersion"])
        for known in ("", "0", str(version)):
            assert (await server.get(f"{MAPS}/a?resourceVersion={known}"))["metadata"]["name"] == "a"
        waiting = asyncio.create_task(server.ask("GET", f"{MAPS}/b?resourceVersion={version + 1}"))
        await asyncio.sleep(1)
        assert not waiting.done()
        await server.create(MAPS, "b")
        status, document = await waiting
        assert (status, document["metadata"]["name"]) == (200, "b")
        status, document = await server.ask("GET", f"{MAPS}/a?resourceVersion={version + 9}")
        assert (status, document["reason"], document["details"]["retryAfterSeconds"]) == (504, "Timeout", 1)
        assert document["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
        status, document = await server.ask("GET", f"{MAPS}/a?resourceVersion=abc")
        assert (status, document["message"]) == (
            500,
            'resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax',
        )

    in_virtual_time(main())


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("labelSelector=app", "abc"),
        ("labelSelector=!app", "d"),
        ("labelSelector=app=web", "ab"),
        ("labelSelector=app==web", "ab"),
        ("labelSelector=app!=web", "cd"),
        ("labelSelector=app in (web,db)", "abc"),
        ("labelSelector=app notin (web)", "cd"),
        ("labelSelector=app=web,tier", "b"),
        ("labelSelector=n>1", "b"),
        ("fieldSelector=metadata.name=a", "a"),
        ("fieldSelector=metadata.name!=a", "bcd"),
        ("fieldSelector=metadata.namespace!=default", ""),
        ("fieldSelector=metadata.namespace==default,metadata.name=c", "c"),
        ("labelSelector=app=web&fieldSelector=metadata.name=b", "b"),
    ],
)
def test_selectors(selector: str, expected: str) -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a", labels={"app": "web", "n": "1"})
        await server.create(MAPS, "b", labels={"app": "web", "tier": "x", "n": "2"})
        await server.create(MAPS, "c", labels={"app": "db"})
        await server.create(MAPS, "d")
        query = selector.replace(">", "%3E").replace(" ", "%20")
        assert "".join(names(await server.get(f"{ALL_MAPS}?{query}"))) == expected

    in_virtual_time(main())


def test_namespaces_in_key_order() -> None:
    async def main() -> None:
        server = caller()
        for space in ("a", "a-b", "b"):
            await server.create("/api/v1/namespaces", space)
            await server.create(f"/api/v1/namespaces/{space}/configmaps", "x")
        spaces = [one["metadata"]["namespace"] for one in (await server.get(ALL_MAPS))["items"]]
        assert spaces == ["a-b", "a", "b"], "the order of etcd's keys: '-' sorts before '/'"

    in_virtual_time(main())


def test_events_are_one_collection_in_two_groups() -> None:
    async def main() -> None:
        server = caller()
        core = {"involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "r"}
        await server.create("/api/v1/namespaces/default/events", "e", **core)
        new = "/apis/events.k8s.io/v1/namespaces/default/events"
        (event,) = (await server.get(f"{new}?fieldSelector=regarding.name%3Dp"))["items"]
        assert (event["regarding"]["name"], event["note"]) == ("p", "m")
        assert "involvedObject" not in event
        assert (await server.get(f"{new}?fieldSelector=regarding.name%3Dq"))["items"] == []
        await server.create(new, "f", regarding={"name": "q"}, note="n", reportingController="c")
        old = await server.get("/api/v1/namespaces/default/events/f")
        assert (old["involvedObject"], old["message"], old["reportingComponent"]) == ({"name": "q"}, "n", "c")

    in_virtual_time(main())


# -- continue tokens --------------------------------------------------------------------------------


def test_tokens_are_the_api_servers() -> None:
    token = ContinueToken(74, "cm-1\0")
    assert token.encode() == "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NzQsInN0YXJ0IjoiL2NtLTFcdTAwMDAifQ"
    assert ContinueToken.decode(token.encode()) == token
    assert ContinueToken.decode(token.encode(rooted=False)) == token


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gar*bage", "illegal base64 data at input byte 3"),
        ("garbage", r"invalid character '\u0081' looking for beginning of value"),
        (encoded([1]), "cannot unmarshal"),
        (encoded({"v": "v2", "rv": 1, "start": "a"}), "does not recognize this encoded version"),
        (encoded({"v": "meta.k8s.io/v1", "start": "a"}), "incorrect encoded start resourceVersion"),
        (encoded({"v": "meta.k8s.io/v1", "rv": 1}), "encoded start key empty"),
    ],
)
def test_tokens_that_are_none(text: str, why: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ContinueToken.decode(text)
    assert caught.value.message.startswith("invalid continue token: continue key is not valid: ")
    assert why in caught.value.message


# -- sharding ---------------------------------------------------------------------------------------

LOW = "shardRange(object.metadata.uid,'0x0000000000000000','0x8000000000000000')"
HIGH = "shardRange(object.metadata.uid, '0x8000000000000000', '0x10000000000000000')"


def test_shards_divide_a_list_and_are_echoed() -> None:
    async def main() -> None:
        server = caller(shard_selector=True)
        for name in "abcdefgh":
            await server.create(MAPS, name)
        parts = [await server.get(f"{MAPS}?shardSelector={text}") for text in (LOW, HIGH)]
        assert sorted(names(parts[0]) + names(parts[1])) == list("abcdefgh")
        assert all(fnv1a64(item["metadata"]["uid"]) < 1 << 63 for item in parts[0]["items"])
        assert parts[1]["metadata"]["shardInfo"]["selector"] == HIGH
        both = await server.get(f"{MAPS}?shardSelector={LOW} || {HIGH}")
        assert names(both) == list("abcdefgh")

    in_virtual_time(main())


def test_without_the_gate_shards_are_ignored() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a")
        for text in (LOW, HIGH, "nonsense"):
            page = await server.get(f"{MAPS}?shardSelector={text}")
            assert names(page) == ["a"]
            assert "shardInfo" not in page["metadata"]

    in_virtual_time(main())


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "shardRange(object.metadata.name,'0x0000000000000000','0x8000000000000000')",
        "shardRange(object.metadata.uid,'0x0','0x8')",
        "shardRange(object.metadata.uid,'0x8000000000000000','0x0000000000000000')",
        f"{LOW} || shardRange(object.metadata.namespace,'0x8000000000000000','0x10000000000000000')",
        "shardRange(object.metadata.uid,'0x0000000000000000','0x20000000000000000')",
    ],
)
def test_shard_selectors_that_are_none(text: str) -> None:
    with pytest.raises(BadShardSelector) as caught:
        parse_shard_selector(text)
    assert caught.value.code == 500
