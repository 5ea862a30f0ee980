"""Another resourceVersion in a body, and nothing else."""

from __future__ import annotations

import json

import pytest
from support.observed import compact

from shoal.shards.model.versions import Version
from shoal.shards.store.stamps import stamped


def test_an_equal_version_leaves_the_body_alone() -> None:
    body = b'{"metadata":{"resourceVersion":"7"}}'
    assert stamped(body, Version(7), Version(7)) is body


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"Pod","metadata":{"name":"a","resourceVersion":"7"},"spec":{"x":"7"}}',
        b'{"metadata" : { "resourceVersion" : "7" , "name":"a" }}',
        b'{"involvedObject":{"resourceVersion":"7"},"metadata":{"resourceVersion":"7"}}',
        b'{"metadata":{"annotations":{"last":"{\\"resourceVersion\\":\\"7\\"}"},"resourceVersion":"7"}}',
        b'{"involvedObject":{"resourceVersion":"7"},"metadata":{"resourceVersi\\u006fn":"7"}}',
        b'{"spec":{"metadata":{"resourceVersion":"7"}},"metadata":{"resourceVersion":"007"}}',
        b'{"metadata":{"ownerReferences":[{"resourceVersion":"7"}],"resourceVersion":"7","x":"\xc3\xa4"}}',
    ],
)
def test_only_the_objects_own_version_changes(body: bytes) -> None:
    wanted = json.loads(body)
    wanted["metadata"]["resourceVersion"] = "12"
    changed = stamped(body, Version(7), Version(12))
    assert json.loads(changed) == wanted
    assert list(json.loads(changed)) == list(wanted)


def test_a_deeply_nested_object_is_stamped_too() -> None:
    deep: object = 1
    for _ in range(900):
        deep = {"a": deep}
    body = b'{"metadata":{"resourceVersion":"7"},"spec":%b}' % compact(deep)
    nested = body.replace(b'"a":1}', b'"a":%b}' % (b'{"b":' * 2000 + b"1" + b"}" * 2000))
    assert stamped(nested, Version(7), Version(8)) == nested.replace(b'"7"', b'"8"')
