"""Decoding against `json`: whatever stands around and inside managedFields, only managedFields is gone."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from support.observed import PODS, WIDGETS, compact, without_managed_fields

from shoal.shards.api.decode import Decoder
from shoal.shards.model.fields import field_value
from shoal.shards.model.observations import Observation

# Texts made of what could be taken for structure.
PIECES = st.lists(
    st.sampled_from(
        ["]", "[", "}", "{", '"', "\\", ",", ":", '"managedFields":[', ']},"s', "f:spec", "a", "ä", " "]
    ),
    max_size=6,
)
TEXTS = PIECES.map("".join)
KEYS = TEXTS | st.sampled_from(["managedFields", "metadata", "name", "spec", "nodeName", "size"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
IDENTITY = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7"}


@st.composite
def objects(draw: st.DrawFn) -> dict[str, Any]:
    metadata: dict[str, Any] = draw(st.dictionaries(KEYS, VALUES, max_size=3)) | IDENTITY
    metadata["managedFields"] = draw(
        VALUES | st.lists(st.dictionaries(TEXTS, VALUES, max_size=2), max_size=3)
    )
    if draw(st.booleans()):
        metadata["annotations"] = draw(st.dictionaries(TEXTS, TEXTS, max_size=2))
    metadata = {name: metadata[name] for name in draw(st.permutations(list(metadata)))}
    members = draw(st.dictionaries(KEYS, VALUES, max_size=3)) | {"metadata": metadata}
    names = [name for name in draw(st.permutations(list(members))) if name not in ("kind", "apiVersion")]
    return {name: members[name] for name in names}


@given(document=objects(), custom=st.booleans(), listed=st.booleans())
@example(
    document={"metadata": IDENTITY | {"managedFields": [{'v:"]},\\"s"': {}}]}, "s": 1},
    custom=False,
    listed=True,
)
def test_only_managed_fields_is_gone(document: dict[str, Any], *, custom: bool, listed: bool) -> None:
    resource_type = WIDGETS if custom else PODS
    kind, api_version = resource_type.kind, resource_type.resource.api_version
    order = ("apiVersion", "kind") if custom else ("kind", "apiVersion")
    whole = {name: {"kind": kind, "apiVersion": api_version}[name] for name in order} | document
    decoder = Decoder(resource_type)
    if listed:
        item = whole if custom else document
        (found,) = decoder.page(compact({"metadata": {"resourceVersion": "9"}, "items": [item]})).observations
    else:
        (line,) = decoder.lines(b'{"type":"ADDED","object":%b}\n' % compact(whole))
        assert isinstance(line, Observation)
        found = line
    assert list(json.loads(found.body).items()) == list(without_managed_fields(whole).items())
    name = resource_type.resource.qualified_name
    assert found.fields == tuple(field_value(whole, name, field) for field in decoder.fields)
    assert json.loads(found.labels or b"{}") == (whole["metadata"].get("labels") or {})
