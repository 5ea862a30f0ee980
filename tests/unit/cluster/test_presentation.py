"""Lists in pieces are the same bytes as lists shown at once, in every form."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest
import yaml
from support.local_shards import CONFIG_MAPS, PODS, WIDGETS, LocalInstallation, made

from shoal.cluster.gateway.forms import list_form
from shoal.cluster.query.answers import Listing, Provenance
from shoal.cluster.serving.documents import (
    PARTIAL_LIST_TAIL,
    ListMetadata,
    list_body,
    partial_list_head,
    partial_metadata,
    present,
)
from shoal.cluster.serving.negotiation import Accepted
from shoal.cluster.serving.presentation import shell, shown
from shoal.cluster.serving.tables import table
from shoal.shards.model.versions import Version

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ODD = {
    "text": 'a\nb\t"quoted" \\ é \u2028 <&>',
    "items": [],
    "empty": {},
    "number": "012",
    "yes": "yes",
    "nested": [[1, [2]], {"a": [{"b": None}]}],
}
FORMS = [
    Accepted(),
    Accepted(pretty=True),
    Accepted(media="application/yaml"),
]
CONVERSIONS = ["", "Table", "PartialObjectMetadataList"]


def objects(resource_type, count):
    return [made(resource_type, f"x-{at}", namespace="a", version=at + 1, data=ODD) for at in range(count)]


def at_once(resource_type, bodies, metadata, accepted):
    match accepted.convert:
        case "Table":
            whole = table(resource_type, bodies, metadata, now=NOW, include_object=accepted.include_object)
        case "":
            whole = list_body(resource_type, metadata, bodies)
        case _:
            items = b",".join(map(partial_metadata, bodies))
            whole = partial_list_head(metadata) + items + PARTIAL_LIST_TAIL
    return present(whole, accepted)


@pytest.mark.parametrize("count", [0, 1, 7, 60])
@pytest.mark.parametrize("convert", CONVERSIONS)
@pytest.mark.parametrize("form", FORMS, ids=["json", "pretty", "yaml"])
@pytest.mark.parametrize("resource_type", [CONFIG_MAPS, PODS, WIDGETS], ids=lambda known: known.kind)
async def test_pieces_make_the_whole(resource_type, form, convert, count) -> None:
    accepted = Accepted(form.media, convert, pretty=form.pretty)
    bodies = objects(resource_type, count)

    async def rest():
        for start in range(5, len(bodies), 13):
            yield bodies[start : start + 13]

    listing = Listing(
        version=Version(9),
        continue_token="t",
        remaining=3,
        first=tuple(bodies[:5]),
        rest=rest(),
        provenance=Provenance(frontier=Version(9), age_s=0.0, shards=()),
        complete=count <= 5,
    )
    chunks = [chunk async for chunk in list_form(listing, resource_type, accepted, now=NOW)]
    expected = at_once(resource_type, bodies, ListMetadata(9, "t", 3), accepted)
    assert b"".join(chunks) == expected
    if accepted.media == "application/yaml":
        plain = at_once(resource_type, bodies, ListMetadata(9, "t", 3), Accepted(convert=convert))
        assert yaml.safe_load(expected) == json.loads(plain)
    if count == 60 and form != FORMS[0]:
        assert len(chunks) > 5
        assert max(map(len, chunks)) < len(expected)


def test_a_text_that_looks_like_the_items_is_none() -> None:
    head, tail = b'{"metadata":{"continue":"\\n  \\"items\\": []"},"items":[', b"]}\n"
    around = shell(head, tail, "items", Accepted(pretty=True))
    whole = around.head + shown([b'{"a":1}'], Accepted(pretty=True)) + around.tail
    assert json.loads(whole) == {"metadata": {"continue": '\n  "items": []'}, "items": [{"a": 1}]}


async def test_others_get_their_turn_while_a_long_list_is_rendered() -> None:
    installation = LocalInstallation(1)
    installation.hold(CONFIG_MAPS, objects(CONFIG_MAPS, 200), version=300)
    installation.publish()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    reply = await installation.ask("/api/v1/configmaps", accept="application/yaml")
    task.cancel()
    assert len(yaml.safe_load(reply.body)["items"]) == 200
    assert turns >= 200 / 4
