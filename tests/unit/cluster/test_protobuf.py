"""Protobuf bodies: what is understood, and that nothing else is dropped silently."""

from __future__ import annotations

import pytest

from shoal.cluster.serving.protobuf import decode_protobuf
from shoal.shards.model.errors import BadRequest, UnsupportedMediaType


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes((number << 3, value))
    return bytes((number << 3 | 2, len(value))) + value


def body(kind: str, message: bytes) -> bytes:
    types = field(1, b"v1") + field(2, kind.encode())
    return b"k8s\x00" + field(1, types) + field(2, message)


METADATA = field(1, field(1, b"a") + field(8, b"") + field(11, field(1, b"k") + field(2, b"v")))


def test_an_object() -> None:
    message = METADATA + field(2, field(1, b"x") + field(2, b"1")) + field(4, 1)
    assert decode_protobuf(body("ConfigMap", message)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "labels": {"k": "v"}},
        "data": {"x": "1"},
        "immutable": True,
    }


def test_kinds_and_fields_that_are_not_known_are_refused() -> None:
    with pytest.raises(UnsupportedMediaType, match="a Node in protobuf form"):
        decode_protobuf(body("Node", METADATA))
    with pytest.raises(UnsupportedMediaType, match="field 9 of ConfigMap"):
        decode_protobuf(body("ConfigMap", METADATA + field(9, 1)))


@pytest.mark.parametrize(
    "damaged",
    [
        b"{}",
        b"k8s\x00\xff",
        b"k8s\x00" + b"\x0a\x50abc",
        body("ConfigMap", field(1, 7)),
        body("ConfigMap", METADATA)[:-3],
        body("ConfigMap", b"\x0d\x00\x00\x00\x00"),
        body("ConfigMap", field(1, field(1, b"\xff\xfe"))),
    ],
)
def test_damaged_bodies_are_400(damaged: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_protobuf(damaged)
