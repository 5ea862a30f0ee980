"""``shardSelector`` over the router: which partitions are asked, what is echoed, and what is refused."""

import json
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from support.carved import ALL, carved, keys, listed, query
from support.clock import run_virtual
from support.local_shards import CONFIG_MAPS, PODS, LocalInstallation, made

from shoal.cluster.query.tokens import decode_token
from shoal.shards.model.errors import BadRequest, ShoalError
from shoal.shards.model.partitions import HASH_END, ExceptNamespaces, HashRange, OneNamespace, fnv1a64

WIRE = Path(__file__).parents[2] / "wire"
HALF = 1 << 63


def selector(field, *ranges):
    return " || ".join(
        f"shardRange(object.metadata.{field}, '0x{low:016x}', '0x{high:016x}')" for low, high in ranges
    )


def around(namespace):
    at = fnv1a64(namespace)
    return selector("namespace", (at, at + 1))


def test_all_ranges_together_are_the_list_and_each_object_is_in_one():
    async def main():
        installation = carved()
        found = []
        quarter = HASH_END // 4
        for at in range(4):
            asked = query(shardSelector=selector("uid", (at * quarter, (at + 1) * quarter)))
            bodies, listing = await listed(installation.router, asked)
            assert listing.shard_selector == asked.shards
            assert keys(bodies) == sorted(keys(bodies))
            found += keys(bodies)
        assert sorted(found) == ALL

    run_virtual(main())


def test_a_list_without_selector_echoes_none():
    async def main():
        _, listing = await listed(carved().router, query())
        assert listing.shard_selector == ""

    run_virtual(main())


def test_the_echo_is_in_canonical_spelling():
    canonical = selector("namespace", (0, HALF), (HALF, HASH_END))
    assert query(shardSelector=canonical.replace(" ", "")).shards == canonical


@pytest.mark.parametrize(
    ("namespace", "parameters", "shards"),
    [
        (None, {"shardSelector": around("b")}, [1, 2]),
        (None, {"shardSelector": around("zzz")}, [2]),
        (None, {"shardSelector": around("a"), "fieldSelector": "metadata.namespace=a"}, [0]),
        (None, {"shardSelector": selector("uid", (0, 1))}, [0, 1, 2]),
        ("a", {"shardSelector": around("b")}, [0]),
    ],
)
def test_partitions_that_a_range_of_namespaces_cannot_concern_are_not_asked(namespace, parameters, shards):
    async def main():
        installation = carved()
        _, listing = await listed(installation.router, query(namespace, **parameters))
        asked = [at for at, shard in enumerate(installation.shards.values()) if shard.calls]
        assert asked == shards
        assert listing.version > 0

    run_virtual(main())


@pytest.mark.parametrize(
    ("field", "ranges", "shards"),
    [
        ("uid", [(0, 5)], [0]),
        ("uid", [(HALF - 1, HALF)], [0]),
        ("uid", [(HALF, HALF + 1)], [1]),
        ("uid", [(HALF - 1, HALF + 1)], [0, 1]),
        ("uid", [(0, 5), (HALF + 7, HASH_END)], [0, 1]),
        ("namespace", [(0, 5)], [0, 1]),
    ],
)
def test_partitions_by_hash_are_asked_where_the_ranges_meet(field, ranges, shards):
    async def main():
        installation = LocalInstallation()
        for shard, (low, high) in enumerate(((0, HALF), (HALF, HASH_END))):
            pods = [made(PODS, "x", namespace="a")]
            installation.hold(PODS, pods, cover=HashRange("uid", low, high), shard=shard)
        installation.publish()
        await listed(installation.router, query(shardSelector=selector(field, *ranges)))
        assert [at for at, shard in enumerate(installation.shards.values()) if shard.calls] == shards

    run_virtual(main())


def test_the_pages_of_a_sharded_list_are_its_own():
    async def main():
        router = carved().router
        low = query(limit=2, shardSelector=selector("uid", (0, HALF)))
        whole, _ = await listed(router, query(shardSelector=selector("uid", (0, HALF))))
        first, listing = await listed(router, low)
        assert listing.remaining == len(whole) - 2
        assert decode_token(listing.continue_token, low.fingerprint).pins
        with pytest.raises(BadRequest, match="belongs to a list of another"):
            await router.list(query(continue_=listing.continue_token))
        rest, _ = await listed(
            router,
            query(shardSelector=selector("uid", (0, HALF)), continue_=listing.continue_token),
        )
        assert keys(first + rest) == keys(whole)

    run_virtual(main())


def test_counts_are_sharded_as_well():
    async def main():
        router = carved().router
        counts = [
            (await router.count(query(shardSelector=selector("uid", bounds)))).count
            for bounds in ((0, HALF), (HALF, HASH_END))
        ]
        assert sum(counts) == len(ALL)
        assert (await router.count(query(shardSelector=around("b")))).count == 5

    run_virtual(main())


@pytest.mark.parametrize("name", ["list-sharded-bad", "list-sharded-garbage"])
@pytest.mark.parametrize("verb", ["list", "count"])
def test_a_malformed_selector_gets_the_recorded_answer(name, verb):
    recorded = json.loads((WIRE / f"{name}.json").read_text())
    text = recorded["request"]["path"].partition("shardSelector=")[2]

    async def main():
        installation = carved()
        with pytest.raises(ShoalError) as caught:
            await getattr(installation.router, verb)(query(shardSelector=text))
        assert caught.value.code == recorded["response"]["status"]
        assert caught.value.status() == json.loads(recorded["response"]["body"])
        assert not any(shard.calls for shard in installation.shards.values())

    run_virtual(main())


# -- through the gateway ------------------------------------------------------------------------------------


class _Items(msgspec.Struct):
    items: list[msgspec.Raw]


def recorded_body(name):
    return json.loads((WIRE / f"{name}.json").read_text())["response"]["body"].encode()


@pytest.mark.parametrize("name", ["uid-low", "uid-high", "ns-low", "bad", "garbage"])
async def test_the_gateway_answers_sharded_lists_as_recorded(name):
    prefix = b'{"kind":"ConfigMap","apiVersion":"v1",'
    alpha = [
        prefix + bytes(item)[1:]
        for half in ("uid-low", "uid-high")
        for item in msgspec.json.decode(recorded_body(f"list-sharded-{half}"), type=_Items).items
    ]
    installation = LocalInstallation()
    installation.hold(CONFIG_MAPS, alpha, cover=OneNamespace("alpha"), shard=0, version=243)
    installation.hold(CONFIG_MAPS, cover=ExceptNamespaces(("alpha",)), shard=1, version=243)
    installation.publish()
    exchange = json.loads((WIRE / f"list-sharded-{name}.json").read_text())
    path, mark, parameters = exchange["request"]["path"].partition("?")
    reply = await installation.ask(path + mark + quote(parameters, safe="=&"))
    assert reply.status == exchange["response"]["status"]
    assert reply.body == exchange["response"]["body"].encode()


@pytest.mark.parametrize("kind", ["Table", "PartialObjectMetadataList"])
async def test_other_forms_of_a_list_carry_the_echo_as_well(kind):
    accept = f"application/json;as={kind};v=v1;g=meta.k8s.io"
    text = selector("uid", (0, HALF))
    reply = await carved().ask(f"/api/v1/pods?shardSelector={quote(text)}", accept=accept)
    assert reply.json["kind"] == kind
    assert reply.json["metadata"]["shardInfo"] == {"selector": text}
