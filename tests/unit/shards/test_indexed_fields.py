"""Fields the settings declare: of any type, read the quick way and the slow way alike, selectable and indexed."""

from __future__ import annotations

from typing import Any

import pytest
from support.observed import POD, line, only

from shoal.shards.api.decode import Decoder
from shoal.shards.model.partitions import Epoch, Partition
from shoal.shards.model.queries import PageQuery
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.objects import PartitionStore

PATHS = ("spec.priority", "spec.deep.er.value", "metadata.generateName", "spec.nodeName")


def known(*, custom: bool) -> ResourceType:
    return ResourceType(
        resource=Resource("example.com", "v1", "pods") if custom else Resource("", "v1", "pods"),
        kind="Pod",
        namespaced=True,
        custom=custom,
        selectable_fields=("spec.nodeName", "status.phase", *PATHS[:3]),
        indexed_fields=PATHS,
    )


VALUES: list[tuple[Any, str]] = [
    ("high", "high"),
    ("", ""),
    (1000, "1000"),
    (-1.5, "-1.5"),
    (True, "true"),
    (False, "false"),
    (None, ""),
    ({"a": 1}, ""),
    ([1, 2], ""),
    ('say "ä"', 'say "ä"'),
]


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize(("value", "text"), VALUES)
def test_values_are_texts_whatever_their_type(value: Any, text: str, *, custom: bool) -> None:
    document = POD | {"spec": POD["spec"] | {"priority": value, "deep": {"er": {"value": value}}}}
    if custom:
        document = {"apiVersion": "example.com/v1", "kind": "Pod"} | {
            name: member for name, member in document.items() if name not in ("kind", "apiVersion")
        }
    decoder = Decoder(known(custom=custom))
    quick = only(decoder, line(document))
    rebuilt = decoder._rebuild
    slow = only(decoder, line(dict(reversed(document.items()))))
    assert quick.fields == slow.fields == ("node-1", "Running", text, text, "")
    decoder._rebuild = None  # type: ignore[assignment]
    try:
        assert only(decoder, line(document)).fields == quick.fields, "read the quick way"
    finally:
        decoder._rebuild = rebuilt  # type: ignore[method-assign]


@pytest.mark.parametrize("spec", [None, "text", {"deep": None}, {"deep": {"er": "text"}}, {"deep": [1]}])
def test_a_path_that_leads_nowhere_is_empty(spec: Any) -> None:
    found = only(Decoder(known(custom=False)), line(POD | {"spec": spec}))
    assert found.fields[2:4] == ("", "")


def test_they_are_selected_by_an_index() -> None:
    resource_type = known(custom=False)
    store = PartitionStore(
        Partition(resource_type.resource), resource_type, settings=StoreSettings(), clock=lambda: 0.0
    )
    decoder = Decoder(resource_type)
    store.begin()
    for number in range(30):
        document = POD | {
            "metadata": POD["metadata"] | {"name": f"p{number:02}", "uid": f"u{number}"},
            "spec": {"priority": number % 3},
        }
        store.put(only(decoder, line(document)))
    store.finish(Version(100))
    page = store.page(
        PageQuery(partition=store.partition.id, epoch=Epoch(1), fields="spec.priority=2", limit=100)
    )
    assert page.keys == [f"n/p{number:02}" for number in range(2, 30, 3)]
    assert store._index.sizes_by_field("spec.priority") == {"0": 10, "1": 10, "2": 10}
    assert store._index.sizes_by_field("status.phase") is None
