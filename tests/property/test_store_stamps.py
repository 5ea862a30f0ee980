"""Stamping against `json`: wherever else the text stands, only ``metadata.resourceVersion`` changes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shoal.shards.model.versions import Version
from shoal.shards.store.stamps import stamped

PIECES = [
    '"resourceVersion":"7"',
    "resourceVersion",
    '\\"7\\"',
    '"',
    "\\",
    "{",
    "}",
    "metadata",
    "7",
    "ä",
    " ",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
KEYS = st.sampled_from(["resourceVersion", "metadata", "name", "spec", 'a"b']) | TEXTS
VALUES = st.recursive(
    st.sampled_from(["7", "77", 7, None, True]) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    metadata: dict[str, Any] = draw(st.dictionaries(KEYS, VALUES, max_size=4)) | {"resourceVersion": "7"}
    metadata = {name: metadata[name] for name in draw(st.permutations(list(metadata)))}
    document = draw(st.dictionaries(KEYS, VALUES, max_size=4)) | {"metadata": metadata}
    document = {name: document[name] for name in draw(st.permutations(list(document)))}
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " : ")]))
    text = json.dumps(document, separators=separators, ensure_ascii=draw(st.booleans()))
    return text.encode(), document


@given(made=bodies(), version=st.sampled_from([1, 7, 8, 77, 10**18]))
def test_nothing_else_changes(made: tuple[bytes, dict[str, Any]], version: int) -> None:
    body, document = made
    document["metadata"]["resourceVersion"] = str(version)
    changed = stamped(body, Version(7), Version(version))
    assert json.loads(changed) == document
    assert list(json.loads(changed)) == list(document)
